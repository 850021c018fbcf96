"""A partition's disk as an NBD export: real clients over it, byte for byte, by the path of all requests (U10, H7)."""

import json
import os
import random
import select
import shutil
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.framework.exported import SIZE, Exported
from tests.framework.host import Host
from tests.framework.nbd import (
    DONT_FRAGMENT,
    EINVAL,
    ENOSPC,
    EPERM,
    FLUSH,
    FUA,
    NO_HOLE,
    ONE,
    READ,
    TRIM,
    WRITE,
    ZEROES,
    Client,
)
from tests.framework.streams import CHANGES, PATHS

MIB = 1 << 20
DATA, HOLE = 0, 3


@pytest.fixture
def exported(host: Host) -> Iterator[Exported]:
    if (file := host.paths.disks / "nbd-redirect.img").exists():
        file.unlink()
    yield Exported(host)


def run(*command: str, **options: Any) -> str:
    """Output of a client; skipped, by its name, where it is not installed."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, **options)
    assert done.returncode == 0, f"{command}: {done.stdout} {done.stderr}"
    return done.stdout


def test_nbdinfo_tells_what_the_export_can(exported: Exported) -> None:
    [told] = json.loads(run("nbdinfo", "--json", exported.uri))["exports"]
    assert told["export-size"] == SIZE and told["export-name"] == "data"
    assert told["contexts"] == ["base:allocation"]
    for ability in ("can_flush", "can_fua", "can_multi_conn", "can_trim", "can_zero", "can_df"):
        assert told[ability] is True, ability
    assert told["is_read_only"] is False
    listed = json.loads(run("nbdinfo", "--json", "--list", exported.uri))["exports"]
    names = [export["export-name"] for export in listed]
    assert names == ["data", "locked", "spare"]
    uri = exported.uri.replace("///", "///locked")
    assert json.loads(run("nbdinfo", "--json", uri))["exports"][0]["is_read_only"] is True


def test_the_name_of_the_socket_comes_and_goes_with_the_partition(host: Host, exported: Exported) -> None:
    assert exported.socket.stat().st_mode & 0o777 == 0o600
    host.remove("store")
    assert not exported.socket.exists()


@pytest.mark.parametrize("path", PATHS)
def test_qemu_io_over_each_path(host: Host, path: str) -> None:
    """Writes, forced writes, zeroes, discards and reads of a client with its own patterns; the file agrees."""
    exported = Exported(host, path)
    commands = ["write -P 7 1M 3M", "write -f -P 8 1536 512", "write -P 9 4M 4k", "write -z -u 2M 64k",
                "discard 3M 64k", "flush", "read -P 7 1M 1M", "read -P 0 2M 64k", "read -P 8 1536 512",
                "read -P 9 4M 4k"]  # fmt: skip
    run("qemu-io", "-f", "raw", *(word for command in commands for word in ("-c", command)), exported.uri)
    expected = bytearray(8 * MIB)
    written = ((MIB, 3 * MIB, 7), (1536, 512, 8), (4 * MIB, 4096, 9), (2 * MIB, 65536, 0), (3 * MIB, 65536, 0))
    for first, length, value in written:
        expected[first : first + length] = bytes([value]) * length
    with exported.file.open("rb") as file:
        assert file.read(len(expected)) == expected
    with exported.client() as client:
        each = [(65536, HOLE), (MIB - 65536, DATA)]
        assert client.extents(2 * MIB, 2 * MIB) == each * 2
    metrics = host.metrics()
    assert metrics.value("disk_forced_writes_completed_total", partition="store") >= 1
    assert metrics.value("io_bytes_total", partition="store", op="discard") == 65536
    assert metrics.by("reason", "io_refused_total", partition="store") == {}


def test_images_go_in_and_out_with_their_holes(exported: Exported, tmp_path: Path) -> None:
    """nbdcopy and qemu-img, over several connections."""
    image, back, converted = tmp_path / "image", tmp_path / "back", tmp_path / "back.qcow2"
    with image.open("wb") as file:
        file.truncate(SIZE)
        for number in range(0, 40, 3):
            file.seek(number * MIB + 4096 * number)
            file.write(random.Random(number).randbytes(200_000))
    run("nbdcopy", "--connections=4", "--requests=16", "--flush", str(image), exported.uri)
    assert exported.file.read_bytes() == image.read_bytes()
    run("nbdcopy", "--connections=4", exported.uri, str(back))
    assert back.read_bytes() == image.read_bytes()
    assert back.stat().st_blocks <= image.stat().st_blocks + 512, "holes were filled"
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", exported.uri, str(converted))
    assert "identical" in run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", exported.uri, str(converted))


def test_fio_verifies_what_it_wrote(exported: Exported) -> None:
    job = ["--name=verify", "--ioengine=nbd", f"--uri={exported.uri}", "--rw=randwrite", "--bsrange=4k-128k",
           "--iodepth=16", "--size=16M", "--verify=crc32c", "--do_verify=1", "--verify_fatal=1",
           "--verify_state_save=0", "--output-format=json"]  # fmt: skip
    told = run("fio", *job)
    [result] = json.loads(told[told.index("{") :])["jobs"]
    assert result["error"] == 0 and result["write"]["total_ios"] > 100 and result["read"]["total_ios"] > 100


def test_a_file_system_is_sound(exported: Exported, tmp_path: Path) -> None:
    """Made by mkfs.ext4 with a file in it, written over NBD, checked as it lies on the disk."""
    image, folder = tmp_path / "image", tmp_path / "tree"
    folder.mkdir()
    (folder / "hello").write_bytes(random.Random(1).randbytes(300_000))
    with image.open("wb") as file:
        file.truncate(SIZE)
    run("mkfs.ext4", "-q", "-F", "-d", str(folder), str(image))
    run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", str(image), exported.uri)
    run("e2fsck", "-f", "-n", str(exported.file))
    run("debugfs", "-R", f"dump hello {tmp_path / 'out'}", str(exported.file))
    assert (tmp_path / "out").read_bytes() == (folder / "hello").read_bytes()


def test_it_can_be_mounted(exported: Exported, tmp_path: Path) -> None:
    """Where loop devices and rights allow: what NBD clients wrote is a file system to the kernel, too."""
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists():
        pytest.skip("no right to mount, or no loop devices")
    image, folder, target = tmp_path / "image", tmp_path / "tree", tmp_path / "mount"
    folder.mkdir()
    target.mkdir()
    (folder / "hello").write_text("hello")
    with image.open("wb") as file:
        file.truncate(SIZE)
    run("mkfs.ext4", "-q", "-F", "-d", str(folder), str(image))
    run("nbdcopy", "--flush", str(image), exported.uri)
    mounted = subprocess.run(["mount", "-o", "loop,ro,noload", exported.file, target], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"mount: {mounted.stderr.strip()}")
    try:
        assert (target / "hello").read_text() == "hello"
    finally:
        run("umount", str(target))


def test_paths_change_under_clients(host: Host, exported: Exported) -> None:
    """Also while nobody asks for anything; no request is lost, repeated or mixed up."""
    for path in CHANGES[:2]:
        host.set_path("store", "data", path)
    with exported.client() as client:
        ending, rounds = threading.Event(), []

        def work() -> None:
            while not ending.is_set():
                seed = len(rounds)
                blocks = [random.Random(seed * 100 + number).randbytes(4096) for number in range(32)]
                written = [client.ask(WRITE, number * 4096, 4096, block) for number, block in enumerate(blocks)]
                assert sorted(client.hear().cookie for _ in written) == written
                asked = {client.ask(READ, number * 4096, 4096): block for number, block in enumerate(blocks)}
                for _ in range(32):
                    reply = client.hear()
                    assert reply.data == asked.pop(reply.cookie)
                rounds.append(seed)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            for path in CHANGES[2:]:
                before = len(rounds)
                host.set_path("store", "data", path)
                host.until(lambda before=before: len(rounds) > before + 1 or not thread.is_alive())
        finally:
            ending.set()
            thread.join()
    assert len(rounds) > 2 * len(CHANGES[2:])


def test_an_idle_export_costs_nothing(host: Host, exported: Exported) -> None:
    """With connections open; processor time by the kernel's account, in ticks of 10 ms."""
    clients = [exported.client() for _ in range(8)]
    for client in clients:
        assert client.do(READ, 0, 4096).error == 0
    pid = host.pids()["store"]

    def used() -> float:
        times = psutil.Process(pid).cpu_times()
        return times.user + times.system

    before, begin = used(), time.monotonic()
    select.select([], [], [], 2.0)  # the time that is measured
    share = (used() - before) / (time.monotonic() - begin)
    for client in clients:
        client.close()
    assert share <= 0.015, f"{share:.1%} of a processor"


def test_its_wake_ups_stop_no_client(host: Host, exported: Exported) -> None:
    tasks = [int(task.name) for task in Path(f"/proc/{host.pids()['store']}/task").iterdir()]
    assert {os.sched_getscheduler(task) for task in tasks} == {os.SCHED_BATCH}


def test_many_connections_see_one_disk(exported: Exported) -> None:
    """What is written and flushed on one is read on the others: the promise of multi-connection."""
    clients = [exported.client(structured=number % 2 == 0) for number in range(8)]
    blocks = [random.Random(number).randbytes(65536) for number in range(8)]
    for number, client in enumerate(clients):
        client.ask(WRITE, number * 65536, 65536, blocks[number])
    assert all(client.hear().error == 0 for client in clients)
    assert clients[3].do(FLUSH).error == 0
    for client in clients:
        reply = client.do(READ, 0, 8 * 65536)
        assert reply.data == b"".join(blocks)
        client.close()


def test_requests_of_one_connection_are_many_at_once(exported: Exported) -> None:
    """Hundreds in flight, answered in any order, each with its own bytes."""
    with exported.client() as client:
        blocks = {client.ask(WRITE, number * 4096, 4096, bytes([number % 251]) * 4096): number for number in range(300)}
        assert {client.hear().cookie for _ in blocks} == set(blocks)
        asked = {client.ask(READ, number * 4096, 4096): number for number in range(300)}
        for _ in range(300):
            reply = client.hear()
            assert reply.data == bytes([asked[reply.cookie] % 251]) * 4096


def test_reads_need_no_alignment_and_writes_do(exported: Exported) -> None:
    with exported.client() as client:
        data = random.Random(5).randbytes(8192)
        assert client.do(WRITE, 0, 8192, data).error == 0
        assert client.do(READ, 700, 3333).data == data[700:4033]
        assert client.do(WRITE, 100, 512, bytes(512)).error == EINVAL
        assert client.do(ZEROES, 0, 1000).error == EINVAL
        assert client.do(TRIM, 100, 1500).error == 0  # in part: what is no whole sector stays
        assert client.do(READ, 0, 512).data == data[:512]


def test_block_status(exported: Exported) -> None:
    with exported.client() as client:
        assert sum(length for length, _ in client.extents(0, SIZE)) == SIZE
        assert client.do(WRITE, 8 * MIB, MIB, bytes([1]) * MIB, flags=FUA).error == 0
        assert client.extents(0, 16 * MIB) == [(8 * MIB, HOLE), (MIB, DATA), (7 * MIB, HOLE)]
        assert client.extents(4 * MIB, 8 * MIB, flags=ONE) == [(4 * MIB, HOLE)]
        assert client.do(ZEROES, 8 * MIB, MIB // 2).error == 0
        assert client.extents(8 * MIB, MIB) == [(MIB // 2, HOLE), (MIB // 2, DATA)]
        assert client.do(ZEROES, 0, MIB, flags=NO_HOLE).error == 0
        assert client.do(READ, 8 * MIB, MIB, flags=DONT_FRAGMENT).data == bytes(MIB // 2) + bytes([1]) * (MIB // 2)


def test_a_disk_that_grew_is_seen_by_new_connections(host: Host, exported: Exported) -> None:
    with exported.client("spare") as client:
        assert client.size == MIB
        assert client.do(WRITE, 0, 4096, bytes([7]) * 4096).error == 0
    host.detach("store", "spare")
    host.attach("store", disk={"name": "spare", "size": 4 * MIB})

    def grown() -> bool:
        with Client(exported.socket) as client:
            told = client.option(7, struct.pack(">I5sH", 5, b"spare", 0))
            return any(data[:2] == bytes(2) and struct.unpack(">Q", data[2:10]) == (4 * MIB,) for _, data in told)

    host.until(grown)
    with exported.client("spare") as client:
        assert client.do(READ, 0, 4096).data == bytes([7]) * 4096
        assert client.do(WRITE, 4 * MIB - 512, 512, bytes(512)).error == 0


def test_bounds_and_rights(exported: Exported) -> None:
    with exported.client() as client, exported.client("locked") as locked:
        assert client.do(READ, SIZE - 512, 1024).error == EINVAL
        assert client.do(READ, 1 << 63, 512).error == EINVAL
        assert client.do(WRITE, SIZE - 512, 1024, bytes(1024)).error == ENOSPC
        assert client.do(READ, 0, 0).error == EINVAL
        for command, data in ((WRITE, bytes(512)), (TRIM, b""), (ZEROES, b"")):
            assert locked.do(command, 0, 512, data).error == EPERM
        assert locked.do(READ, 0, 512).data == bytes(512)
        assert client.do(READ, 0, 512).error == 0, "the connection goes on"

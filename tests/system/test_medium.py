"""What a medium does reaches the guest: its errors, once, and its slowness; and no disk waits for another (U10)."""

import os
import signal
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.framework import small_media
from tests.framework.host import MANIFEST, Host, running
from tests.framework.streams import PATHS

MIB = 1 << 20
LATENCY = 0.1  # seconds: long enough that a test acts while a request is at the medium
SLOW = 0.002


def manifest(**disk: Any) -> dict[str, Any]:
    return {**MANIFEST, "devices": [MANIFEST["devices"][0], {"name": "disk0", "kind": "disk", **disk}]}


@pytest.fixture(scope="module")
def direct_host() -> Iterator[Host]:
    with running(manifest(medium="direct")) as host:
        yield host


@pytest.fixture(scope="module")
def slow_host() -> Iterator[Host]:
    with running(manifest(medium="ram", simulated={"latency": LATENCY})) as host:
        yield host


def way(host: Host) -> str:
    """How the device moves the data of its only file."""
    (only,) = host.status()["media"]["disk0"]["files"].values()
    return str(only)


@pytest.mark.parametrize("path", PATHS)
def test_past_the_page_cache_data_are_the_same(direct_host: Host, path: str) -> None:
    """Aligned requests go past the cache, odd ones through it, and both see the same bytes."""
    disk = {"name": "vda", "size": "4MiB", "file": f"direct-{path}.img", "path": path}
    guest = direct_host.guest("store", disks=[disk], memory="16MiB")
    try:
        assert way(direct_host).startswith("past the page cache by io_uring")
        for seed, (length, shift, offset) in enumerate(
            [(MIB, 0, 0), (65536, 1, 512), (3 * MIB, 4095, 1536), (4096, 0, MIB)]
        ):
            guest.call("disk:write", disk="vda", length=length, seed=seed, offset=offset, shift=shift)
            for back in (0, 3, 512):
                guest.call("disk:read", disk="vda", length=length, seed=seed, offset=offset, shift=back)
        assert set(direct_host.metrics().by("reason", "disk_errors_total", partition="store").values()) <= {0}
    finally:
        direct_host.remove_guests()


@pytest.mark.parametrize("medium", ["file", "direct"])
def test_a_full_medium_says_so_once_and_goes_on(medium: str) -> None:
    with small_media.full(4 * MIB) as folder, running(manifest(medium=medium, folder=str(folder))) as host:
        guest = host.guest("store", disks=[{"name": "vda", "size": 16 * MIB, "path": "direct"}], memory="4MiB")
        guest.call("disk:write", disk="vda", length=MIB, seed=1)
        told = [
            guest.call("disk:attempt", disk="vda", operation="write", offset=at * MIB, length=MIB) for at in range(16)
        ]
        assert told.count([]) == 3 or told.count([]) == 4, "as many as fit"
        failed = [answer for answer in told if answer]
        assert failed == [["failed", "medium_full"]] * len(failed)
        errors = host.metrics().by("reason", "disk_errors_total", partition="store")
        assert {reason: count for reason, count in errors.items() if count} == {"medium_full": len(failed)}
        guest.call("disk:write", disk="vda", length=MIB, seed=2)
        guest.call("disk:read", disk="vda", length=MIB, seed=2)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("medium", ["file", "direct"])
def test_a_medium_that_ends_early_says_so_once(host: Host, direct_host: Host, medium: str, path: str) -> None:
    used = host if medium == "file" else direct_host
    file = used.paths.disks / f"short-{path}.img"
    disk = {"name": "vda", "size": "1MiB", "file": file.name, "path": path}
    guest = used.guest("store", disks=[disk], memory="4MiB")
    try:
        guest.call("disk:write", disk="vda", length=MIB, seed=1)
        for end in (65536, 65536 + 4096 + 700):  # the second one within a block
            os.truncate(file, end)
            for offset, length in ((0, MIB), (end // 4096 * 4096, 8192), (MIB - 4096, 4096)):
                told = guest.call("disk:attempt", disk="vda", operation="read", offset=offset, length=length)
                assert told == ["failed", "medium_short"], (end, offset)
            assert guest.call("disk:attempt", disk="vda", operation="read", offset=0, length=65536) == []
        errors = used.metrics().by("reason", "disk_errors_total", partition="store")
        assert {reason: count for reason, count in errors.items() if count} == {"medium_short": 6}
        os.truncate(file, MIB)
        guest.call("disk:write", disk="vda", length=MIB, seed=2)
        guest.call("disk:read", disk="vda", length=MIB, seed=2)
    finally:
        used.remove_guests()


@pytest.mark.parametrize("path", ["redirect", "direct"])
def test_a_failing_medium_says_so_once_and_goes_on(path: str) -> None:
    """A disk whose end is gone for a while: EIO, from the kernel."""
    with (
        small_media.failing(32 * MIB) as (folder, disk),
        running(manifest(medium="direct", folder=str(folder))) as host,
    ):
        guest = host.guest("store", disks=[{"name": "vda", "size": 16 * MIB, "path": path}], memory="4MiB")
        guest.call("disk:fill", disk="vda", length=16 * MIB)
        guest.call("disk:write", disk="vda", length=4096, seed=1, offset=15 * MIB)
        disk.cut(8 * MIB)
        try:
            for operation in ("read", "write"):
                told = guest.call("disk:attempt", disk="vda", operation=operation, offset=15 * MIB, length=4096)
                assert told == ["failed", "medium_error"]
            errors = host.metrics().by("reason", "disk_errors_total", partition="store")
            assert {reason: count for reason, count in errors.items() if count} == {"medium_error": 2}
        finally:
            disk.mend()
        guest.call("disk:write", disk="vda", length=MIB, seed=2, offset=14 * MIB)
        guest.call("disk:read", disk="vda", length=MIB, seed=2, offset=14 * MIB)


def test_a_flush_stops_nobody_else(host: Host) -> None:
    """Another guest reads its cached disk at full depth 1 while a flush with much to write is under way."""
    writer = host.guest("writer", disks=[{"name": "vda", "size": "192MiB", "path": "direct"}], memory="4MiB")
    reader = host.guest("reader", disks=[{"name": "vda", "size": "1MiB", "path": "direct"}], memory="4MiB")
    reader.call("disk:write", disk="vda", length=MIB, seed=1)
    shares = []  # of the flush, that a read took: other processes of this machine may take more
    for _ in range(6):
        writer.call("disk:fill", disk="vda", length=192 * MIB)
        call = reader.begin("disk:longest_read", disk="vda")
        flushed = writer.call("disk:timed_flush", disk="vda")
        shares.append(call.finish() / flushed)
        if shares[-1] < 0.5:
            return
    raise AssertionError(f"reads waited for flushes: {shares} of their time")


def test_what_is_stuck_in_the_kernel_keeps_its_memory_and_stops_nobody(direct_host: Host) -> None:
    """A guest dies while the kernel cannot end its write: others go on, and it is gone only after that has ended."""
    host = direct_host
    with (
        small_media.failing(32 * MIB) as (folder, _),
        small_media.in_place_of(host.paths.disks / "stuck.img", _made(folder / "stuck.img", MIB)),
    ):
        try:
            victim = host.guest(
                "victim", disks=[{"name": "vda", "size": "1MiB", "file": "stuck.img", "path": "direct"}]
            )
            other = host.guest("other", disks=[{"name": "vda", "size": "1MiB", "path": "direct"}], memory="4MiB")
            other.call("disk:write", disk="vda", length=MIB, seed=1)
            assert victim.call("disk:attempt", disk="vda", operation="read", offset=0, length=512) == []

            def requests() -> float:
                return host.metrics().value("io_requests_total", partition="victim")

            with small_media.stuck(folder):
                before = requests()
                victim.begin("disk:attempt", disk="vda", operation="write", offset=0, length=65536)
                host.until(lambda: requests() > before)
                os.kill(victim.pid, signal.SIGKILL)
                for seed in range(2, 6):
                    other.call("disk:write", disk="vda", length=MIB, seed=seed)
                    other.call("disk:read", disk="vda", length=MIB, seed=seed)
                assert host.row("victim")["state"] == "running", "given up while the kernel may still read its memory"
            host.wait_for_end("victim")
        finally:
            host.remove_guests()
    assert host.failed_checks() == []


def _made(file: Path, size: int) -> Path:
    file.write_bytes(bytes(size))
    return file


def test_simulated_latency(slow_host: Host) -> None:
    guest = slow_host.guest("store", disks=[{"name": "vda", "size": "1MiB", "path": "direct"}], memory="4MiB")
    device = psutil.Process(slow_host.pids()["disk0"])
    before, begin = device.cpu_times(), time.monotonic()
    times = guest.call("disk:round_trips", disk="vda", count=5)
    after, taken = device.cpu_times(), time.monotonic() - begin
    assert min(times) >= LATENCY
    assert statistics.median(times) < LATENCY * 1.02 + 50e-6
    spent = after.user + after.system - before.user - before.system
    assert spent < 0.1 * taken, f"{spent} s of processor time in {taken} s of waiting"
    slow_host.remove_guests()


def test_simulated_bandwidth() -> None:
    """One pipe for all: 32 MiB at 64 MiB/s take half a second, whatever the depth."""
    with running(manifest(medium="null", simulated={"latency": SLOW, "bandwidth": "64MiB"})) as host:
        guest = host.guest("store", disks=[{"name": "vda", "size": "64MiB", "path": "direct"}], memory="16MiB")
        found = guest.call("load:disk", disk="vda", depth=8, seconds=1.0, block=256 << 10)
        assert found["errors"] == found["unanswered"] == 0
        assert found["bytes"] / found["seconds"] == pytest.approx(64 * MIB, rel=0.02)


def test_what_a_device_adds_is_the_latency_that_was_asked_for() -> None:
    """Measured at the device, beside one that adds none: never less, and 50 us more at most, though timers are later
    than that: the thread learns how much, and polls for the rest."""
    wanted = {"disk0": 0.0, "disk1": SLOW, "disk2": 2.5 * SLOW}
    devices = [{"name": name, "kind": "disk", "medium": "null", "simulated": {"latency": seconds}}
               for name, seconds in wanted.items()]  # fmt: skip
    with running({**MANIFEST, "devices": [MANIFEST["devices"][0], *devices]}) as host:
        disk = {"name": "vda", "size": "1MiB", "path": "direct"}
        guests = {name: host.guest(f"on-{name}", disks=[{**disk, "device": name}], memory="4MiB") for name in wanted}
        for guest in guests.values():  # its change of path is counted, too
            guest.call("disk:round_trips", disk="vda", count=1)

        def mean(device: str) -> float:
            """Seconds of one request at the device."""
            labels = {"partition": f"on-{device}", "stage": "device"}

            def told() -> list[float]:
                page = host.metrics()
                return [page.value(f"io_stage_duration_seconds_{part}", **labels) for part in ("sum", "count")]

            before = told()
            guests[device].call("disk:round_trips", disk="vda", count=50)
            after = told()
            return (after[0] - before[0]) / (after[1] - before[1])

        for device in ("disk1", "disk2"):
            late = []  # seconds: other processes of this machine may hold up some
            while not late or (late[-1] >= 50e-6 and len(late) < 8):
                alone = mean("disk0")
                assert alone < SLOW, f"a device that adds nothing takes {alone} s"
                late.append(mean(device) - alone - wanted[device])
                assert late[-1] > -alone, f"{device} adds {-late[-1]} s less than {wanted[device]} s"
            assert late[-1] < 50e-6, f"{device}: late by {late} s"


@pytest.mark.parametrize("path", PATHS)
def test_a_guest_that_dies_with_requests_at_the_medium(slow_host: Host, path: str) -> None:
    """Its memory is given back after they have ended; the device goes on, and serves the next guest. (Without the drain
    of `detach_port` it dies of the first that comes back.)"""
    device = slow_host.pids()["disk0"]
    for _ in range(1 if path == "copy" else 2):
        guest = slow_host.guest("store", disks=[{"name": "vda", "size": "1MiB", "path": path}], memory="4MiB")
        guest.begin("load:disk", disk="vda", depth=32, seconds=60.0)
        slow_host.until(lambda: slow_host.metrics().value("disk_reads_completed_total", partition="store") > 32)
        slow_host.kill("store")
        slow_host.remove("store")
        assert slow_host.failed_checks() == []
    assert slow_host.pids()["disk0"] == device
    guest = slow_host.guest("next", disks=[{"name": "vda", "size": "1MiB", "path": path}], memory="4MiB")
    guest.call("disk:write", disk="vda", length=65536, seed=5)
    guest.call("disk:read", disk="vda", length=65536, seed=5)
    slow_host.remove_guests()


def test_a_change_of_path_waits_for_the_medium(slow_host: Host) -> None:
    """All requests end well, each once, while their endpoint goes from path to path."""
    guest = slow_host.guest("store", disks=[{"name": "vda", "size": "1MiB", "path": "direct"}], memory="4MiB")
    call = guest.begin("load:disk", disk="vda", depth=16, seconds=2.5)
    for path in ("redirect", "direct", "copy", "direct"):
        slow_host.set_path("store", "vda", path)
    found = call.result()
    assert found["errors"] == found["unanswered"] == 0 and found["requests"] > 0
    assert all(queue["foreign"] == 0 for queue in guest.counts().values())
    slow_host.remove_guests()


def test_a_file_that_the_kernel_still_works_on_is_waited_for(tmp_path: Path) -> None:
    """A killed device's requests outlive it, and so does its lock; then the next device gets the file."""
    import fcntl
    import threading

    from hostd.errors import HostError
    from partitions import devices

    path = tmp_path / "disk.img"
    path.touch()
    other = os.open(path, os.O_RDWR)
    fcntl.flock(other, fcntl.LOCK_EX)
    timer = threading.Timer(0.2, os.close, [other])
    begin = time.monotonic()
    timer.start()
    file = devices._open(path, direct=False)
    timer.join()
    assert time.monotonic() - begin >= 0.2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "LOCK_SECONDS", 0.1)
        with pytest.raises(HostError, match="in use by another host"):
            devices._open(path, direct=False)
    devices._close(file)

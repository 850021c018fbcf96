"""Disks that grow while their guests have them: the guest is told, writes there and reads it back; NBD clients
see it, too (W9, U4, U10). By each path, and over the deaths of device and monitor."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from hostd.errors import HostError
from tests.framework.host import MANIFEST, Host, running
from tests.framework.nbd import EINVAL, ENOSPC, READ, WRITE, Client
from tests.framework.puppet import Puppet
from tests.framework.streams import PATHS
from tools import cli

MIB = 1 << 20
SIZE, LARGER, LARGEST = 4 * MIB, 8 * MIB, 12 * MIB
EXPORTER = ["partitions.nbd_export:main"]
RANGE = ["refused", "offset_range"]
DEVICES = [
    {"name": "nic0", "kind": "nic"},
    {"name": "disk0", "kind": "disk"},
    {"name": "ram0", "kind": "disk", "medium": "ram"},
    {"name": "vols", "kind": "disk", "medium": "volume", "volume": {"file": "test.pvol", "size": "128MiB"}},
]


@pytest.fixture(scope="module")
def started() -> Iterator[Host]:
    with running({**MANIFEST, "devices": DEVICES}) as host:
        yield host


@pytest.fixture
def host(started: Host) -> Iterator[Host]:
    yield started
    started.remove_guests()


def resize(host: Host, disk: str, size: int) -> list[dict[str, Any]]:
    """`hostctl vdisk resize`: the guests that were told."""
    told = host.client.post("/v1/devices/vols/volume", {"command": "resize", "name": disk, "size": size})["grown"]
    return list(told)


def used(guest: Puppet, size: int, seed: int) -> None:
    """The last part of the disk is written and read back, and nothing lies behind."""
    at = size - 65536
    guest.call("disk:write", disk="vda", length=65536, seed=seed, offset=at)
    guest.call("disk:read", disk="vda", length=65536, seed=seed, offset=at)
    for operation in ("read", "write"):
        assert guest.call("disk:attempt", disk="vda", operation=operation, offset=size, length=512) == RANGE


def kill(host: Host, name: str) -> None:
    before = host.row(name)
    os.kill(before["pid"], signal.SIGKILL)
    host.until(lambda: host.row(name)["pid"] != before["pid"] and host.row(name)["state"] == "running")


def test_a_guest_is_told_on_each_path(host: Host) -> None:
    guests = {}
    for path in PATHS:
        disk = {"name": "vda", "size": SIZE, "device": "vols", "file": path, "path": path}
        guest = guests[path] = host.guest(path, disks=[disk])
        assert guest.call("disk:facts", disk="vda")["size"] == SIZE
        used(guest, SIZE, seed=1)
        waiting = guest.begin("disk:grown", disk="vda", timeout=30.0)
        (told,) = resize(host, path, LARGER)
        assert (told["partition"], told["endpoint"], told["before"], told["size"]) == (path, "vda", SIZE, LARGER)
        assert waiting.result() == LARGER
        used(guest, LARGER, seed=2)
        guest.call("disk:read", disk="vda", length=65536, seed=1, offset=SIZE - 65536)
        (found,) = guest.call("hardware:enumerate_all")["found"]
        assert found["length"] == LARGER  # its configuration page
        assert host.path(path, "vda") == path
    for role in ("vols", "monitor"):
        kill(host, role)
        for number, (path, guest) in enumerate(guests.items()):
            guest.call("disk:read", disk="vda", length=65536, seed=2, offset=LARGER - 65536)
            used(guest, LARGER, seed=2)
            assert guest.call("disk:facts", disk="vda")["size"] == LARGER, (role, number, path)
    for path, guest in guests.items():
        waiting = guest.begin("disk:grown", disk="vda", timeout=30.0)
        resize(host, path, LARGEST)
        assert waiting.result() == LARGEST
        used(guest, LARGEST, seed=3)
    grown = [event for event in host.events() if event["kind"] == "grown"]
    assert [event["size"] for event in grown] == [LARGER] * 3 + [LARGEST] * 3
    assert host.failed_checks() == []


def test_nobody_shrinks_what_a_guest_has(host: Host) -> None:
    guest = host.guest("store", disks=[{"name": "vda", "size": LARGER, "device": "vols", "file": "shrunk"}])
    with pytest.raises(HostError, match="a guest has disk shrunk") as refused:
        resize(host, "shrunk", SIZE)
    assert refused.value.code == "state"
    with pytest.raises(HostError, match="does not shrink while a guest has it") as refused:
        host.client.request("PUT", "/v1/partitions/store/disks/vda/size", {"size": SIZE})
    assert refused.value.code == "conflict"
    with pytest.raises(HostError, match="store has no disk 'vdb'; known: vda"):
        host.client.request("PUT", "/v1/partitions/store/disks/vdb/size", {"size": SIZE})
    used(guest, LARGER, seed=1)
    assert guest.call("disk:grown", disk="vda", timeout=0.0) is None


def test_a_part_of_a_disk_stays_a_part(host: Host) -> None:
    """Who was given a part does not follow the whole, but may be given more of it."""
    whole = {"name": "vda", "size": LARGER, "device": "vols", "file": "parted"}
    guest = host.guest("store", disks=[{**whole, "limit": SIZE}])
    assert resize(host, "parted", LARGEST) == []
    used(guest, SIZE, seed=1)
    host.client.request("PUT", "/v1/partitions/store/disks/vda/size", {"size": LARGER})
    used(guest, LARGER, seed=2)


@pytest.mark.parametrize("device", ["disk0", "ram0"])
def test_files_and_memory(host: Host, device: str, capsys: pytest.CaptureFixture[str]) -> None:
    """By the verb, with a size; a file that somebody else made larger, without one. The manifest agrees afterwards."""

    def grow(*words: str, code: int = 0) -> Any:
        capsys.readouterr()
        status = cli.run(["grow", "store", "vda", *words, "--runtime-dir", str(host.folder / "run"), "--json"])
        said = capsys.readouterr()
        assert status == code, said.err
        return json.loads(said.err if code else said.out)

    guest = host.guest("store", disks=[{"name": "vda", "size": SIZE, "device": device, "path": "direct"}])
    used(guest, SIZE, seed=1)
    assert grow("8MiB")["size"] == LARGER
    used(guest, LARGER, seed=2)
    guest.call("disk:read", disk="vda", length=65536, seed=1, offset=SIZE - 65536)
    if device == "ram0":
        assert "has no size of its own" in grow(code=2)["error"]["message"]
        return
    os.truncate(host.paths.disks / "store-vda.img", LARGEST)
    assert grow()["size"] == LARGEST
    used(guest, LARGEST, seed=3)
    exported = host.client.get("/v1/export")
    assert host.client.post("/v1/plan", exported)["changes"] == []
    exported["partitions"][0]["disks"][0]["size"] = 2 * LARGEST
    (change,) = host.client.post("/v1/plan", exported)["changes"]
    assert (change["action"], change["kind"], change["name"]) == ("set", "size", "store.vda")
    host.client.post("/v1/apply", exported)
    used(guest, 2 * LARGEST, seed=4)
    assert host.failed_checks() == []


def test_clients_of_nbd(host: Host) -> None:
    """A connection that was there may use what came; later ones are told of it."""
    disk = {"name": "data", "size": SIZE, "device": "vols", "file": "exported"}
    spec = {"disks": [disk], "export_nbd": True, "directory": None, "memory": "16MiB"}
    uri = host.spawn("store", EXPORTER, **spec)["nbd"]
    socket = host.paths.runtime / "store.nbd"
    with Client(socket).transmit() as earlier:
        assert earlier.size == SIZE
        assert earlier.do(WRITE, SIZE, 4096, bytes(4096)).error == ENOSPC
        assert earlier.do(READ, SIZE, 4096).error == EINVAL
        resize(host, "exported", LARGER)
        data = os.urandom(4096)
        assert earlier.do(WRITE, LARGER - 4096, 4096, data).error == 0
        with Client(socket).transmit() as later:
            assert later.size == LARGER
            assert later.do(READ, LARGER - 4096, 4096).data == data
            assert later.do(READ, LARGER, 512).error == EINVAL
    for command, told in (
        (["nbdinfo", "--size", uri], lambda text: int(text)),
        (["qemu-img", "info", "--output=json", "-f", "raw", uri], lambda text: json.loads(text)["virtual-size"]),
    ):
        if shutil.which(command[0]) is None:
            pytest.skip(f"{command[0]} is not installed")
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert told(done.stdout) == LARGER

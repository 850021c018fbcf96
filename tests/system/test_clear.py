"""Discard, write zeroes and forced unit access, on all paths: what the disk holds then, and what is counted (A1)."""

import random

import pytest

from tests.framework.host import Host
from tests.framework.streams import PATHS

MIB = 1 << 20
SIZE = 8 * MIB
SLACK = 64 << 10  # what the file system needs for itself
RANGE = (MIB + 4096, 3 * MIB)  # offset and length: more than one request carries


@pytest.mark.parametrize("path", PATHS)
def test_a_cleared_range_reads_as_zeroes_and_nothing_else_changes(host: Host, path: str) -> None:
    file = f"clear-{path}.img"
    guest = host.guest("store", disks=[{"name": "vda", "size": SIZE, "file": file, "path": path}], memory="16MiB")
    backing = host.paths.disks / file
    for operation, options in (("write_zeroes", {}), ("write_zeroes", {"hole": False, "fua": True}), ("discard", {})):
        guest.call("disk:write", disk="vda", length=SIZE, seed=1)
        expected = bytearray(random.Random(1).randbytes(SIZE))
        full = backing.stat().st_blocks * 512
        offset, length = RANGE
        assert guest.call("disk:clear", disk="vda", operation=operation, offset=offset, length=length, **options) == []
        found = backing.read_bytes()
        expected[offset : offset + length] = bytes(length)
        assert found == expected, operation
        lost = full - backing.stat().st_blocks * 512
        assert abs(lost - (0 if options else length)) < SLACK, f"{operation} {options}: room given back"
    metrics = host.metrics()
    length = RANGE[1]
    assert metrics.value("io_bytes_total", partition="store", op="discard") == length
    assert metrics.value("io_bytes_total", partition="store", op="write_zeroes") == 2 * length
    assert metrics.value("disk_discarded_bytes_total", partition="store") == length
    assert metrics.value("disk_zeroed_bytes_total", partition="store") == 2 * length
    copied = metrics.value("io_bytes_total", partition="store", op="write") if path == "copy" else 0
    assert metrics.value("host_copied_bytes_total", partition="store") == copied, "a request without data was copied"


@pytest.mark.parametrize("path", PATHS)
def test_bounds_and_rights(host: Host, path: str) -> None:
    disks = [{"name": "vda", "size": "1MiB", "path": path},
             {"name": "vdb", "size": "1MiB", "path": path, "read_only": True}]  # fmt: skip
    guest = host.guest("store", disks=disks)
    for operation in ("discard", "write_zeroes"):
        def told(disk: str, offset: int, length: int, operation: str = operation) -> list[str]:
            return guest.call("disk:clear", disk=disk, operation=operation, offset=offset, length=length)

        assert told("vda", 0, MIB) == []
        assert told("vda", MIB - 512, 1024) == ["refused", "offset_range"]
        assert told("vda", 256, 512) == ["refused", "offset_alignment"]
        assert told("vda", 0, 100) == ["refused", "length_alignment"]
        assert told("vdb", 0, 512) == ["refused", "read_only"]


@pytest.mark.parametrize("path", PATHS)
def test_forced_unit_access_reaches_the_medium(host: Host, path: str) -> None:
    """As the device counts it: each such request was made durable before it was completed."""
    disk = {"name": "vda", "size": "1MiB", "file": f"fua-{path}.img", "path": path}
    guest = host.guest("store", disks=[disk], memory="4MiB")
    guest.call("disk:write_durable", disk="vda", length=65536, seed=3, offset=4096)
    assert host.metrics().value("disk_forced_writes_completed_total", partition="store") == 1
    for fua in (True, False):
        what = {"disk": "vda", "operation": "write_zeroes", "offset": MIB - 4096, "length": 4096, "fua": fua}
        assert guest.call("disk:clear", **what) == []
    assert host.metrics().value("disk_forced_writes_completed_total", partition="store") == 2
    assert host.metrics().value("disk_flushes_completed_total", partition="store") == 0
    guest.call("disk:read", disk="vda", length=65536, seed=3, offset=4096)

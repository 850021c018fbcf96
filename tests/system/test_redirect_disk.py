"""The redirected path of a disk: the device moves the data, byte for byte, and the host copies none of it (U10)."""

import random
from pathlib import Path

import pytest

from tests.framework.host import Host

MIB = 1 << 20
DISK = {"name": "vda", "size": "4MiB", "file": "redirect.img"}


def file_of(host: Host, name: str) -> Path:
    return host.paths.disks / name


@pytest.mark.parametrize(
    ("length", "shift", "offset"),
    [
        (512, 0, 0),
        (512, 4095, 512),           # one sector over a page border
        (4096, 1, 4096),
        (3 * 4096, 2049, 512),
        (64 << 10, 3, 1536),
        (MIB, 0, MIB),              # the longest single transfer
        (MIB, 4095, 2 * MIB + 512), # the same over the largest number of pages
        (3 * MIB, 17, 512),         # several transfers
    ],
)  # fmt: skip
def test_data_is_the_same_on_the_disk_and_back(host: Host, length: int, shift: int, offset: int) -> None:
    guest = host.guest("store", disks=[DISK], memory="16MiB")
    seed = length + shift + offset
    guest.call("disk:write", disk="vda", length=length, seed=seed, offset=offset, shift=shift)
    with open(file_of(host, "redirect.img"), "rb") as file:
        file.seek(offset)
        assert file.read(length) == random.Random(seed).randbytes(length)
    guest.call("disk:read", disk="vda", length=length, seed=seed, offset=offset, shift=4095 - shift)
    metrics = host.metrics()
    assert metrics.value("host_copied_bytes_total") == 0
    for operation in ("read", "write"):
        assert metrics.value("io_bytes_total", partition="store", op=operation) == length
    assert metrics.value("disk_read_bytes_total", partition="store") == length
    assert metrics.value("disk_written_bytes_total", partition="store") == length
    assert metrics.value("translated_bytes_total", partition="store") == 2 * length
    assert metrics.value("disk_flushes_completed_total", partition="store") == 1


def test_the_disk_survives_its_guest(host: Host) -> None:
    """Another guest finds on the file what the first one wrote."""
    first = host.guest("first", disks=[DISK])
    first.call("disk:write", disk="vda", length=65536, seed=11)
    host.remove("first")
    host.guest("second", disks=[DISK]).call("disk:read", disk="vda", length=65536, seed=11)


def test_one_file_is_divided_among_guests(host: Host) -> None:
    """Each guest of a file sees its own range as the whole disk; nobody's writes leave it."""
    file = file_of(host, "shared.img")
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"\xa5" * 4 * MIB)
    ranges = {"low": (MIB, MIB), "high": (3 * MIB, 512 << 10)}
    for name, (offset, limit) in ranges.items():
        disk = {"name": "vda", "size": 4 * MIB, "file": "shared.img", "offset": offset, "limit": limit}
        guest = host.guest(name, disks=[disk], memory="4MiB")
        assert guest.call("disk:facts", disk="vda")["size"] == limit
        guest.call("disk:write", disk="vda", length=limit, seed=offset)
        guest.call("disk:read", disk="vda", length=limit, seed=offset)
    expected = bytearray(b"\xa5" * 4 * MIB)
    for offset, limit in ranges.values():
        expected[offset : offset + limit] = random.Random(offset).randbytes(limit)
    assert file.read_bytes() == expected

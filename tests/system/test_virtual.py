"""A virtual disk of a volume as a guest's disk: data on all paths, room taken and given back, a kill (W9)."""

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from hostd.errors import HostError
from pyx.volume import Volume
from tests.framework import small_media
from tests.framework.host import MANIFEST, Host, running
from tests.framework.streams import PATHS

MIB = 1 << 20
SIZE = 8 * MIB
BLOCK = 65536
PIECE = BLOCK // 2


def manifest(file: Path, **more: Any) -> dict[str, Any]:
    volume = {"file": str(file), **more}
    device = {"name": "disk0", "kind": "disk", "medium": "volume", "volume": volume}
    return {**MANIFEST, "devices": [MANIFEST["devices"][0], device]}


@pytest.fixture(scope="module")
def volume_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("volume") / "test.pvol"


@pytest.fixture(scope="module")
def volume_host(volume_file: Path) -> Iterator[Host]:
    with running(manifest(volume_file, size="64MiB")) as host:
        yield host


def disk(name: str, path: str) -> dict[str, Any]:
    return {"name": "vda", "size": SIZE, "file": name, "path": path}


def opened(file: Path) -> Volume:
    descriptor = os.open(file, os.O_RDWR)
    try:
        return Volume(descriptor)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("path", PATHS)
def test_data_room_and_zeroes(volume_host: Host, volume_file: Path, path: str) -> None:
    """Bytes over borders of blocks; what was never written, or is cleared, reads as zeroes; blocks come and go."""
    name = f"data-{path}"
    guest = volume_host.guest("store", disks=[disk(name, path)], memory="16MiB")
    expected = bytearray(SIZE)
    writes = [(MIB, 3, 512), (4096, 0, 3 * MIB), (3 * BLOCK, 17, 5 * MIB + 1536)]
    for seed, (length, shift, offset) in enumerate(writes):
        guest.call("disk:write", disk="vda", length=length, seed=seed, offset=offset, shift=shift)
        guest.call("disk:read", disk="vda", length=length, seed=seed, offset=offset, shift=4095 - shift)
        expected[offset : offset + length] = random.Random(seed).randbytes(length)
    clears = (("discard", BLOCK, 4 * BLOCK, {}), ("write_zeroes", 7 * BLOCK + 512, BLOCK, {}),
              ("write_zeroes", 5 * MIB, 2 * BLOCK, {"hole": False, "fua": True}))  # fmt: skip
    for operation, offset, length, options in clears:
        assert guest.call("disk:clear", disk="vda", operation=operation, offset=offset, length=length, **options) == []
        expected[offset : offset + length] = bytes(length)
    guest.call("disk:write_durable", disk="vda", length=4096, seed=9, offset=7 * MIB)
    expected[7 * MIB : 7 * MIB + 4096] = random.Random(9).randbytes(4096)
    assert guest.call("disk:digest", disk="vda") == digest(expected)
    volume_host.remove("store")
    volume_host.stop()
    with opened(volume_file) as volume:
        assert volume.check() == []
        row = next(row for row in volume.rows() if row["name"] == name)
        assert volume.read(name, 0, SIZE) == expected
        # 17 blocks of the first write, of which 4 were discarded and none lay wholly in what was zeroed; one; 4, among
        # them those of the zeroes that keep their room; the durable one.
        assert row["allocated_bytes"] == (17 - 4 + 1 + 4 + 1) * BLOCK
    volume_host.start()


def digest(data: bytes | bytearray) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def test_past_the_page_cache(tmp_path: Path) -> None:
    """What lies in blocks that the disk had before goes past the cache, all else through it: the bytes are the same."""
    with running(manifest(tmp_path / "direct.pvol", size="64MiB", direct=True)) as host:
        guest = host.guest("store", disks=[disk("vda", "direct")], memory="16MiB")
        (way,) = host.status()["media"]["disk0"]["files"].values()
        assert way.startswith("past the page cache by io_uring")
        read = psutil.Process(host.pids()["disk0"]).io_counters
        expected = bytearray(SIZE)
        for seed, (length, shift, offset) in enumerate(
            [(MIB, 0, 0), (65536, 1, 512), (2 * MIB, 4095, 1536), (8192, 0, MIB), (MIB, 0, BLOCK), (4096, 0, 7 * MIB)]
        ):
            for _ in range(2):  # into new blocks, and into blocks
                guest.call("disk:write", disk="vda", length=length, seed=seed, offset=offset, shift=shift)
                for back in (0, 3, 512):
                    guest.call("disk:read", disk="vda", length=length, seed=seed, offset=offset, shift=back)
            expected[offset : offset + length] = random.Random(seed).randbytes(length)
        before = read().read_bytes
        guest.call("disk:read", disk="vda", length=MIB, seed=4, offset=BLOCK)
        assert read().read_bytes - before >= MIB
        guest.call("disk:write_durable", disk="vda", length=4096, seed=9, offset=6 * MIB)
        expected[6 * MIB : 6 * MIB + 4096] = random.Random(9).randbytes(4096)
        assert guest.call("disk:clear", disk="vda", operation="discard", offset=0, length=2 * BLOCK) == []
        expected[: 2 * BLOCK] = bytes(2 * BLOCK)
        assert guest.call("disk:digest", disk="vda") == digest(expected)
        host.remove("store")
    with opened(tmp_path / "direct.pvol") as volume:
        assert volume.check() == []


def test_no_read_finds_what_another_disk_had(tmp_path: Path) -> None:
    """Blocks that one guest gave back are another one's new ones, which it reads while it writes them."""
    with running(manifest(tmp_path / "direct.pvol", size="14MiB", direct=True)) as host:
        for number, byte in enumerate((17, 34, 51, 68)):
            guest = host.guest(f"guest{number}", disks=[disk(f"disk{number}", "direct")], memory="16MiB")
            assert guest.call("disk:overtaken", disk="vda", block=MIB, byte=byte) == 0
            for offset in range(0, SIZE, MIB):
                assert guest.call("disk:clear", disk="vda", operation="discard", offset=offset, length=MIB) == []
            guest.call("disk:timed_flush", disk="vda")
            host.remove(f"guest{number}")


def test_a_volume_where_all_goes_through_the_page_cache_says_so() -> None:
    with small_media.full(80 * MIB) as folder, running(manifest(folder / "t.pvol", size="64MiB", direct=True)) as host:
        guest = host.guest("store", disks=[disk("vda", "direct")], memory="16MiB")
        guest.call("disk:write", disk="vda", length=MIB, seed=1)
        guest.call("disk:read", disk="vda", length=MIB, seed=1)
        (way,) = host.status()["media"]["disk0"]["files"].values()
        assert way.startswith("page cache")


def test_bounds(volume_host: Host) -> None:
    guest = volume_host.guest("store", disks=[disk("bounds", "direct")])
    for operation in ("read", "write"):
        told = guest.call("disk:attempt", disk="vda", operation=operation, offset=SIZE - 512, length=1024)
        assert told == ["refused", "offset_range"]
    volume_host.remove("store")
    with pytest.raises(HostError, match="resize it"):
        volume_host.guest("larger", disks=[{**disk("bounds", "direct"), "size": 2 * SIZE}])


def test_a_full_volume_says_so_and_goes_on(tmp_path: Path) -> None:
    with running(manifest(tmp_path / "small.pvol", size="32MiB")) as host:
        guest = host.guest("store", disks=[{**disk("large", "direct"), "size": 64 * MIB}], memory="4MiB")
        write = {"disk": "vda", "operation": "write", "length": MIB}
        told = [guest.call("disk:attempt", offset=at * MIB, **write) for at in range(64)]
        assert told[0] == [] and told[-1] == ["failed", "medium_full"]
        assert guest.call("disk:clear", disk="vda", operation="discard", offset=0, length=4 * MIB) == []
        guest.call("disk:write", disk="vda", length=MIB, seed=2)
        guest.call("disk:read", disk="vda", length=MIB, seed=2)


@pytest.mark.parametrize("round", range(2))
def test_flushed_data_survive_a_kill_of_the_device(tmp_path: Path, round: int) -> None:
    """Killed while it allocates and flushes: what a flush or FUA acknowledged is there, and the volume is whole."""
    file = tmp_path / "killed.pvol"
    host = Host(manifest(file, size="64MiB"))
    try:
        host.start()
        guest = host.guest("store", disks=[disk("data", "direct")], memory="4MiB")
        guest.begin("disk:flushed_rounds", disk="vda", block=PIECE, seed=round)
        wanted = 20 * (round + 1)

        def flushes() -> int:
            return int(host.metrics().value("disk_flushes_completed_total", partition="store"))

        acknowledged = host.until(lambda: (done := flushes()) > wanted and done)
        os.kill(host.pids()["disk0"], signal.SIGKILL)
        host.close()
        with opened(file) as volume:
            assert volume.check() == []
            for number in range(acknowledged):
                found = volume.read("data", number * PIECE, PIECE)
                assert found == random.Random(f"{round} {number}").randbytes(PIECE), f"round {number} of {acknowledged}"
    finally:
        if host.folder.exists():
            host.close()


def test_a_volume_that_is_missing_is_named(tmp_path: Path) -> None:
    with running(manifest(tmp_path / "none.pvol")) as host:
        assert "there is no volume" in host.status()["media"]["disk0"]["problem"]
        with pytest.raises(HostError, match="there is no volume"):
            host.guest("store", disks=[disk("data", "direct")])


def test_disks_are_made_by_policy_only(tmp_path: Path) -> None:
    strict = manifest(tmp_path / "strict.pvol", size="32MiB", create=False)
    with running(strict) as host, pytest.raises(HostError, match="has no disk data"):
        host.guest("store", disks=[disk("data", "direct")])

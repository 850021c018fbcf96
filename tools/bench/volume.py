"""hostctl bench volume: what a volume costs where a plain file costs nothing: opening, cloning, finding blocks."""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from hostd.units import parse_size
from pyx.volume import format as format_volume
from pyx.volume_load import VolumeLoad
from tools import options
from tools.measure.command import Run, benchmark
from tools.measure.turns import Case, Measure

SECONDS = 5.0
DISK_SIZE = parse_size("100GiB")
ALLOCATED = parse_size("10GiB")
DISKS = 1000
LOOKUPS = 20_000
RECORD = 4 * 4096  # bytes of the record of a clone: descriptor, counts, row, and what a table page more may add


@benchmark(seconds=SECONDS)
@click.option("--size", type=options.SIZE, default=DISK_SIZE, show_default="100GiB", help="Size of the disk to clone.")
@click.option("--allocated", type=options.SIZE, default=ALLOCATED, show_default="10GiB", help="What it has allocated.")
@click.option("--disks", type=click.IntRange(2, 4000), default=DISKS, show_default=True, help="Disks of the volume.")
@click.option("--folder", type=click.Path(file_okay=False, exists=True), help="Where the volume lies, for a while.")
def command(run: Run, size: int, allocated: int, disks: int, folder: str | None) -> None:
    """Measure `clone_time`, `open_time` and `lookup_time` of a volume in a sparse file.

    Blocks are allocated and not written: as for data the medium is simulated; metadata is real and durable.
    `clone_time` is that of a durable clone; its baseline writes as much to a file, and flushes as often. `open_time`
    has the reading of the same metadata pages as its baseline. `lookup_time` is for 4 KiB at random places.
    """
    with tempfile.TemporaryDirectory(prefix="partvisor-bench-", dir=folder) as where:
        path = Path(where, "volume")
        _make(path, size, allocated, disks)
        with _opened(path) as volume:
            before = volume.info()
            run.describe(
                medium="sparse file", block_size=before["block_size"], disks=disks,
                verified="a clone takes no block and no page; every lookup finds its whole range",
            )  # fmt: skip
            disk = {"size": size, "allocated": allocated}
            run.in_turn([
                Case("clone_time", "seconds", _clone(volume), disk, "same writes", _plain(Path(where, "plain"))),
                Case("lookup_time", "seconds", _lookup(volume, allocated, False), {**disk, "op": "read"}),
                Case("lookup_time", "seconds", _lookup(volume, allocated, True), {**disk, "op": "write"}),
            ], 0.6)  # fmt: skip
            after = volume.info()
            if any(after[key] != before[key] for key in ("free_bytes", "free_pointer_pages")):
                raise click.ClickException("a clone took blocks or pages")
        run.in_turn([
            Case("open_time", "seconds", _open(path), {"disks": disks}, "reading the same pages", _read(path)),
        ], 0.4)  # fmt: skip


def _make(path: Path, size: int, allocated: int, disks: int) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, size + (size >> 3))
        format_volume(fd, size + (size >> 3))
    finally:
        os.close(fd)
    with _opened(path) as volume:
        volume.create("large", size)
        volume.reserve("large", 0, allocated)
        for number in range(disks - 2):
            volume.create(f"small{number}", 1 << 30)
        volume.checkpoint()


@contextmanager
def _opened(path: Path) -> Iterator[VolumeLoad]:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        with VolumeLoad(fd) as volume:
            yield volume
    finally:
        os.close(fd)


def _clone(volume: VolumeLoad) -> Measure:
    def measure(_seconds: float) -> float:
        begin = time.perf_counter()
        volume.clone("large", "clone")
        taken = time.perf_counter() - begin
        volume.remove("clone")
        return taken

    return measure


def _plain(path: Path) -> Measure:
    """What a durable clone has to do at least: one record between two flushes."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    record = os.urandom(RECORD)
    places = itertools.cycle(range(0, 256 * RECORD, RECORD))
    os.pwrite(fd, bytes(256 * RECORD), 0)

    def measure(_seconds: float) -> float:
        begin = time.perf_counter()
        os.fdatasync(fd)
        os.pwrite(fd, record, next(places))
        os.fdatasync(fd)
        return time.perf_counter() - begin

    return measure


def _lookup(volume: VolumeLoad, allocated: int, write: bool) -> Measure:
    seeds = itertools.count(1)
    return lambda _seconds: volume.lookups("large", allocated, 4096, LOOKUPS, write, next(seeds))


def _open(path: Path) -> Measure:
    def measure(_seconds: float) -> float:
        begin = time.perf_counter()
        with _opened(path):
            return time.perf_counter() - begin

    return measure


def _read(path: Path) -> Measure:
    """The pages that opening has to look at: table and counts, from the beginning to the pages for pointers."""
    with _opened(path) as volume:
        info = volume.info()
    first, length = info["index_offset"], info["index_bytes"]

    def measure(_seconds: float) -> float:
        begin = time.perf_counter()
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            for at in range(0, length, 1 << 17):
                os.pread(fd, min(1 << 17, length - at), first + at)
        finally:
            os.close(fd)
        return time.perf_counter() - begin

    return measure

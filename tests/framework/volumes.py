"""Volumes in a file of a test's own, and a plain model of one to compare with."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyx.volume import Volume
from pyx.volume import format as format_volume


def new_volume(path: Path, size: int, **settings: int) -> None:
    """An empty volume in a new file at `path`."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, size)
        format_volume(fd, size, **settings)
    finally:
        os.close(fd)


def open_volume(path: Path, **settings: bool) -> Volume:
    """An open volume; closing it is all that is left to do."""
    fd = os.open(path, (os.O_RDONLY if settings.get("read_only") else os.O_RDWR) | os.O_CLOEXEC)
    try:
        return Volume(fd, **settings)
    finally:
        os.close(fd)


@contextmanager
def in_use(path: Path, **settings: bool) -> Iterator[Volume]:
    with open_volume(path, **settings) as volume:
        yield volume


def findings(path: Path) -> list[dict[str, str]]:
    """What a check finds in a volume that nobody has open."""
    with open_volume(path, read_only=True, tolerant=True) as volume:
        return volume.check()


class Model:
    """Disks as byte strings: what volumes are compared with."""

    def __init__(self) -> None:
        self.disks: dict[str, bytearray] = {}
        self.snapshots: set[str] = set()

    def write(self, name: str, offset: int, data: bytes) -> None:
        self.disks[name][offset : offset + len(data)] = data

    def clear(self, name: str, offset: int, length: int) -> None:
        self.write(name, offset, bytes(length))

    def discard(self, name: str, offset: int, length: int, block: int) -> None:
        """Whole blocks within the range; the last block of a disk is whole where the range reaches the end."""
        end, size = offset + length, len(self.disks[name])
        first = -(-offset // block) * block
        last = size if end == size else end // block * block
        if first < last:
            self.clear(name, first, last - first)

    def resize(self, name: str, size: int) -> None:
        disk = self.disks[name]
        self.disks[name] = disk[:size] + bytes(max(0, size - len(disk)))

"""Media that fail for real: a file system that fills up, and one whose disk fails. Both need the right to mount."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def _mounted(source: str, kind: str, options: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=f"partvisor-test-{os.getpid()}-medium-", dir="/tmp") as folder:
        try:
            _run("mount", "-t", kind, "-o", options, source, folder)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no right to mount {kind} here: {error.stderr.strip()}")
        try:
            yield Path(folder)
        finally:
            _run("umount", folder)


@contextmanager
def full(size: int) -> Iterator[Path]:
    """A tmpfs of `size` bytes: writes beyond end in ENOSPC."""
    with _mounted("partvisor-test", "tmpfs", f"size={size}") as folder:
        yield folder


class Disk:
    """A loop device whose end can be taken away: what lies behind it ends in EIO until `mend`."""

    def __init__(self, device: str, image: Path) -> None:
        self.device, self._image, self._size = device, image, image.stat().st_size

    def cut(self, size: int) -> None:
        os.truncate(self._image, size)
        _run("losetup", "--set-capacity", self.device)

    def mend(self) -> None:
        self.cut(self._size)


@contextmanager
def stuck(folder: Path) -> Iterator[None]:
    """Whatever is written to the file system of `folder` waits in the kernel meanwhile."""
    _run("fsfreeze", "--freeze", str(folder))
    try:
        yield
    finally:
        _run("fsfreeze", "--unfreeze", str(folder))


@contextmanager
def in_place_of(file: Path, other: Path) -> Iterator[None]:
    """`other` is found at `file`, on the file system that it is on."""
    file.touch()
    _run("mount", "--bind", str(other), str(file))
    try:
        yield
    finally:
        _run("umount", str(file))


@contextmanager
def failing(size: int) -> Iterator[tuple[Path, Disk]]:
    """An ext4 of `size` bytes on a loop device of its own."""
    with full(2 * size) as below:
        image = below / "image"
        with open(image, "wb") as file:
            file.truncate(size)
        _run("mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-m", "0", str(image))
        try:
            disk = Disk(_run("losetup", "--find", "--show", str(image)), image)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no loop device here: {error.stderr.strip()}")
        try:
            with _mounted(disk.device, "ext4", "rw") as folder:
                yield folder, disk
        finally:
            _run("losetup", "--detach", disk.device)

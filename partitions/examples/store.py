"""Guest `store`: packs the Python standard library into a tar on its disk, flushes, reads it back and compares.

The archive is written straight from partition memory: the tar stream fills a buffer that the device then reads.
"""

from __future__ import annotations

import hashlib
import os
import sysconfig
import tarfile
from typing import IO, cast

from partitions.examples.archive import CHUNK, DATA, Header, pack_header
from partitions.guest import Guest
from partitions.guest_devices import Disk
from pyx.memory import Buffer

LEFT_OUT = {"test", "tests", "idle_test", "__pycache__", "site-packages"}


class DiskWriter:
    """A file-like object: what is written to it goes to the disk in chunks of whole sectors."""

    def __init__(self, disk: Disk, buffer: Buffer) -> None:
        self.disk = disk
        self.digest = hashlib.sha256()
        self.length = 0
        self._buffer = buffer
        self._filled = 0

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        rest = memoryview(data)
        while rest:
            part = min(len(rest), CHUNK - self._filled)
            self._buffer[self._filled : self._filled + part] = rest[:part]
            self._filled += part
            rest = rest[part:]
            if self._filled == CHUNK:
                self._put()
        return len(data)

    def finish(self) -> Header:
        """Writes the rest, padded with zeros to a sector; returns the header that describes the archive."""
        length = self.length + self._filled
        padded = -(-self._filled // 512) * 512
        self._buffer[self._filled : padded] = bytes(padded - self._filled)
        self._filled = padded
        if padded:
            self._put()
        return Header(length, self.digest.digest())

    def _put(self) -> None:
        self.disk.write_from(self._buffer[: self._filled], DATA + self.length)
        self.length += self._filled
        self._filled = 0


def pack(stream: DiskWriter) -> None:
    """The standard library without tests, caches and installed packages."""
    root = sysconfig.get_paths()["stdlib"]
    with tarfile.open(fileobj=cast(IO[bytes], stream), mode="w|", bufsize=CHUNK) as archive:
        for folder, folders, files in os.walk(root):
            folders[:] = sorted(set(folders) - LEFT_OUT)
            for file in sorted(files):
                path = os.path.join(folder, file)
                if os.path.isfile(path):
                    archive.add(path, os.path.relpath(path, root), recursive=False)


def read_back(disk: Disk, buffer: Buffer, header: Header) -> bytes:
    """SHA-256 of the archive as the disk gives it back."""
    digest = hashlib.sha256()
    for start in range(0, header.length, CHUNK):
        part = min(CHUNK, header.length - start)
        disk.read_into(buffer[: -(-part // 512) * 512], DATA + start)
        digest.update(memoryview(buffer)[:part])
    return digest.digest()


def main(guest: Guest) -> int:
    disk = guest.disk("vda")
    buffer = guest.memory.allocate(CHUNK)
    writer = DiskWriter(disk, buffer)
    pack(writer)
    header = writer.finish()
    buffer[:512] = pack_header(header).ljust(512, b"\0")
    disk.write_from(buffer[:512], 0)
    disk.flush()
    read = read_back(disk, buffer, header)
    guest.report(
        role="store", bytes=header.length, sha256=header.digest.hex(), sha256_read=read.hex(), counts=guest.counts()
    )
    return 0 if read == header.digest else 1

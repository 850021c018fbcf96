"""Images of disks: raw ones are read and written here, all others go through qemu-img and a raw one beside them."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator

from hostd.errors import HostError
from pyx.volume import Volume
from tools.vdisk.held import HeldVolume

FORMATS = ("raw", "qcow2")
QCOW2_MAGIC = b"QFI\xfb"
STEP = 1 << 20  # bytes of one read
SECTOR = 512
Report = Callable[[float], None]  # told which fraction is done


def detect(path: str) -> str:
    """`qcow2` where the file begins like one, otherwise `raw`."""
    with open(path, "rb") as file:
        return "qcow2" if file.read(len(QCOW2_MAGIC)) == QCOW2_MAGIC else "raw"


def convert(source: str, source_format: str, target: str, target_format: str, report: Report) -> None:
    """qemu-img convert. HostError `unsupported` where there is no qemu-img, `usage` where it refuses the image."""
    program = shutil.which("qemu-img")
    if program is None:
        raise HostError("unsupported", f"{target_format if source_format == 'raw' else source_format} needs qemu-img, "
                                       "which is missing: apt-get install qemu-utils")
    command = [program, "convert", "-p", "-f", source_format, "-O", target_format, source, target]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    try:
        for fraction in _fractions(process.stdout.fileno()):
            report(fraction)
        refusal = process.stderr.read().decode(errors="replace").strip()
        if process.wait():
            raise HostError("usage", f"qemu-img: {refusal or f'exit code {process.returncode}'}")
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def _fractions(stream: int) -> Iterator[float]:
    """Of qemu-img's progress, "    (12.34/100%)" over and over on one line."""
    rest = b""
    while part := os.read(stream, 4096):
        rest += part
        for found in re.finditer(rb"\(([0-9.]+)/100%\)", rest):
            yield float(found[1]) / 100
        rest = rest[-32:]


def data_ranges(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Where a file has data, as (offset, length); the rest are holes."""
    at = 0
    while at < size:
        try:
            begin = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole
                return
            if error.errno == errno.EINVAL:  # a file system, or a device, that does not tell
                begin = at
            else:
                raise
        if begin >= size:
            return
        try:
            end = min(os.lseek(fd, begin, os.SEEK_HOLE), size)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            end = size
        yield begin, end - begin
        at = end


def read_raw(path: str, volume: Volume | HeldVolume, name: str, size: int, report: Report) -> int:
    """Fills the disk `name` with the first `size` bytes of a raw image; returns how many were written.

    What is a hole in the image, or zeroes for a whole block, is not allocated.
    """
    block = int(volume.info()["block_size"])
    written = 0
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for begin, length in data_ranges(fd, size):
            first = begin // block * block  # whole blocks, so that none is filled and then written
            for at in range(first, begin + length, STEP):
                data = os.pread(fd, min(STEP, begin + length - at), at)
                written += _write_blocks(volume, name, at, data, block)
                report((at + len(data)) / size)
    finally:
        os.close(fd)
    volume.commit()
    return written


def _write_blocks(volume: Volume | HeldVolume, name: str, offset: int, data: bytes, block: int) -> int:
    """Writes the runs of blocks that are not all zeroes."""
    written, run = 0, -1
    for at in range(0, len(data) + block, block):
        some = at < len(data) and data.count(0, at, at + block) != len(data[at : at + block])
        if some and run < 0:
            run = at
        elif not some and run >= 0:
            volume.write(name, offset + run, data[run:at])
            written += len(data[run:at])
            run = -1
    return written


def write_raw(volume: Volume | HeldVolume, name: str, size: int, path: str, report: Report) -> int:
    """Makes `path` a raw image of the disk `name`, sparse where it has nothing; returns how many bytes were written.

    Of a volume that a host has open the disk is one that nobody writes: a snapshot.
    """
    written = at = 0
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, size)
        for place, length in volume.extents(name, 0, size):
            for begin in range(at, at if place is None else at + length, STEP):
                assert place is not None
                data = os.pread(volume.fd, min(STEP, at + length - begin), place + begin - at)
                if not data:
                    raise OSError(errno.EIO, "the volume ends before its data", path)
                done = 0
                while done < len(data):
                    done += os.pwrite(fd, memoryview(data)[done:], begin + done)
                written += done
                report((begin + done) / size)
            at += length
        os.fsync(fd)
    finally:
        os.close(fd)
    return written

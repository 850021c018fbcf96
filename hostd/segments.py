"""Creation of segments and the check of received ones: the one place that knows memfds from POSIX shared memory.

Partition memory is a sealed memfd, because a POSIX object cannot be sealed and one ftruncate by a guest would
kill every process that maps it (design.md section 2). All other kinds are POSIX shared memory, created
exclusively with mode 0600, fully allocated, and without a name before anybody else hears of them (rules 1 and 3).
The kernel zeroes both. Who receives a segment checks it before mapping and closes the descriptor afterwards.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Generator
from pathlib import Path

import posix_ipc

MEMORY = "memory"
_SHARED = "channel view map events call ledger statistics kernel hardware bell control translation vectors seat"
KINDS = frozenset({MEMORY, *_SHARED.split()})
PAGE = os.sysconf("SC_PAGE_SIZE")
SIZE_MAX = 1 << 40  # bytes: far above any machine this runs on, far below what wraps
ALLOCATION_STEP = 4 << 20  # bytes allocated in one go: one millisecond of the keeper's loop
PREFIX = "partvisor-"
FOLDER = Path("/dev/shm")

_F_ADD_SEALS, _F_GET_SEALS = fcntl.F_ADD_SEALS, fcntl.F_GET_SEALS
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_MFD_NOEXEC_SEAL = 0x0008  # since Linux 6.3; Python does not name it


class SegmentError(Exception):
    """A segment cannot be made, or a received descriptor is not the segment that it should be."""

    code = "conflict"


def create(kind: str, size: int, label: str) -> int:
    """A new zeroed segment of `size` bytes, fully allocated; returns its close-on-exec descriptor."""
    builder = build(kind, size, label)
    while True:
        try:
            next(builder)
        except StopIteration as end:
            return end.value


def build(kind: str, size: int, label: str) -> Generator[None, None, int]:
    """The same in steps of a millisecond, for the keeper: yields between steps and returns the descriptor."""
    if not isinstance(kind, str) or kind not in KINDS:
        raise SegmentError(f"unknown kind of segment {kind!r}; known: {', '.join(sorted(KINDS))}")
    if type(size) is not int or not 0 < size <= SIZE_MAX:
        raise SegmentError(f"{kind} {label}: {size!r} is not a size in bytes from 1 to {SIZE_MAX}")
    available = available_memory()
    if size > available:  # the kernel would answer with its out-of-memory killer instead of an error
        raise SegmentError(f"{kind} {label}: {size} bytes asked for, {available} bytes of memory are available")
    descriptor = _memfd(label) if kind == MEMORY else _posix(label)
    try:
        os.fchmod(descriptor, 0o600)
        os.ftruncate(descriptor, size)
        for offset in range(0, size, ALLOCATION_STEP):
            os.posix_fallocate(descriptor, offset, min(ALLOCATION_STEP, size - offset))
            yield
        if kind == MEMORY:
            fcntl.fcntl(descriptor, _F_ADD_SEALS, SEALS)
        return descriptor
    except OSError as error:
        os.close(descriptor)
        raise SegmentError(f"{kind} {label}: allocating {size} bytes failed: {error.strerror}") from error
    except BaseException:  # a builder that is closed half-way
        os.close(descriptor)
        raise


def check(descriptor: int, kind: str, size: int) -> None:
    """Raise SegmentError unless `descriptor` is a segment of this kind and of exactly `size` bytes.

    A shorter object would be a SIGBUS later, an unsealed memory object a SIGBUS whenever its other user likes.
    """
    try:
        status = os.fstat(descriptor)
    except OSError as error:
        raise SegmentError(f"{kind}: descriptor {descriptor}: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise SegmentError(f"{kind}: descriptor {descriptor} is no memory object (mode {status.st_mode:o})")
    if status.st_size != size:
        raise SegmentError(f"{kind}: segment of {status.st_size} bytes where {size} are expected")
    if status.st_blocks * 512 < size:
        raise SegmentError(f"{kind}: only {status.st_blocks * 512} of {size} bytes are allocated")
    if stat.S_IMODE(status.st_mode) != 0o600:
        raise SegmentError(f"{kind}: mode {stat.S_IMODE(status.st_mode):04o} instead of 0600")
    if status.st_nlink != 0:
        raise SegmentError(f"{kind}: the segment still has a name")
    seals = _seals(descriptor)
    if seals is None:
        raise SegmentError(f"{kind}: descriptor {descriptor} is a file outside shared memory")
    if kind == MEMORY and seals & SEALS != SEALS:
        raise SegmentError(f"{kind}: seals {seals:#x} lack {SEALS & ~seals:#x}: its size is not fixed")


def reopen_read_only(descriptor: int) -> int:
    """A read-only descriptor of the same segment: it can neither be mapped for writing nor truncated (U3)."""
    return os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)


def available_memory() -> int:
    """Bytes that the kernel could hand out without swapping, as it estimates them."""
    with open("/proc/meminfo", encoding="ascii") as lines:
        for line in lines:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    raise SegmentError("/proc/meminfo has no MemAvailable")


def names_of(pid: int) -> list[Path]:
    """POSIX shared memory that still has a name of keeper `pid`: only a killed keeper leaves any."""
    return sorted(FOLDER.glob(f"{PREFIX}{pid}-*"))


def _memfd(label: str) -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    name = f"{PREFIX}{label}"[:200]
    try:
        return os.memfd_create(name, flags | _MFD_NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise SegmentError(f"{MEMORY} {label}: {error.strerror}") from error
    return os.memfd_create(name, flags)


def _posix(label: str) -> int:
    name = f"/{PREFIX}{os.getpid()}-{secrets.token_hex(8)}"
    try:
        descriptor = posix_ipc.SharedMemory(name, posix_ipc.O_CREX, mode=0o600).fd
    except (OSError, posix_ipc.Error) as error:
        raise SegmentError(f"shared memory {label}: {error}") from error
    posix_ipc.unlink_shared_memory(name)
    os.set_inheritable(descriptor, False)
    return descriptor


def _seals(descriptor: int) -> int | None:
    """Seals of a descriptor; None for files that know none, which are all but shared memory."""
    try:
        return fcntl.fcntl(descriptor, _F_GET_SEALS)
    except OSError:
        return None

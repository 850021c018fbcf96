"""A guest's own mappings, handled as a hostile program would: with plain system calls."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from typing import NamedTuple

from puppet import Puppet

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mremap.restype = LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
LIBC.mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]
LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
LIBC.madvise.argtypes = LIBC.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
PROT_READ = 1


class Mapped(NamedTuple):
    address: int
    size: int
    path: str


def shared(which: str = "") -> Iterator[Mapped]:
    """Mappings of the host's segments in this process whose path contains `which`."""
    with open("/proc/self/maps") as lines:
        for line in lines:
            fields = line.split(maxsplit=5)
            if "partvisor-" in line and which in fields[5]:
                first, last = (int(part, 16) for part in fields[0].split("-"))
                yield Mapped(first, last - first, fields[5].strip())


def check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def unmap(_puppet: Puppet, which: str) -> None:
    for mapping in list(shared(which)):
        check(LIBC.munmap(mapping.address, mapping.size))


def protect(_puppet: Puppet, which: str) -> None:
    """Gives up the right to write."""
    for mapping in list(shared(which)):
        check(LIBC.mprotect(mapping.address, mapping.size, PROT_READ))


def size(puppet: Puppet) -> int:
    return puppet.guest.memory.size


def fill(puppet: Puppet, byte: int) -> None:
    """Writes all partition memory."""
    whole = puppet.guest.memory.allocate(puppet.guest.memory.size)
    memoryview(whole)[:] = bytes([byte]) * len(whole)


def count(puppet: Puppet, byte: int) -> int:
    """How often a byte stands in partition memory."""
    return bytes(puppet.guest.memory.allocate(puppet.guest.memory.size)).count(byte)


def find(_puppet: Puppet, size: int) -> int:
    """Address of the one mapping of a segment of `size` bytes."""
    pages = (size + 4095) // 4096 * 4096
    (mapping,) = [mapping for mapping in shared() if mapping.size == pages]
    return mapping.address


def poke(_puppet: Puppet, address: int, value: int) -> None:
    ctypes.c_uint64.from_address(address).value = value

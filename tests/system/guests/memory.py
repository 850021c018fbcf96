"""A guest's own mappings, handled as a hostile program would: with plain system calls."""

from __future__ import annotations

import ctypes
import errno
import os
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from puppet import Puppet

from pyx import abi

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mremap.restype = LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
LIBC.mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]
LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
LIBC.madvise.argtypes = LIBC.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
PROT_READ, PROT_WRITE = 1, 2
MAP_PRIVATE_FIXED_ANONYMOUS = 0x32
MADV_DONTNEED, MADV_REMOVE, MADV_HWPOISON = 4, 9, 100
MREMAP_MAYMOVE = 1
PUNCH = 3  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE


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


def peek(address: int) -> int:
    return ctypes.c_uint64.from_address(address).value


def _outcome(call: Callable[[], object]) -> str:
    try:
        call()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return "done"


def _madvise(mapping: Mapped, advice: int) -> None:
    check(LIBC.madvise(mapping.address, mapping.size, advice))


def shrink(_puppet: Puppet, tries: int) -> dict[str, dict[str, int]]:
    """Everything that could take pages away from others who map a segment, `tries` times each; outcomes by attempt."""
    mappings = list(shared())
    attempts: dict[str, Callable[[Mapped], object]] = {
        "madvise remove": lambda mapping: _madvise(mapping, MADV_REMOVE),
        "madvise poison": lambda mapping: _madvise(mapping, MADV_HWPOISON),
        "open by map_files": lambda mapping: os.open(
            f"/proc/self/map_files/{mapping.address:x}-{mapping.address + mapping.size:x}", os.O_RDWR
        ),
        "truncate by name": lambda mapping: os.truncate(mapping.path.removesuffix(" (deleted)"), 0),
        "open by name": lambda mapping: os.open(mapping.path.removesuffix(" (deleted)"), os.O_RDWR),
        "forget": lambda mapping: _madvise(mapping, MADV_DONTNEED),
    }
    outcomes: dict[str, Counter[str]] = {name: Counter() for name in attempts}
    for number in range(tries):
        mapping = mappings[number % len(mappings)]
        for name, attempt in attempts.items():
            outcomes[name][_outcome(lambda attempt=attempt, mapping=mapping: attempt(mapping))] += 1
    return {name: dict(found) for name, found in outcomes.items()}


def truncate(_puppet: Puppet, tries: int) -> dict[str, int]:
    """ftruncate and hole punches on every descriptor of the process; how each ended."""
    outcomes: Counter[str] = Counter()
    for _ in range(tries):
        for descriptor in range(64):
            outcomes[_outcome(lambda descriptor=descriptor: os.ftruncate(descriptor, 0))] += 1
            outcomes[_outcome(lambda descriptor=descriptor: os.posix_fallocate(descriptor, 0, 4096))] += 1
            outcomes[_outcome(lambda descriptor=descriptor: check(LIBC.fallocate(descriptor, PUNCH, 0, 4096)))] += 1
    return dict(outcomes)


def descriptors(_puppet: Puppet) -> list[str]:
    """What the process has open, by kind."""
    kinds = []
    for name in os.listdir("/proc/self/fd"):
        try:
            kinds.append(os.readlink(f"/proc/self/fd/{name}").partition(":")[0])
        except FileNotFoundError:  # that of the listing itself
            pass
    return kinds


def under_load(puppet: Puppet, action: str, which: str, touch: bool = False) -> str:
    """Does something to its own mappings while the devices read and write its memory, and while receive buffers are
    posted; the process dies of it where it touches its rings afterwards."""
    guest = puppet.guest
    queue, nic = guest.queues("vda")[0], guest.nic("eth0")
    nic.open(buffers=64, frame_size=2048)
    buffer = guest.memory.allocate(64 << 10)
    for number in range(queue.capacity):
        queue.submit(abi.OPERATIONS["read" if number % 2 else "write"], buffer, 0)
    queue.kick()
    mappings = list(shared(which))
    for mapping in mappings:
        ATTACKS[action](mapping)
    if touch:
        print(peek(mappings[0].address))
    return action


def _replace(mapping: Mapped) -> None:
    """Other memory in the place of the segment."""
    LIBC.munmap(mapping.address, mapping.size)
    LIBC.mmap(mapping.address, mapping.size, PROT_READ | PROT_WRITE, MAP_PRIVATE_FIXED_ANONYMOUS, -1, 0)


ATTACKS: dict[str, Callable[[Mapped], object]] = {
    "unmap": lambda mapping: LIBC.munmap(mapping.address, mapping.size),
    "move": lambda mapping: LIBC.mremap(mapping.address, mapping.size, 4096, MREMAP_MAYMOVE),
    "protect": lambda mapping: LIBC.mprotect(mapping.address, mapping.size, 0),
    "replace": _replace,
}

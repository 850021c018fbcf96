"""Doorbells, rung as no driver would."""

from __future__ import annotations

import ctypes
import platform

from memory import LIBC
from puppet import Puppet

PAGE = 4096
FUTEX = {"x86_64": 202, "aarch64": 98}
FUTEX_WAKE = 1
EVERYBODY = 0x7FFFFFFF
SERVER, MONITOR = 1, 2  # pages of the events segment


def pages() -> dict[int, int]:
    """Addresses of the mapped pages of the events segment, by page number."""
    found = {}
    with open("/proc/self/maps") as lines:
        for line in lines:
            fields = line.split()
            begin, end = (int(part, 16) for part in fields[0].split("-"))
            offset = int(fields[2], 16)
            if "partvisor-" in line and offset:  # neighbours may have become one mapping
                for number in range((end - begin) // PAGE):
                    found[offset // PAGE + number] = begin + number * PAGE
    return found


def ring(page: int) -> None:
    """Wakes whoever sleeps there, as a driver does."""
    address = pages()[page]
    ctypes.c_uint32.from_address(address).value += 1
    LIBC.syscall(FUTEX[platform.machine()], ctypes.c_void_p(address), FUTEX_WAKE, EVERYBODY)


def flood(puppet: Puppet, page: int, action: str) -> int:
    """Rings the doorbell without a request until the test wants the end; how often."""
    address = pages()[page]
    word = ctypes.c_uint32.from_address(address)
    number, count = FUTEX[platform.machine()], 0
    while not puppet.wanted():
        for _ in range(1000):
            if action != "wake":
                word.value += 1
            if action != "word":
                LIBC.syscall(number, ctypes.c_void_p(address), FUTEX_WAKE, EVERYBODY)
            count += 1
    return count

"""A guest's own partition memory: touching it page by page, by system calls, in children; see test_containment.py."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from typing import Any

PAGE = 4096


def _byte(puppet: Any, gpa: int) -> ctypes.c_uint8:
    return ctypes.c_uint8.from_address(puppet.guest.memory.address + gpa)


def address(puppet: Any) -> int:
    return puppet.guest.memory.address


def touch(puppet: Any, first: int, pages: int, write: bool = False) -> float:
    """Reads or writes one byte of each page; seconds that it took."""
    begin = time.monotonic()
    for page in range(first, first + pages):
        byte = _byte(puppet, page * PAGE)
        if write:
            byte.value = page & 0xFF
        else:
            int(byte.value)
    return time.monotonic() - begin


def touch_in_child(puppet: Any, first: int, pages: int) -> str:
    """The same in a forked process: how it ended."""
    pid = os.fork()
    if pid == 0:
        touch(puppet, first, pages)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exited {os.WEXITSTATUS(status)}"


def system_call(puppet: Any, gpa: int, text: str) -> str:
    """Has the kernel write into partition memory that nobody has touched; what stands there."""
    read, write = os.pipe()
    os.write(write, text.encode())
    buffer = (ctypes.c_char * len(text)).from_address(puppet.guest.memory.address + gpa)
    os.readv(read, [buffer])
    os.close(read)
    os.close(write)
    return bytes(buffer).decode()


def written_out(puppet: Any, gpa: int, text: str) -> None:
    """Has the kernel read partition memory that nobody has touched."""
    read, write = os.pipe()
    try:
        os.writev(write, [(ctypes.c_char * len(text)).from_address(puppet.guest.memory.address + gpa)])
    finally:
        os.close(read)
        os.close(write)


def write(puppet: Any, gpa: int, text: str) -> None:
    ctypes.memmove(puppet.guest.memory.address + gpa, text.encode(), len(text))


def read(puppet: Any, gpa: int, length: int) -> str:
    return ctypes.string_at(puppet.guest.memory.address + gpa, length).decode()


def transfer(puppet: Any, gpa: int, length: int, write: bool) -> None:
    """Has the disk read partition memory from `gpa` on, or write there, without this process touching it."""
    buffer, disk = puppet.guest.memory.allocate(gpa + length)[gpa:], puppet.guest.disk("vda")
    if write:
        disk.write_from(buffer, 0)
    else:
        disk.read_into(buffer, 0)


def handed_out(puppet: Any) -> list[int]:
    """Pages that the guest's own allocator gives, one at a time, until it has no more."""
    pages = []
    try:
        while True:
            pages.append(puppet.guest.memory.allocate(PAGE))
    except MemoryError:
        return sorted(page.gpa // PAGE for page in pages)


def try_transfer(puppet: Any, disk: str, gpa: int, length: int) -> list[list[str]]:
    """[status, reason] of a read into partition memory at `gpa`, and of a write from there, which the allocator would
    not have given; [] where it went well."""
    from partitions.guest import RequestError

    memory, kept = puppet.guest.memory, []
    memory.free(gpa, length)
    while True:
        page = memory.allocate(PAGE)
        if page.gpa == gpa:
            break
        kept.append(page)
    del page
    whole = memory.allocate(length)
    assert whole.gpa == gpa
    answers: list[list[str]] = []
    for operation in (puppet.guest.disk(disk).read_into, puppet.guest.disk(disk).write_from):
        try:
            operation(whole, 0)
            answers.append([])
        except RequestError as error:
            answers.append([error.status, error.reason])
    del whole
    memory.withhold(gpa, length)
    return answers

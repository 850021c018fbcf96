"""What a guest tries that would reveal or change the host: raw system calls, instructions, its own memory (U16, H8)."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
PAGE = 4096


def call(_puppet: Any, number: int, arguments: list[Any], times: int = 1) -> str | int:
    """The errno by name of the last of `times` system calls, or what it returned. Text is passed by its address."""
    given = [ctypes.c_char_p(one.encode()) if isinstance(one, str) else ctypes.c_long(one) for one in arguments]
    for _ in range(times):
        result = _libc.syscall(ctypes.c_long(number), *given)
    return errno.errorcode[ctypes.get_errno()] if result == -1 else int(result)


def instruction(_puppet: Any, code: str, silent: bool = False) -> str | list[int]:
    """Runs machine code (hexadecimal) in a child, with rax and rdi at 64 zeroed bytes: the signal that ended it by
    name, or those bytes. `silent`: the child takes the host's handlers of signals away before."""
    if platform.machine() != "x86_64":
        return "not here"
    shared = mmap.mmap(-1, PAGE)
    pid = os.fork()
    if pid == 0:
        for number in (signal.SIGSEGV, signal.SIGILL) if silent else ():
            signal.signal(number, signal.SIG_DFL)
        page = mmap.mmap(-1, PAGE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(b"\x48\x89\xf8" + bytes.fromhex(code) + b"\xc3")  # mov rax, rdi; ...; ret
        run = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
        run(ctypes.addressof(ctypes.c_char.from_buffer(shared)))
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else list(shared[:64])


def address(puppet: Any) -> int:
    return puppet.guest.memory.address


def memory_holds(puppet: Any, gpa: int, text: str) -> bool:
    """Whether partition memory at `gpa` can be written and read back: it is still there, and still the same."""
    buffer = puppet.guest.memory.allocate(gpa + len(text))
    view = memoryview(buffer)
    view[gpa:gpa + len(text)] = text.encode()
    return bytes(view[gpa:gpa + len(text)]) == text.encode()


def reach(_puppet: Any, kind: str, on: Any) -> str:
    """The errno by name of an attempt at something of the host or of another guest; `done` where it can be had."""
    attempts: dict[str, Callable[[], Any]] = {
        "open": lambda: os.close(os.open(on, os.O_RDONLY)),
        "kill": lambda: os.kill(on, 0),
        "pidfd": lambda: os.close(os.pidfd_open(on)),
        "connect": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).connect(on),
        "map file": lambda: os.open(f"/proc/self/map_files/{os.listdir('/proc/self/map_files')[0]}", os.O_RDWR),
        "shm": lambda: os.open(next(name for name in _shared_names()), os.O_RDWR),
    }
    try:
        attempts[kind]()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


def _shared_names() -> Iterator[str]:
    """Names under which this process's own shared memory once was."""
    with open("/proc/self/maps", encoding="ascii") as lines:
        yield from (line.split(maxsplit=5)[5].removesuffix(" (deleted)\n") for line in lines if "/dev/shm/" in line)

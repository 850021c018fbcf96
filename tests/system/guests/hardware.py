"""Hardware from inside, as a guest finds it."""

from __future__ import annotations

import time
from typing import Any


def enumerate_all(puppet: Any) -> dict[str, Any]:
    """Functions on the buses of the table, the table, and the seconds that the first walk took."""
    begin = time.perf_counter()
    found = puppet.guest.hardware.enumerate()
    return {"found": found, "table": puppet.guest.hardware.table(), "seconds": time.perf_counter() - begin}


def probe(puppet: Any) -> list[dict[str, Any]]:
    """A look at every function of every bus."""
    return puppet.guest.hardware.probe()


def read(puppet: Any, address: list[int]) -> str:
    """One configuration page in hexadecimal."""
    return puppet.guest.hardware.read(*address).hex()


def processors(puppet: Any) -> dict[str, Any]:
    """How many processors a program believes it has, by every way that programs ask."""
    import multiprocessing
    import os

    return {
        "affinity": sorted(os.sched_getaffinity(0)),
        "cpu_count": os.cpu_count(),
        "multiprocessing": multiprocessing.cpu_count(),
        "online": os.sysconf("SC_NPROCESSORS_ONLN"),
        "table": puppet.guest.hardware.table()["processors"],
    }


def surroundings(_puppet: Any) -> dict[str, Any]:
    """What file systems and interfaces tell."""
    import os
    import socket

    def names(folder: str) -> list[str]:
        try:
            return sorted(os.listdir(folder))
        except OSError:
            return []

    return {
        "proc": [name for name in names("/proc") if not name.isdigit()],
        "processes": [int(name) for name in names("/proc") if name.isdigit()],
        "sys": names("/sys"),
        "dev": names("/dev"),
        "interfaces": [name for _, name in socket.if_nameindex()] if _may(socket.if_nameindex) else None,
        "net": names("/proc/self/net"),
        "mounts": open("/proc/self/mounts").read(),
        "root": names("/"),
    }


def _may(call: Any) -> bool:
    try:
        call()
    except OSError:
        return False
    return True


def change_region(puppet: Any, how: str, page: int, look: bool = False) -> dict[str, Any]:
    """Tries to move, unmap, re-protect, drop or write a page of its own configuration region; then, with `look`, reads
    where it lies."""
    import ctypes

    from pyx.abi import CONFIG_ADDRESS, PAGE

    libc = ctypes.CDLL(None, use_errno=True)
    libc.mremap.restype = libc.mmap.restype = ctypes.c_void_p
    address = CONFIG_ADDRESS + page * PAGE
    at, size = ctypes.c_void_p(address), ctypes.c_size_t(PAGE)
    there = address
    if how == "move":
        target = ctypes.c_void_p(CONFIG_ADDRESS - (1 << 30))
        there = libc.mremap(at, size, size, 3, target) or 0
        done = there == target.value
    elif how == "unmap":
        done = libc.munmap(at, size) == 0
    elif how == "drop":
        done = libc.madvise(at, size, 4) == 0  # MADV_DONTNEED
    elif how == "punch":
        done = libc.madvise(at, size, 9) == 0  # MADV_REMOVE
    elif how == "fork":
        done = libc.madvise(at, size, 11) == 0  # MADV_DOFORK
    elif how == "protect":
        done = libc.mprotect(at, size, 3) == 0
    else:
        raise ValueError(how)
    answer = {"done": done, "errno": 0 if done else ctypes.get_errno()}
    if look:
        answer["bytes"] = ctypes.string_at(there, 64).hex()
    return answer


def pass_to_kernel(puppet: Any, address: list[int]) -> str:
    """Has a system call read an untouched page: its bytes, or the name of the error."""
    import ctypes
    import errno
    import os

    from pyx.abi import CONFIG_ADDRESS, PAGE
    from pyx.config_page import number

    libc = ctypes.CDLL(None, use_errno=True)
    read, write = os.pipe()
    at = ctypes.c_void_p(CONFIG_ADDRESS + number(*address) * PAGE)
    count = libc.write(write, at, ctypes.c_size_t(64))
    if count < 0:
        return errno.errorcode[ctypes.get_errno()]
    return os.read(read, 64).hex()


def first_touches(puppet: Any, count: int) -> dict[str, float]:
    """Seconds of first and of second looks at `count` functions that are not there."""
    page = puppet.guest.hardware._region
    took = []
    for _ in range(2):
        begin = time.perf_counter()
        page.there(200 << 8, count)
        took.append(time.perf_counter() - begin)
    return {"first": took[0] / count, "again": took[1] / count}


def touch_by_thread(puppet: Any, pages: int, threads: int) -> list[int]:
    """Several threads look at the same pages at once: how many functions each found."""
    import threading

    found: list[int] = []

    def look() -> None:
        found.append(len(puppet.guest.hardware._region.there(0, pages)))

    running = [threading.Thread(target=look) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return found


def wait_for_change(puppet: Any, timeout: float) -> dict[str, Any]:
    """Until endpoints come or go: the new table, and the seconds that it took."""
    begin = time.perf_counter()
    table = puppet.guest.hardware.wait(timeout)
    return {"table": table, "seconds": time.perf_counter() - begin}


def take_changes(puppet: Any) -> list[str]:
    """Takes the changes that the host has told of; names of the endpoints there are."""
    if puppet.guest.hardware.wait(5.0) is None:
        raise TimeoutError("nothing changed")
    return puppet.guest.endpoints


def sleep_until_interrupt(puppet: Any, timeout: float) -> dict[str, Any]:
    """Sleeps on the doorbell of the interrupt page: seconds, and the vectors that were pending then."""
    begin = time.perf_counter()
    pending = puppet.guest.waiter.sleep(timeout)
    return {"seconds": time.perf_counter() - begin, "pending": pending}

"""Guests that compute: what a scheduler shares out. Each says what it used itself, by the kernel's count."""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import signal
import threading
import time
from typing import Any

from puppet import Puppet


def spin(puppet: Puppet) -> dict[str, Any]:
    """Computes until the test wants the end."""
    begin = time.process_time()
    while not puppet.wanted():
        for _ in range(1000):
            pass
    return {"used": time.process_time() - begin}


def spin_many(puppet: Puppet, threads: int = 0, children: int = 0) -> dict[str, Any]:
    """Several processes that compute, until the test wants the end. Threads of Python take turns, children do not."""
    stopping: list[int] = []

    def work() -> None:
        while not stopping:
            pass

    pids = []
    for _ in range(children):
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            while True:
                pass
        pids.append(pid)
    others = [threading.Thread(target=work) for _ in range(threads)]
    for other in others:
        other.start()
    while not puppet.wanted():
        time.sleep(0.01)
    stopping.append(1)
    for other in others:
        other.join()
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
    used = sum(resource.getrusage(who).ru_utime for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {"used": used}


def fork_first(guest: Any) -> None:
    """An entry of its own: two children, and all three compute for good."""
    for _ in range(2):
        if os.fork() == 0:
            break
    while True:
        pass


def tick(puppet: Puppet, period: float) -> dict[str, Any]:
    """Sleeps for `period` seconds again and again; how late it woke at most, and in the middle."""
    late = []
    while not puppet.wanted():
        due = time.monotonic() + period
        time.sleep(period)
        late.append(time.monotonic() - due)
    late.sort()
    return {"worst": late[-1], "p99": late[int(len(late) * 0.99)], "wakes": len(late)}


def dodge(puppet: Puppet, run: float, sleep: float) -> dict[str, Any]:
    """Computes for `run` seconds, then sleeps for `sleep`: what a guest does that wants to be away at each tick."""
    begin = time.process_time()
    while not puppet.wanted():
        end = time.monotonic() + run
        while time.monotonic() < end:
            pass
        time.sleep(sleep)
    return {"used": time.process_time() - begin}


def signals(puppet: Puppet, count: int) -> dict[str, Any]:
    """Sends itself `count` signals and counts those that came."""
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
    for _ in range(count):
        seen = len(heard)
        os.kill(os.getpid(), signal.SIGUSR1)
        while len(heard) == seen:
            pass
    signal.signal(signal.SIGUSR1, before)
    return {"heard": len(heard)}


# mov rcx, marker; loop: inc rdx; cmp rbx, rcx; jne loop; mov rax, rbx; ret - with rbx saved around it
_CODE = bytes.fromhex("53 48b9") + (0x5152535455565758).to_bytes(8, "little") + bytes.fromhex(
    "4831db 48ffc2 4839cb 75f8 4889d8 5b c3"
)


def wait_for_register(puppet: Puppet) -> dict[str, Any]:
    """Computes in a loop that ends only when register rbx has a value that nothing here ever writes into it."""
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(_CODE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    return {"value": ctypes.CFUNCTYPE(ctypes.c_uint64)(address)()}


def write(puppet: Puppet, disk: str, block: int, depth: int) -> dict[str, Any]:
    """Computes, and a thread of it writes blocks to a disk meanwhile, until the test wants the end."""
    from pyx import abi
    from pyx.disk_load import DiskLoad

    device = puppet.guest.disk(disk)
    load = DiskLoad(device.queue, puppet.guest.memory.allocate(depth * block), device.capacity)
    stopping: list[int] = []
    requests: list[int] = []

    def run() -> None:
        while not stopping:
            requests.append(load.run(abi.OPERATIONS["write"], block, depth, 0.2)["requests"])

    thread = threading.Thread(target=run)
    thread.start()
    while not puppet.wanted():
        for _ in range(1000):
            pass
    stopping.append(1)
    thread.join()
    return {"requests": sum(requests)}

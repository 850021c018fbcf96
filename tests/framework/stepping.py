"""A process that is led on by single instructions, and killed between any two: what rigs share."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

HEADER, SLOT = 256, 64  # bytes of a ring's header, of a slot (abi.h)
TAIL, HEAD = 64, 128  # where a ring keeps its indices
SLEEPING = 4  # where a doorbell says that its consumer sleeps
CAPACITY = 1024  # slots of a ring, where a rig does not say otherwise
TRACEME, CONTINUE, STEP = 0, 7, 9  # requests of ptrace(2)
DEADLINE = 10.0

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]

Rig = TypeVar("Rig", bound="Stepped")
STEPS_MAX = 60_000  # instructions of one operation that `sweep` goes through


class Ring:
    """One end of a ring, played by the test: as consumer or as producer."""

    def __init__(self, memory: mmap.mmap, offset: int = 0, capacity: int = CAPACITY) -> None:
        self.memory, self.offset, self.capacity = memory, offset, capacity

    def index(self, where: int) -> int:
        return int(struct.unpack_from("<Q", self.memory, self.offset + where)[0])

    def tail(self) -> int:
        return self.index(TAIL)

    def push(self, *slots: bytes) -> None:
        tail = self.index(TAIL)
        for number, slot in enumerate(slots):
            at = self.offset + HEADER + (tail + number) % self.capacity * SLOT
            self.memory[at : at + SLOT] = slot
        self._show(TAIL, tail + len(slots))

    def _show(self, where: int, value: int) -> None:
        """In one store: `struct` sets what it packs into to zero first, and the other side takes that for a jump."""
        ctypes.c_uint64.from_buffer(self.memory, self.offset + where).value = value

    def take(self) -> list[bytes]:
        """Everything that was published since the last time."""
        head, tail = self.index(HEAD), self.index(TAIL)
        found = []
        for number in range(head, tail):
            at = self.offset + HEADER + number % self.capacity * SLOT
            found.append(self.memory[at : at + SLOT])
        self._show(HEAD, tail)
        return found


class Stepped:
    """A process with one data thread, which sleeps at the doorbell `doorbell` (memory, offset)."""

    doorbell: tuple[mmap.mmap, int]

    def __init__(self) -> None:
        self.pid = 0

    def work(self) -> None:
        """In the process: does its work, once `ready` was called; never returns."""
        raise NotImplementedError

    def ready(self) -> None:
        """In the process: everything is there; waits for its first `go_on`."""
        ptrace(TRACEME, 0)
        os.kill(os.getpid(), signal.SIGSTOP)

    def fork(self) -> None:
        """Starts it; returns when it is ready."""
        self.pid = os.fork()
        if self.pid == 0:
            self._run()
        self.wait()

    def _run(self) -> NoReturn:
        try:
            self.work()
        finally:
            os._exit(1)

    def settle(self) -> None:
        """Until it sleeps on its doorbells."""
        memory, offset = self.doorbell
        end = time.monotonic() + DEADLINE
        while struct.unpack_from("<I", memory, offset + SLEEPING)[0] == 0 or _state(self.pid) != "S":
            assert time.monotonic() < end, "it does not come to rest"
            time.sleep(0.001)

    def stop(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)
        self.wait()

    def go_on(self) -> None:
        """After `stop`, with something to do: until it sleeps again."""
        memory, offset = self.doorbell
        struct.pack_into("<I", memory, offset + SLEEPING, 0)  # one that was killed may have left it set
        ptrace(CONTINUE, self.pid)
        self.settle()

    def changing(self) -> Any:
        """What of the segments a test looks at between two instructions."""
        raise NotImplementedError

    def step(self, instructions: int) -> None:
        for _ in range(instructions):
            ptrace(STEP, self.pid)
            self.wait()

    def kill(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0

    def wait(self) -> None:
        _, status = os.waitpid(self.pid, 0)
        assert os.WIFSTOPPED(status), f"it ended: {status:#x}"


def sweep(rig: Rig, over: Callable[[], bool], check: Callable[[Rig], None]) -> int:
    """Steps until the operation is over; the number of states that were checked."""
    steps = states = 0
    before = rig.changing()
    while not over():
        rig.step(1)
        steps += 1
        assert steps < STEPS_MAX, "it does not come to its end"
        now = rig.changing()
        if now != before:
            before = now
            states += 1
            check(rig)
    print(f"{steps} instructions, {states} states")
    return states


def ring_bell(memory: mmap.mmap, offset: int = 0) -> None:
    """As a producer does, whether anybody sleeps or not; whoever sleeps in a futex is not woken."""
    word = struct.unpack_from("<I", memory, offset)[0]
    struct.pack_into("<I", memory, offset, word + 1 & 0xFFFFFFFF)


def identity_of(slot: bytes) -> int:
    return int.from_bytes(slot[:8], "little")


def ptrace(request: int, pid: int) -> None:
    if _libc.ptrace(request, pid, None, None) != 0:
        raise OSError(ctypes.get_errno(), f"ptrace request {request} of process {pid}")


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]

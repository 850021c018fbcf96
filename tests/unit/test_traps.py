"""The trap thread without a host: refused calls of real processes, their counts and their rates (U16)."""

from __future__ import annotations

import array
import ctypes
import errno
import mmap
import os
import platform
import random
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from hostd import seccomp
from hostd.syscalls import AUDIT_ARCHITECTURES, numbers
from pyx import abi, process
from pyx.statistics import Reader, initialize
from pyx.trap import Traps

pytestmark = pytest.mark.skipif(platform.machine() not in AUDIT_ARCHITECTURES, reason="no filter for this processor")

ROWS = 32
CALLS = 12000
LIBC = ctypes.CDLL(None, use_errno=True)


class Host:
    """A trap thread with its statistics."""

    def __init__(self) -> None:
        size = abi.statistics_size(ROWS, *abi.STATISTICS_SHAPES["trap"])
        segment = os.memfd_create("statistics")
        os.ftruncate(segment, size)
        initialize(segment, "trap", ROWS)
        self.traps, self.reader = Traps(segment, size), Reader(segment, size)
        os.close(segment)
        self.thread = threading.Thread(target=self.traps.run)
        self.thread.start()

    def counts(self) -> dict[int, dict[str, int]]:
        """By partition: refused calls by number."""
        return {row["partition"]: row["counters"].get("refused_calls", {}) for row in self.reader.rows()}

    def close(self) -> None:
        self.traps.stop()
        self.thread.join()


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    yield host
    host.close()


def refused(host: Host, slot: int, call: str, times: int) -> int:
    """A process as `caller` makes it, heard by the trap thread."""
    pid, listener = caller(call, times)
    host.traps.watch_calls(abi.make_id(slot, 1), listener)
    os.close(listener)
    return pid


def caller(call: str, times: int) -> tuple[int, int]:
    """A process whose filter refuses `call`, which it makes `times` times, and the filter's listener; its exit code is
    0 where all were EPERM."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        process.set_no_new_privileges()
        listener = process.install_counted_filter(seccomp.program("guest", counted=True))
        theirs.sendmsg([b"l"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [listener]))])
        os.close(listener)
        theirs.recv(1)
        number = ctypes.c_long(numbers()[call])
        answers = {LIBC.syscall(number, 0, 0, 0) or ctypes.get_errno() for _ in range(times)}
        os._exit(0 if answers == {-1} and ctypes.get_errno() == errno.EPERM else 1)
    _, ancillary, _, _ = ours.recvmsg(1, 64)
    (listener,) = array.array("i", ancillary[0][2])
    ours.send(b"g")
    ours.close()
    theirs.close()
    return pid, listener


def ended(*pids: int) -> list[int]:
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def test_calls_are_counted_by_partition_and_number(host: Host) -> None:
    assert ended(refused(host, 1, "bpf", 3), refused(host, 2, "mount", 5)) == [0, 0]
    assert host.counts() == {
        abi.make_id(1, 1): {str(numbers()["bpf"]): 3},
        abi.make_id(2, 1): {str(numbers()["mount"]): 5},
    }
    assert sorted(host.traps.take()) == [
        (abi.make_id(1, 1), "call", numbers()["bpf"]), (abi.make_id(2, 1), "call", numbers()["mount"]),
    ]  # fmt: skip
    host.traps.forget(abi.make_id(1, 1))
    assert set(host.counts()) == {abi.make_id(2, 1)}


def test_all_guests_together_have_a_rate(host: Host) -> None:
    """12 guests with 2,000 calls each: their own rates would let them go on after half a second, that of all together
    takes 24,000 calls, less the 4,000 at once, at 10,000 a second."""
    begin = time.monotonic()
    assert set(ended(*(refused(host, slot, "bpf", 2000) for slot in range(1, 13)))) == {0}
    seconds = time.monotonic() - begin
    assert all(count == {str(numbers()["bpf"]): 2000} for count in host.counts().values())
    assert seconds > 1.6, seconds


def test_descriptors_of_ended_guests_go(host: Host) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for slot in range(1, 20):
        assert ended(refused(host, slot, "bpf", 1)) == [0]
    deadline = time.monotonic() + 5
    while len(os.listdir("/proc/self/fd")) > before and time.monotonic() < deadline:
        os.sched_yield()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_call_in_the_hands_of_a_killed_monitor_is_answered_by_the_next() -> None:
    """Its caller waits for the answer to just this call, which nobody else can take any more. Monitors are killed one
    after the other while a guest makes refused calls without a pause; each of them ends with EPERM."""
    kept = mmap.mmap(-1, abi.PAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(kept))
    segment = os.memfd_create("statistics")
    size = abi.statistics_size(ROWS, *abi.STATISTICS_SHAPES["trap"])
    os.ftruncate(segment, size)
    initialize(segment, "trap", ROWS)
    partition, reader, moments = abi.make_id(1, 1), Reader(segment, size), random.Random(7)

    def answered() -> int:
        rows = reader.rows()
        return rows[0]["counters"].get("refused_calls", {}).get(str(numbers()["bpf"]), 0) if rows else 0

    def monitor(listener: int) -> int:
        pid = os.fork()
        if pid == 0:
            traps = Traps(segment, size)
            traps.keep(address)
            traps.watch_calls(partition, listener)
            traps.run()
        return pid

    guest, listener = caller("bpf", CALLS)
    monitors = 0
    ending = os.pidfd_open(guest)
    try:
        while not select.select([ending], [], [], 0)[0]:
            before, pid, deadline = answered(), monitor(listener), time.monotonic() + 5
            monitors += 1
            while answered() == before and not select.select([ending], [], [], 0)[0]:
                assert time.monotonic() < deadline, f"nothing is answered any more, after {monitors} monitors"
            time.sleep(moments.uniform(0.0, 0.0015))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    finally:
        os.kill(guest, signal.SIGKILL)
        for descriptor in (ending, listener, segment):
            os.close(descriptor)
    assert ended(guest) == [0]
    assert monitors > 5
    assert CALLS - monitors <= answered() <= CALLS, "one that was taken and not counted, for each monitor at most"

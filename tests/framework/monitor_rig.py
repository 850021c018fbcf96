"""A monitor's worker with one I/O partition, one client and one device, over segments that outlive it.

`Rig.begin` starts it in a process of its own, which waits for calls; the test plays the I/O partition and the device.
It can be led on by single instructions and killed between any two; the next one adopts the same segments.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import struct
import time
from pathlib import Path
from typing import NoReturn

from pyx import abi
from pyx.monitor import Monitor
from pyx.statistics import initialize
from pyx.view import MapWriter, ViewWriter

SERVER, CLIENT = abi.make_id(3, 1), abi.make_id(7, 1)
CAPACITY, PAGES, EPOCH, ROWS = 1024, 16, 5, 16
HEADER, SLOT = 256, 64  # bytes of a ring's header, of a slot (abi.h)
TAIL, HEAD = 64, 128  # where a ring keeps its indices
EVENTS, MONITOR_PAGE = 3 * abi.PAGE, 2 * abi.PAGE  # of an events segment
CALL = struct.Struct("<QQQQQQIHBBHHHH")
DISK = {
    "index": 0, "name": "vda", "generation": 4, "kind": abi.ENDPOINT_KINDS["disk"], "length": 1 << 20, "port": 0,
    "operations": abi.operations_mask("read", "write"), "max_transfer": 65536, "device": 0,
    "server": abi.slot_of(SERVER),
}  # fmt: skip
TRACEME, CONTINUE, STEP = 0, 7, 9  # requests of ptrace(2)
DEADLINE = 10.0

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


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
        struct.pack_into("<Q", self.memory, self.offset + TAIL, tail + len(slots))

    def take(self) -> list[bytes]:
        """Everything that was published since the last time."""
        head, tail = self.index(HEAD), self.index(TAIL)
        found = []
        for number in range(head, tail):
            at = self.offset + HEADER + number % self.capacity * SLOT
            found.append(self.memory[at : at + SLOT])
        struct.pack_into("<Q", self.memory, self.offset + HEAD, tail)
        return found


class Rig:
    def __init__(self) -> None:
        counters, histograms = abi.STATISTICS_SHAPES["monitor"]
        sizes = {
            "bell": abi.bell_size(), "device_bell": abi.bell_size(), "kernel": abi.kernel_size(),
            "statistics": abi.statistics_size(ROWS, counters, histograms), "events": EVENTS,
            "calls": 2 * abi.ring_size(CAPACITY), "hardware": abi.ring_size(CAPACITY),
            **{f"{kind}{name}": size for name in ("server", "client")
               for kind, size in (("view_", abi.view_size()), ("map_", abi.map_size(PAGES)))},
        }  # fmt: skip
        self.sizes, self.fds = sizes, {}
        for name, size in sizes.items():
            self.fds[name] = os.memfd_create(name)
            os.ftruncate(self.fds[name], size)
        initialize(self.fds["statistics"], "monitor", ROWS)
        for number, (name, identity, kind) in enumerate((("server", SERVER, "io"), ("client", CLIENT, "guest"))):
            MapWriter(self.fds[f"map_{name}"], PAGES).assign(0, abi.FIRST_FRAME + number * PAGES, PAGES)
            ViewWriter(self.fds[f"view_{name}"]).publish({
                "partition": identity, "type": abi.PARTITION_TYPES[kind], "state": abi.STATES["running"],
                "memory_pages": PAGES, "endpoints": [DISK] if name == "client" else [],
            })  # fmt: skip
        self.events = mmap.mmap(self.fds["events"], EVENTS)
        calls = mmap.mmap(self.fds["calls"], sizes["calls"])
        self.calls, self.answers = Ring(calls), Ring(calls, abi.ring_size(CAPACITY))
        self.posted = Ring(mmap.mmap(self.fds["hardware"], sizes["hardware"]))
        self.pid = 0

    def close(self) -> None:
        self.kill()
        for descriptor in self.fds.values():
            os.close(descriptor)

    # ---- the monitor ----

    def begin(self, adopting: bool, resume: bool = True) -> None:
        """Starts one; returns when it sleeps, having done all that there was to do."""
        self.pid = os.fork()
        if self.pid == 0:
            self._run(adopting, resume)
        self._wait()
        self.go_on()

    def _run(self, adopting: bool, resume: bool) -> NoReturn:
        try:
            monitor = Monitor(
                self.fds["bell"], self.fds["statistics"], self.sizes["statistics"], True, kernel_fd=self.fds["kernel"],
                event_fd=os.eventfd(0), adopting=adopting,
            )  # fmt: skip
            fds = self.fds
            monitor.open(SERVER, "io", 0, fds["view_server"], fds["map_server"], PAGES, fds["calls"], CAPACITY,
                         fds["events"])  # fmt: skip
            monitor.open(CLIENT, "guest", 0, fds["view_client"], fds["map_client"], PAGES, -1, 0, -1)
            monitor.connect_hardware(SERVER, 0, fds["hardware"], CAPACITY, fds["device_bell"])
            if adopting:
                for identity in (SERVER, CLIENT):
                    monitor.adopt(identity)
                if resume:
                    monitor.resume()
            else:
                monitor.set_epoch(SERVER, EPOCH)
            _ptrace(TRACEME, 0)
            os.kill(os.getpid(), signal.SIGSTOP)
            monitor.run()
        finally:
            os._exit(1)

    def settle(self) -> None:
        """Until it sleeps on its doorbells."""
        end = time.monotonic() + DEADLINE
        while struct.unpack_from("<I", self.events, MONITOR_PAGE + 4)[0] == 0 or _state(self.pid) != "S":
            assert time.monotonic() < end, "it does not come to rest"
            time.sleep(0.001)

    def stop(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)
        self._wait()

    def go_on(self) -> None:
        """After `stop`, with something to do: until it sleeps again."""
        struct.pack_into("<I", self.events, MONITOR_PAGE + 4, 0)  # a monitor that was killed may have left it set
        _ptrace(CONTINUE, self.pid)
        self.settle()

    def step(self, instructions: int) -> None:
        for _ in range(instructions):
            _ptrace(STEP, self.pid)
            self._wait()

    def kill(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0

    def _wait(self) -> None:
        _, status = os.waitpid(self.pid, 0)
        assert os.WIFSTOPPED(status), f"the monitor ended: {status:#x}"

    # ---- the I/O partition ----

    def call(self, *calls: bytes) -> None:
        """Makes calls and rings the monitor's bell, whether it sleeps or not."""
        self.calls.push(*calls)
        word = struct.unpack_from("<I", self.events, MONITOR_PAGE)[0]
        struct.pack_into("<I", self.events, MONITOR_PAGE, word + 1 & 0xFFFFFFFF)


def submit(identity: int, gpa: int) -> bytes:
    """A read of one page of the client's, as its server passes it on."""
    return CALL.pack(identity, gpa, 0, DISK["generation"], 1, EPOCH, abi.PAGE, 0, abi.OPERATIONS["read"], 0,
                     abi.CALLS["submit"], abi.slot_of(CLIENT), 0, 0)  # fmt: skip


def nothing(identity: int) -> bytes:
    return CALL.pack(identity, 0, 0, 0, 0, 0, 0, 0, 0, 0, abi.CALLS["null"], 0, 0, 0)


def identity_of(slot: bytes) -> int:
    return int.from_bytes(slot[:8], "little")


def _ptrace(request: int, pid: int) -> None:
    if _libc.ptrace(request, pid, None, None) != 0:
        raise OSError(ctypes.get_errno(), f"ptrace request {request} of process {pid}")


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]

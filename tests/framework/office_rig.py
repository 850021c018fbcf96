"""Both seats of an office, over segments that outlive them; the test plays guest, monitor and device (pyx/office.pyx).

One process serves. It is led on by single instructions, and after each one that has changed shared memory, that memory
is what a death there would leave: `Rig.copy` gives it to another seat, which takes over.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from partitions.ultravisor.types import QUEUES
from pyx import abi
from pyx.office import Office
from pyx.statistics import initialize
from tests.framework.monitor_rig import CALL
from tests.framework.stepping import Ring, Stepped, ring_bell

SERVER, CLIENT = abi.make_id(3, 1), abi.make_id(7, 1)
CAPACITY, ROWS, EPOCH = 8, 4, 5
PATH_OF_LEDGER = 56  # where a ledger says which path is in force (abi_office.h)
TERM_OF_SEAT = 72  # where a seat's page says which term it serves (abi_office.h)
REQUEST = struct.Struct("<QQQQQIIHBBIQ")
COMPLETION = struct.Struct("<QQHHIQ24xHHI")
READ, RECEIVE, PATH, OK = *(abi.OPERATIONS[name] for name in ("read", "receive", "path")), abi.STATUSES["ok"]
OWN_MEMORY = 16 * abi.PAGE  # of the server, for buffers of the copy path
DEADLINE = 10.0
CHANGING = ("channel", "ledger", "calls", "hardware", "seat0", "seat1")  # what a seat writes, but for counters


class Rig(Stepped):
    """`terms_at`: where the kernel region keeps the terms of office. `receives`: the queue is a NIC's, for frames."""

    def __init__(self, terms_at: int, content: dict[str, bytes] | None = None, receives: bool = False) -> None:
        super().__init__()
        self._receives = receives
        counters, histograms = abi.STATISTICS_SHAPES["io"]
        self._terms_at = terms_at
        self.sizes = {
            "seat0": abi.bell_size(), "seat1": abi.bell_size(), "bell": abi.bell_size(), "kernel": abi.kernel_size(),
            "statistics": abi.statistics_size(ROWS, counters, histograms), "events": abi.events_size(),
            "client_events": abi.events_size(), "vectors": abi.vectors_size(), "ledger": abi.ledger_size(CAPACITY),
            "channel": 2 * abi.ring_size(CAPACITY), "calls": 2 * abi.ring_size(CAPACITY),
            "hardware": abi.ring_size(CAPACITY),
        }  # fmt: skip
        self.fds: dict[str, int] = {}
        self.memory: dict[str, mmap.mmap] = {}
        for name, size in self.sizes.items():
            self.fds[name] = os.memfd_create(name)
            os.ftruncate(self.fds[name], size)
            self.memory[name] = mmap.mmap(self.fds[name], size)
        if content is None:
            initialize(self.fds["statistics"], "io", ROWS)
        else:
            for name, data in content.items():
                self.memory[name][:] = data
        ring = abi.ring_size(CAPACITY)
        self.requests, self.completions = (Ring(self.memory["channel"], at, CAPACITY) for at in (0, ring))
        self.calls, self.hardware = (Ring(self.memory[name], capacity=CAPACITY) for name in ("calls", "hardware"))
        self.answers = Ring(self.memory["calls"], ring, CAPACITY)  # the monitor's, to calls
        self.office: Office | None = None

    def close(self) -> None:
        self.kill()
        if self.office is not None:
            self.office.stop()
            self._thread.join()
        for name, descriptor in self.fds.items():
            self.memory[name].close()
            os.close(descriptor)

    def copy(self) -> Rig:
        """All segments as they are now: what is left if the process dies here."""
        return Rig(self._terms_at, {name: bytes(memory) for name, memory in self.memory.items()})

    def changing(self) -> bytes:
        return b"".join(self.memory[name][:] for name in CHANGING)

    # ---- seats

    def seat(self, seat: int) -> Office:
        """A process that has not been given its seat yet."""
        fds = self.fds
        office = Office(
            fds[f"seat{seat}"], fds["statistics"], self.sizes["statistics"], True, kernel_fd=fds["kernel"], seat=seat,
            partition=SERVER, office_bell_fd=fds["bell"], call_fd=fds["calls"], call_capacity=CAPACITY,
            events_fd=fds["events"], vectors_fd=fds["vectors"], memory_size=OWN_MEMORY,
        )  # fmt: skip
        office.connect_hardware(0, fds["hardware"], CAPACITY)
        kind, queue = ("nic", QUEUES["nic"].index("rx")) if self._receives else ("disk", 0)
        segments = fds["channel"], fds["ledger"], fds["client_events"]
        office.add_queue(0, CLIENT, 0, queue, kind, CAPACITY, *segments)
        return office

    def _seat(self, seat: int) -> Office:
        office = self.seat(seat)
        office.sit()
        return office

    def copies(self) -> None:
        """Its endpoint is on the path `copy`; before a seat is named."""
        struct.pack_into("<I", self.memory["ledger"], PATH_OF_LEDGER, abi.PATHS["copy"])

    def name(self, epoch: int, seat: int) -> None:
        """The monitor's word: from now on that seat serves."""
        at = self._terms_at + 8 * abi.slot_of(SERVER)
        struct.pack_into("<Q", self.memory["kernel"], at, epoch << 1 | seat)
        self.ring(seat)

    def ring(self, seat: int) -> None:
        ring_bell(self.memory[f"seat{seat}"])
        if self.office is not None:
            with self.office.quiet():  # wakes it, too
                pass

    def serves(self, epoch: int, seat: int) -> bool:
        return struct.unpack_from("<Q", self.memory[f"seat{seat}"], TERM_OF_SEAT)[0] == epoch << 1 | seat

    def begin(self, seat: int) -> None:
        """A process with that seat, stopped before its thread's first instruction."""
        self._own = seat
        self.doorbell = self.memory[f"seat{seat}"], 0
        self.fork()

    def work(self) -> None:
        office = self._seat(self._own)
        self.ready()
        office.run()

    def rest(self) -> None:
        """Goes on until it sleeps, having done all that there was to do; stopped again at the return."""
        self.go_on()
        self.stop()

    def take_over(self, epoch: int, seat: int) -> None:
        """The other seat, in this process; returns when it serves."""
        self.office = self._seat(seat)
        self.serve()
        self.name(epoch, seat)
        end = time.monotonic() + DEADLINE
        while not self.serves(epoch, seat):
            assert time.monotonic() < end, "nobody serves"
            time.sleep(0.0002)

    def serve(self) -> threading.Thread:
        """Begins the thread of `office`."""
        assert self.office is not None
        self._thread = threading.Thread(target=self.office.run, daemon=True)
        self._thread.start()
        return self._thread

    def in_flight(self) -> int:
        """Entries of the ledger that are in use."""
        ledger = self.memory["ledger"]
        return sum(struct.unpack_from("<Q", ledger, 64 + 128 * slot)[0] != 0 for slot in range(CAPACITY))

    @staticmethod
    def pause() -> None:
        time.sleep(0.0002)

    # ---- guest, monitor and device

    def ask(self, numbers: range) -> None:
        """The guest's requests, each for a page of its own; number 0 has an id that is refused."""
        rest = 0, 1, 1, 4096, 0, 0, RECEIVE if self._receives else READ, 0, 0, 0
        self.requests.push(*(
            REQUEST.pack(0 if number == 0 else abi.make_id(number, 1), number << 12, *rest) for number in numbers
        ))  # fmt: skip

    def execute(self, epoch: int) -> Counter[int]:
        """Monitor and device carry out what has been called for under `epoch`; how often each request."""
        done: Counter[int] = Counter()
        for slot in self.calls.take():
            call = CALL.unpack(slot)
            if call[5] == epoch:
                done[call[1] >> 12] += 1
                self.hardware.push(COMPLETION.pack(call[0], epoch, OK, 0, 4096, 1, call[12], 0, 0))
        return done

    def called(self) -> tuple[Any, ...]:
        """The next call of the server that serves, as fields of CALL."""
        return CALL.unpack(self._await(self.calls.take)[0])

    def reply(self, call: tuple[Any, ...], by_device: bool = False) -> None:
        """The monitor has done what a call asks for, or the device what the monitor has passed on to it."""
        kind = 0 if by_device else call[10]
        answer = COMPLETION.pack(call[0], call[5], OK, 0, call[6], 1, call[12], kind, 0)
        (self.hardware if by_device else self.answers).push(answer)
        self.ring(0)

    def go_over(self, path: str) -> None:
        """The guest asks for another path, and the monitor agrees."""
        self.requests.push(REQUEST.pack(abi.make_id(1, 1), 0, 0, 1, 1, abi.PATHS[path], 0, 0, PATH, 0, 0, 0))
        self.ring(0)
        self.reply(self.called())
        self._await(self.completions.take)

    def _await(self, found: Callable[[], list[bytes]]) -> list[bytes]:
        end = time.monotonic() + DEADLINE
        while not (slots := found()):
            assert time.monotonic() < end, "the server does nothing"
            self.pause()
        return slots

    def answered(self) -> Counter[int]:
        """What the guest takes off its ring: how often each request."""
        return Counter(abi.slot_of(COMPLETION.unpack(slot)[0]) for slot in self.completions.take())

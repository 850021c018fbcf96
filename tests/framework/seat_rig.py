"""The seat of an office with one queue of a guest, over segments that outlive it; the test plays guest, monitor and
device, and says who serves. It can be killed between any two instructions; the next seat takes the office."""

from __future__ import annotations

import mmap
import os
import struct

from pyx import abi
from pyx.monitor import Monitor
from pyx.office import Office
from pyx.statistics import initialize
from tests.framework import monitor_rig
from tests.framework.monitor_rig import CALL, CLIENT, DISK, EVENTS, PAGES, ROWS, SERVER
from tests.framework.oracle import Request
from tests.framework.slots import slot
from tests.framework.stepping import CAPACITY, Ring, identity_of, ring_bell

SLOTS = 16  # of the guest's queue
FIRST = 0x5EED0001  # epoch: no other word of the kernel region looks like it
READ = Request(
    id=0, gpa=0, device_offset=0, endpoint_generation=DISK["generation"], length=512, list_count=0, endpoint=0,
    operation=abi.OPERATIONS["read"], flags=0, taken=0, key=0,
)  # fmt: skip
COMPLETION = struct.Struct("<QQHHIQ6IHHI")  # struct pv_completion
OK = abi.STATUSES["ok"]


class SeatRig(monitor_rig.Rig):
    def __init__(self) -> None:
        super().__init__()
        counters, histograms = abi.STATISTICS_SHAPES["io"]
        for name, size in {
            "seat0": abi.bell_size(), "seat1": abi.bell_size(), "office_bell": abi.bell_size(),
            "completions": abi.ring_size(CAPACITY), "channel": abi.channel_size(SLOTS), "vectors": abi.vectors_size(),
            "ledger": abi.ledger_size(SLOTS), "client_events": EVENTS,
            "io_statistics": abi.statistics_size(ROWS, counters, histograms),
        }.items():  # fmt: skip
            self.sizes[name] = size
            self.fds[name] = os.memfd_create(name)
            os.ftruncate(self.fds[name], size)
        initialize(self.fds["io_statistics"], "io", ROWS)
        names = ("seat0", "seat1", "office_bell", "completions", "channel", "ledger", "client_events", "kernel")
        self.memory = {name: mmap.mmap(self.fds[name], self.sizes[name]) for name in names}
        channel = self.memory["channel"]
        self.requests = Ring(channel, capacity=SLOTS)
        self.results = Ring(channel, abi.ring_size(SLOTS), SLOTS)
        self.device = Ring(self.memory["completions"])
        self.seat, self.epoch, self.numbers = 1, FIRST, 0
        self.term_at = self._open_office()

    def _open_office(self) -> int:
        """Has a monitor open the office; where in the kernel region its term stands."""
        fds = self.fds
        monitor = Monitor(fds["bell"], fds["statistics"], self.sizes["statistics"], True, kernel_fd=fds["kernel"],
                          event_fd=os.eventfd(0))  # fmt: skip
        monitor.open(SERVER, "io", 0, fds["view_server"], fds["map_server"], PAGES, fds["calls"], CAPACITY,
                     fds["events"])  # fmt: skip
        monitor.open_office(SERVER, [fds["seat0"], fds["seat1"]], FIRST, FIRST + (1 << 20), 0)
        word = struct.pack("<Q", FIRST << 1)  # PV_TERM(FIRST, 0), abi_office.h
        assert self.memory["kernel"][:].count(word) == 1
        return self.memory["kernel"][:].index(word)

    # ---- the seats ----

    def work(self) -> None:
        fds = self.fds
        office = Office(
            fds[f"seat{self.seat}"], fds["io_statistics"], self.sizes["io_statistics"], True, kernel_fd=fds["kernel"],
            seat=self.seat, partition=SERVER, office_bell_fd=fds["office_bell"], call_fd=fds["calls"],
            call_capacity=CAPACITY, events_fd=fds["events"], vectors_fd=fds["vectors"],
        )  # fmt: skip
        office.connect_hardware(0, fds["completions"], CAPACITY)
        office.add_queue(0, CLIENT, 0, 0, "disk", SLOTS, fds["channel"], fds["ledger"], fds["client_events"])
        self.ready()
        office.run()

    def stand_by(self) -> None:
        """The other seat's process, which serves after `name`."""
        self.seat = 1 - self.seat
        self.doorbell = self.memory[f"seat{self.seat}"], 0
        self.fork()

    def name(self) -> None:
        """Names this seat, as the monitor does when everything is drained."""
        self.epoch += 1
        struct.pack_into("<Q", self.memory["kernel"], self.term_at, self.epoch << 1 | self.seat)

    def take_over(self) -> None:
        """Returns when the next seat serves and has nothing to do."""
        self.stand_by()
        self.name()
        self.go_on()

    def traces(self) -> bytes:
        """All that a seat writes for its successor and its guest."""
        return bytes(self.memory["ledger"]) + bytes(self.memory["channel"])

    # ---- guest and device ----

    def ask(self, count: int) -> list[int]:
        """Requests of the guest; their ids."""
        ids = [self.numbers + 1 + number << 16 for number in range(count)]
        self.numbers += count
        self.requests.push(*(bytes.fromhex(slot(READ._replace(id=one))) for one in ids))
        ring_bell(self.memory["client_events"], abi.PAGE)
        return ids

    def calls_made(self) -> list[int]:
        """Ids under which requests were passed on since the last time, as far as the monitor accepts that: under the
        epoch in force."""
        calls = [CALL.unpack(call) for call in self.calls.take()]
        return [call[0] for call in calls if call[5] == self.epoch]

    def complete(self, *ids: int) -> None:
        """As the device does."""
        self.device.push(*(COMPLETION.pack(one, self.epoch, OK, 0, 512, 0, *[0] * 6, 0, 0, 0) for one in ids))
        ring_bell(self.memory["office_bell"])

    def answered(self) -> list[int]:
        """Ids of requests that were answered to the guest since the last time."""
        return [identity_of(slot) for slot in self.results.take()]


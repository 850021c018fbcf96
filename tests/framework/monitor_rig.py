"""A monitor's worker with one I/O partition, one client and one device, over segments that outlive it.

`Rig.begin` starts it in a process of its own, which waits for calls; the test plays the I/O partition and the device.
It can be led on by single instructions and killed between any two; the next one adopts the same segments.
"""

from __future__ import annotations

import mmap
import os
import struct

from pyx import abi
from pyx.monitor import Monitor
from pyx.statistics import initialize
from pyx.view import MapWriter, ViewWriter
from tests.framework.stepping import CAPACITY, Ring, Stepped, ring_bell

SERVER, CLIENT = abi.make_id(3, 1), abi.make_id(7, 1)
PAGES, EPOCH, ROWS = 16, 5, 16
EVENTS, MONITOR_PAGE = 3 * abi.PAGE, 2 * abi.PAGE  # of an events segment
CALL = struct.Struct("<QQQQQQIHBBHHHH")
DISK = {
    "index": 0, "name": "vda", "generation": 4, "kind": abi.ENDPOINT_KINDS["disk"], "length": 1 << 20, "port": 0,
    "operations": abi.operations_mask("read", "write"), "max_transfer": 65536, "device": 0,
    "server": abi.slot_of(SERVER),
}  # fmt: skip

class Rig(Stepped):
    def __init__(self) -> None:
        super().__init__()
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
        self.doorbell = self.events, MONITOR_PAGE

    def close(self) -> None:
        self.kill()
        for descriptor in self.fds.values():
            os.close(descriptor)

    # ---- the monitor ----

    def begin(self, adopting: bool, resume: bool = True) -> None:
        """Starts one; returns when it sleeps, having done all that there was to do."""
        self.adopting, self.resuming = adopting, resume
        self.fork()
        self.go_on()

    def work(self) -> None:
        monitor = Monitor(
            self.fds["bell"], self.fds["statistics"], self.sizes["statistics"], True, kernel_fd=self.fds["kernel"],
            event_fd=os.eventfd(0), adopting=self.adopting,
        )  # fmt: skip
        fds = self.fds
        monitor.open(SERVER, "io", 0, fds["view_server"], fds["map_server"], PAGES, fds["calls"], CAPACITY,
                     fds["events"])  # fmt: skip
        monitor.open(CLIENT, "guest", 0, fds["view_client"], fds["map_client"], PAGES, -1, 0, -1)
        monitor.connect_hardware(SERVER, 0, fds["hardware"], CAPACITY, fds["device_bell"])
        if self.adopting:
            for identity in (SERVER, CLIENT):
                monitor.adopt(identity)
            if self.resuming:
                monitor.resume()
        else:
            monitor.set_epoch(SERVER, EPOCH)
        self.ready()
        monitor.run()

    # ---- the I/O partition ----

    def call(self, *calls: bytes) -> None:
        """Makes calls and rings the monitor's bell, whether it sleeps or not."""
        self.calls.push(*calls)
        ring_bell(self.events, MONITOR_PAGE)


def submit(identity: int, gpa: int) -> bytes:
    """A read of one page of the client's, as its server passes it on."""
    return CALL.pack(identity, gpa, 0, DISK["generation"], 1, EPOCH, abi.PAGE, 0, abi.OPERATIONS["read"], 0,
                     abi.CALLS["submit"], abi.slot_of(CLIENT), 0, 0)  # fmt: skip


def nothing(identity: int) -> bytes:
    return CALL.pack(identity, 0, 0, 0, 0, 0, 0, 0, 0, 0, abi.CALLS["null"], 0, 0, 0)

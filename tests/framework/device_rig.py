"""A device and the queue pairs of one guest, over segments that outlive it; the test plays the guest (pyx/ledgers.pyx).

One process serves. It is led on by single instructions, and after each one that has changed shared memory, that memory
is what a death there would leave: `Rig.copy` gives it to another process, which goes on.
"""

from __future__ import annotations

import mmap
import os
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

from pyx import abi
from pyx.disk import Disk
from pyx.entries import Entries
from pyx.nic import Nic
from pyx.statistics import initialize
from pyx.validate import pack_joined
from tests.framework.stepping import HEAD, SLEEPING, Ring, Stepped, ring_bell

GUEST = abi.make_id(7, 1)
CAPACITY, ROWS, PAGES = 16, 8, 16
FIRST = abi.FIRST_FRAME * abi.PAGE
GENERATION = 4  # of every endpoint
SECTOR, SECTORS = 512, 64
REQUEST = struct.Struct("<QQQQQIIHBBIQ")
COMPLETION = struct.Struct("<QQHHI36xI")
MAC = (bytes.fromhex("020000000001"), bytes.fromhex("020000000002"))
FRAME = 64
QUEUES = {"nic": 2, "wire": 2, "disk": 1}
WIRE = 255  # its port
BUFFERS = 8 * abi.PAGE  # gpa of a receiver's buffers, and of what a disk's guest reads into
FRONT, END = 16384, 16384  # bytes of the ledger that so few requests touch: queues; entries, and what went out by wires
FIRST_QUEUE, QUEUE_SIZE, SEGMENT_OF_QUEUE = 64 + 8 * 192, 192, 136  # of the ledger: those of ports (abi_device.h)
DEADLINE = 10.0
QUICK = 0.005  # seconds that a medium takes, where nobody steps


class Rig(Stepped):
    """`kind`: "nic", endpoints 0 and 1 with a queue pair each; "wire", a NIC with endpoint 0 and a wire to the test; or
    "disk", endpoint 0. `latency`: seconds of its disk. `most`: requests of a turn, 0: as many as there are."""

    def __init__(self, kind: str, latency: float = 0.0, content: dict[str, bytes] | None = None, most: int = 0) -> None:
        super().__init__()
        device = "disk" if kind == "disk" else "nic"
        counters, histograms = abi.STATISTICS_SHAPES[device]
        self.kind, self.latency, self.most = kind, latency, most
        self.ports = (0, 1) if kind == "nic" else (0,)
        self.sizes = {
            "bell": abi.bell_size(), "statistics": abi.statistics_size(ROWS, counters, histograms),
            "translations": abi.translations_size(), "vectors": abi.vectors_size(),
            "ledger": -(-abi.device_ledger_size() // abi.PAGE) * abi.PAGE, "events": abi.events_size(),
            "memory": PAGES * abi.PAGE, "medium": SECTORS * SECTOR,
            **{f"pair{port}": abi.pair_size(QUEUES[kind], CAPACITY) for port in self.ports},
        }  # fmt: skip
        self.near, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.shown: dict[tuple[int, int], list[bytes]] = {}  # by port and queue: completions that the guest has taken
        self.gone: list[int] = []  # numbers of the frames that left by the wire
        self.fds: dict[str, int] = {}
        self.memory: dict[str, mmap.mmap] = {}
        for name, size in self.sizes.items():
            self.fds[name] = os.memfd_create(name)
            os.ftruncate(self.fds[name], size)
            self.memory[name] = mmap.mmap(self.fds[name], size)
        self.keys: dict[int, int] = {}
        if content is None:
            initialize(self.fds["statistics"], device, ROWS)
            entries = Entries(self.fds["translations"])
            extents = [(0, FIRST, self.sizes["memory"])]
            self.keys = {port: entries.open(self._descriptor(), port, extents) for port in self.ports}
            entries.detach()
        else:
            for name, data in content.items():
                self.memory[name][:] = data
        self.doorbell = self.memory["bell"], 0
        self._device: Any = None

    def _descriptor(self) -> dict[str, Any]:
        kind = "disk" if self.kind == "disk" else "nic"
        operations = {"nic": ("send", "send_headed", "receive"), "disk": ("read", "write", "flush")}[kind]
        return {
            "partition": GUEST, "type": abi.PARTITION_TYPES["guest"], "state": abi.STATES["running"],
            "memory_pages": PAGES,
            "endpoints": [
                {"index": port, "name": f"e{port}", "generation": GENERATION, "kind": abi.ENDPOINT_KINDS[kind],
                 "length": self.sizes["medium"], "port": port, "operations": abi.operations_mask(*operations),
                 "max_transfer": 65536, "device": 0, "server": 0}
                for port in self.ports
            ],
        }  # fmt: skip

    def close(self) -> None:
        self.kill()
        self.end()
        self.near.close()
        self.far.close()
        for name, descriptor in self.fds.items():
            self.memory[name].close()
            os.close(descriptor)

    def copy(self) -> Rig:
        """All segments as they are now: what is left if the process dies here. Whoever goes on there is not stepped, so
        its medium need not be as slow."""
        content = {name: bytes(memory) for name, memory in self.memory.items()}
        rig = Rig(self.kind, min(self.latency, QUICK), content, self.most)
        rig.keys = self.keys
        for port in self.ports:  # the guest takes what it is shown
            for queue in range(QUEUES[self.kind]):
                ring = rig._completions(port, queue)
                rig.shown[port, queue] = self._slots(ring, ring.tail())
                struct.pack_into("<Q", ring.memory, ring.offset + HEAD, ring.tail())
        for port in self.ports:  # the copies pass for the segments themselves
            for queue in range(QUEUES[self.kind]):
                at = FIRST_QUEUE + (2 * port + queue) * QUEUE_SIZE + SEGMENT_OF_QUEUE
                if struct.unpack_from("<Q", rig.memory["ledger"], at)[0]:
                    struct.pack_into("<Q", rig.memory["ledger"], at, os.fstat(rig.fds[f"pair{port}"]).st_ino)
        return rig

    def changing(self) -> bytes:
        pairs = b"".join(self.memory[f"pair{port}"][:] for port in self.ports)
        return pairs + self.memory["ledger"][:FRONT] + self.memory["ledger"][-END:]

    # ---- the device

    def device(self, successor: bool) -> Any:
        """One with all its ports; it serves at once where it follows nobody."""
        fds = self.fds
        made = (Disk if self.kind == "disk" else Nic)(
            fds["bell"], fds["statistics"], self.sizes["statistics"], True, translations_fd=fds["translations"],
            vectors_fd=fds["vectors"], ledger_fd=fds["ledger"], window_first=FIRST, window_size=self.sizes["memory"],
        )  # fmt: skip
        if successor:
            made.succeed()
        if self.kind == "wire":
            made.add_wire(WIRE, "vxlan", self.far.fileno(), self.far.fileno())
        made.attach_memory(fds["memory"], FIRST, self.sizes["memory"])
        for port in self.ports:
            place = (port, GENERATION, GUEST, port)
            pair = (fds["events"], fds[f"pair{port}"], CAPACITY)
            if self.kind == "disk":
                made.attach_port(*place, fds["medium"], "file", pair)
            else:
                made.attach_port(*place, MAC[port], pair)
            if self.most:
                made.set_share(port, 100, {"operations": {"rate": 2000, "period": 0.0005, "burst": self.most - 1}})
        if self.kind == "disk":
            made.simulate(self.latency, 0)
        return made

    def begin(self, successor: bool = False) -> None:
        """A process with it, stopped before its thread's first instruction."""
        self._successor = successor
        self.fork()

    def work(self) -> None:
        made = self.device(self._successor)
        if self._successor:
            made.go_on()
        self.ready()
        made.run()

    def rest(self) -> None:
        """Goes on until it sleeps, having done all that there was to do; stopped again at the return."""
        self.go_on()
        self.stop()

    def follow(self, withheld: int = 0) -> None:
        """The next process, in this one; returns when it serves. `withheld`: offloads that it does not do, bits."""
        struct.pack_into("<I", self.memory["bell"], SLEEPING, 0)  # the dead one's word
        self._device = self.device(True)
        if withheld:
            self._device.withhold(withheld)
        self._thread = threading.Thread(target=self._device.run, daemon=True)
        self._thread.start()
        self._device.go_on()

    def end(self) -> None:
        if self._device is not None:
            self._device.stop()
            self._thread.join()
            self._device = None

    def ring(self) -> None:
        ring_bell(self.memory["bell"])
        for port in self.ports:
            ring_bell(self.memory[f"pair{port}"])

    def until_idle(self, answers: int) -> None:
        """Of the process that follows: until so many requests are answered, and it sleeps."""
        end = time.monotonic() + DEADLINE
        while self.answered(0).total() < answers or not struct.unpack_from("<I", self.memory["bell"], SLEEPING)[0]:
            assert time.monotonic() < end, f"{self.answered(0).total()} of {answers} answered"
            time.sleep(0.0002)

    # ---- the guest

    @staticmethod
    def _slots(ring: Ring, count: int) -> list[bytes]:
        first = ring.offset + 256
        return [ring.memory[first + at * 64 : first + at * 64 + 64] for at in range(count)]

    def _requests(self, port: int, queue: int) -> Ring:
        return Ring(self.memory[f"pair{port}"], abi.PAGE + queue * abi.channel_size(CAPACITY), CAPACITY)

    def _completions(self, port: int, queue: int) -> Ring:
        at = abi.PAGE + queue * abi.channel_size(CAPACITY) + abi.ring_size(CAPACITY)
        return Ring(self.memory[f"pair{port}"], at, CAPACITY)

    def ask(
        self, port: int, operation: str, numbers: Iterable[int], queue: int = 0, joined: int = 1, offset: bool = False,
        length: int = 0,
    ) -> None:
        """Requests with these numbers, each for a place of its own in memory and, with `offset`, on the disk; `joined`
        in a slot. `length`: bytes of each; 0: a sector, or the shortest frame."""
        length = length or (SECTOR if self.kind == "disk" else FRAME)
        slots, numbers = [], list(numbers)
        for at in range(0, len(numbers), joined):
            few = [(abi.make_id(one, 1), self.place(one, operation), length) for one in numbers[at : at + joined]]
            kind, key = abi.OPERATIONS[operation], self.keys[port]
            if joined > 1:
                slots.append(pack_joined([*few, *[(0, 0, 0)] * (3 - len(few))], port, kind, 0x80 | len(few), 0, key))
            else:
                where = (few[0][0], few[0][1], numbers[at] * SECTOR if offset else 0)
                slots.append(REQUEST.pack(*where, GENERATION, 0, length, 0, port, kind, 0, 0, key))
        self._requests(port, queue).push(*slots)

    @staticmethod
    def place(number: int, operation: str) -> int:
        return number * SECTOR + (BUFFERS if operation in ("receive", "read") else 0)

    def fill(self, numbers: Iterable[int]) -> None:
        """What the requests with these numbers send or write: frames to the second endpoint, or sectors."""
        for number in numbers:
            frame = MAC[1] + MAC[0] + b"\x88\xb5" + bytes([number])
            data = bytes([number]) * SECTOR if self.kind == "disk" else frame
            self.memory["memory"][number * SECTOR : number * SECTOR + len(data)] = data

    def answered(self, port: int, queue: int = 0) -> Counter[int]:
        """Everything that was ever shown there: how often each number. A run of several names its last: those before
        it are the first ones that were not answered yet, as they were asked for."""
        ring = self._completions(port, queue)
        left = list(range(1, CAPACITY))
        found: Counter[int] = Counter()
        slots = self._slots(ring, ring.tail())
        shown = self.shown.get((port, queue), [])
        assert slots[: len(shown)] == shown, "what was shown is shown again, or otherwise"
        for slot in slots:
            identity, _, status, reason, _, before = COMPLETION.unpack(slot)
            assert (status, reason) == (abi.STATUSES["ok"], 0), (status, reason)
            for one in [*left[:before], abi.slot_of(identity)]:
                found[one] += 1
                if one in left:
                    left.remove(one)
        return found

    def sent(self) -> list[int]:
        """Numbers of the frames that have left by the wire."""
        while True:
            try:
                self.gone.append(self.near.recv(70000)[8 + 14])  # behind the header of the tunnel, and the frame's own
            except BlockingIOError:
                return self.gone

    def received(self) -> list[int]:
        """Numbers of the frames that the second endpoint was shown, in the order of its buffers."""
        count = self.answered(1, 1).total()
        memory = self.memory["memory"]
        return [memory[self.place(number, "receive") + 14] for number in range(1, count + 1)]

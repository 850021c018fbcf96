"""Guests of the benchmarks: load generators over the driver library that users' guests use.

`serve` obeys a benchmark: it connects to the socket in its program folder (tools/bench/crew.py has the other end),
makes the generators of its endpoints, and answers one command after the other with what it did and what it verified. A
benchmark can so measure many short windows, each begun at one instant in all guests, without a start in between.
"""

from __future__ import annotations

import select
import time
import traceback
from typing import Any

from hostd.wire import Message, Wire, error_reply
from partitions import load_chaos, load_large, load_tcp
from partitions.guest import Guest
from pyx import abi, esp, load
from pyx.baseline import compute
from pyx.disk_load import DiskLoad
from pyx.frame_load import FrameReceiver, FrameSender

SOCKET = "control.sock"
FOLLOW_SECONDS = 0.002  # between two looks at the path in force
LOOK = 0.02  # seconds of computing between two looks for the next command
ETHERTYPE = b"\x88\xb5"  # for experiments in one network (IEEE 802)


class Generators:
    """What one guest can do for a benchmark: a method for each command."""

    def __init__(self, guest: Guest, wire: Wire) -> None:
        self.guest = guest
        self.wire = wire
        self._disk: DiskLoad | None = None
        self._sender: FrameSender | None = None
        self._receiver: FrameReceiver | None = None
        self._tcp: load_tcp.GuestTcp | None = None
        self._chaos: load_chaos.Chaos | None = None

    def open_disk(self, bytes_in_flight: int, seed: int = 1, name: str = "vda") -> dict[str, Any]:
        disk = self.guest.disk(name)
        buffer = self.guest.memory.allocate(bytes_in_flight)
        self._disk = DiskLoad(disk.queue, buffer, disk.capacity, seed)
        return {"size": disk.capacity, "capacity": disk.queue.capacity}

    def open_sender(
        self, size: int, to: str, number: int = 0, name: str = "eth0", behind: str = ETHERTYPE.hex()
    ) -> dict[str, Any]:
        """For frames of at most `size` bytes to the MAC address `to`; `behind` both addresses stands that, in hex."""
        nic = self.guest.nic(name)
        buffer = self.guest.memory.allocate(nic.transmit.capacity * frame_stride(size))
        header = bytes.fromhex(to.replace(":", "")) + nic.mac + bytes.fromhex(behind)
        self._sender = FrameSender(nic.transmit, buffer, header, number)
        return {"capacity": nic.transmit.capacity}

    def open_receiver(self, size: int, name: str = "eth0", header: int = 14) -> dict[str, Any]:
        nic = self.guest.nic(name)
        buffer = self.guest.memory.allocate(nic.receive_queue.capacity * frame_stride(size))
        self._receiver = FrameReceiver(nic.receive_queue, buffer, frame_stride(size), header)
        return {"capacity": nic.receive_queue.capacity}

    def associate(self, way: list[Any], key: str, name: str = "eth0") -> dict[str, Any]:
        """Orders a security association, without a proof: that needs receive buffers, and those are the generator's."""
        order = esp.order(*way, key=bytes.fromhex(key))
        room = self.guest.memory.allocate(len(order))
        room[:] = order
        self.guest.nic(name).send_many([room], abi.OPERATIONS["associate"])
        return {}

    def open_api_sender(self, size: int, to: str, large: bool) -> dict[str, Any]:
        """For frames through the guest's API (load_large.py)."""
        self._api_sender = load_large.Sender(self.guest, size, to, large)
        return {}

    def open_api_receiver(self, size: int, headed: bool) -> dict[str, Any]:
        self._api_receiver = load_large.Receiver(self.guest, size, headed, "eth0")
        return {}

    def api_send(self, seconds: float, start: int) -> dict[str, Any]:
        return self._api_sender.run(seconds, start)

    def api_receive(self, patience: float) -> dict[str, Any]:
        return self._api_receiver.run(patience)

    def tcp_listen(self) -> dict[str, Any]:
        """Load at the TCP of the NIC (load_tcp.py); whoever listens or first speaks there opens it."""
        self._ends().listen()
        return {}

    def tcp_receive(self) -> dict[str, Any]:
        return self._ends().receive()

    def tcp_send(self, **given: Any) -> dict[str, Any]:
        return self._ends().send(**given)

    def tcp_accept(self) -> dict[str, Any]:
        return self._ends().accept()

    def tcp_dial(self, **given: Any) -> dict[str, Any]:
        return self._ends().dial(**given)

    def _ends(self) -> load_tcp.GuestTcp:
        if self._tcp is None:
            self._tcp = load_tcp.GuestTcp(self.guest)
        return self._tcp

    def chaos_open(self, **given: Any) -> dict[str, Any]:
        """Load that is checked whatever dies meanwhile (load_chaos.py)."""
        self._chaos = load_chaos.Chaos(self.guest, **given)
        return {"mac": self._chaos.frames.nic.mac.hex()}

    def chaos_run(self, **given: Any) -> dict[str, Any]:
        """Until the next command comes."""
        assert self._chaos is not None
        return self._chaos.run(over=self._told, **given)

    def chaos_finish(self, **given: Any) -> dict[str, Any]:
        assert self._chaos is not None
        return self._chaos.finish(**given)

    def discover(self, count: int, first: int) -> dict[str, float]:
        """Seconds of a first and of a second look at each of `count` functions from page `first` on, which are not
        there."""
        took = []
        for _ in range(2):
            begin = time.perf_counter()
            self.guest.hardware.look(first, count)
            took.append((time.perf_counter() - begin) / count)
        return {"first": took[0], "again": took[1]}

    def disk(self, op: str, timed: bool = False, **given: Any) -> dict[str, Any]:
        assert self._disk is not None
        result = self._disk.run(abi.OPERATIONS[op], timed=timed, **given)
        return {**result, **_latency(timed, self._disk)}

    def send(self, size: int, timed: bool = False, finish: bool = True, **given: Any) -> dict[str, Any]:
        """One window of frames, then word to a receiver that listens (`finish`) that there are no more."""
        assert self._sender is not None
        result = self._sender.run(size, timed=timed, **given)
        return {**result, **_latency(timed, self._sender), "finished": finish and self._sender.finish(size)}

    def receive(self, size: int, timed: bool = False, **given: Any) -> dict[str, Any]:
        assert self._receiver is not None
        result = self._receiver.run(size, timed=timed, **given)
        return {**result, **_latency(timed, self._receiver)}

    def follow(self, path: str, seconds: float, name: str) -> dict[str, Any]:
        """Serves an endpoint until it is on `path`, for at most `seconds`; which one it is on then."""
        end = time.monotonic() + seconds
        while self.guest.paths[name].path != path and time.monotonic() < end:
            load.follow(self.guest.queues(name)[0], FOLLOW_SECONDS)
        return {"path": self.guest.paths[name].path}

    def compute(self) -> dict[str, Any]:
        """Does nothing but compute, until the next command comes."""
        while not self._told():
            compute(LOOK)
        return {}

    def _told(self, seconds: float = 0.0) -> bool:
        """Has another command come, or does it within so long?"""
        return bool(select.select([self.wire], [], [], seconds)[0])

    def sleeps(self) -> dict[str, Any]:
        """How often this guest has slept."""
        return {"sleeps": load.sleeps(self.guest.queues(self.guest.endpoints[0])[0])}

    def counts(self) -> dict[str, Any]:
        """What the drivers of this guest counted, to be compared with the host's metrics."""
        return self.guest.counts()


def serve(guest: Guest) -> None:
    """Until the benchmark closes its end."""
    with Wire.connect(SOCKET) as wire:
        generators = Generators(guest, wire)
        wire.send({"name": guest.name})
        while True:
            try:
                message, _ = wire.receive()
            except EOFError:
                return
            wire.send(_answer(generators, message))


def _answer(generators: Generators, message: Message) -> Message:
    try:
        return {"result": getattr(generators, message["command"])(**message["arguments"])}
    except Exception:
        return error_reply(None, "internal", traceback.format_exc())


def _latency(timed: bool, generator: DiskLoad | FrameSender | FrameReceiver) -> dict[str, Any]:
    return {"latency": generator.latency.document()} if timed else {}


def idle(guest: Guest) -> None:
    """Opens its endpoints, does one request on each, and then nothing."""
    vda = guest.disk("vda")
    buffer = guest.memory.allocate(4096)
    vda.read_into(buffer, 0)
    guest.nic("eth0").receive(0)
    guest.sleep()


def frame_stride(size: int) -> int:
    """Frames lie on cache lines of their own."""
    return (size + 63) // 64 * 64

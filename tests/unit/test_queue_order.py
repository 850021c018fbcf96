"""A flow keeps its order when other queue pairs are used: each place that sees to it, by itself (the steps:
hostd/nic_queues.py; tests/system/test_queues.py has all of them together under load)."""

from __future__ import annotations

import asyncio
import mmap
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hostd import nic_queues
from hostd.nic_queues import NicQueues
from pyx import abi, offload
from pyx.monitor import Monitor
from pyx.statistics import initialize
from pyx.tap_link import Link
from pyx.tap_pump import TapPump
from tests.framework.build import build_c
from tests.framework.driver import segment
from tests.framework.near import GENERATION, MAC, PORT, Near, near
from tests.framework.office_rig import EPOCH, Rig
from tests.framework.packets import frame
from tests.framework.run import run
from tests.framework.stepping import HEAD, Ring
from tests.framework.switch import TUNNEL, Cable, Switch, until

DEADLINE = 10.0
PAIRS = 2
MANY = 40  # more than a pump takes of one pair at once
BUFFERS, STRIDE = 48, 2048
STATION = "02:00:00:00:0a:01"
SERVER = abi.make_id(0, 1)
CAPACITY = 16  # of hardware rings
EPOCH_AT = 32  # of a request on such a ring (struct pv_dma_request)
#: a source port whose flow goes to the second one of two pairs
SOURCE = next(
    port for port in range(5000, 6000)
    if offload.queue_of(offload.flow_of(bytes(frame(b"", protocol="udp", ports=(port, 7)))), PAIRS) == 1
)  # fmt: skip


def numbered(number: int) -> bytes:
    return bytes(frame(b"%04d" % number, protocol="udp", source=STATION, to=MAC, ports=(SOURCE, 7)))


def numbers(frames: Sequence[bytes]) -> list[int]:
    return [int(bytes(one)[42:46]) for one in frames]


def spread(switch: Switch, pairs: int) -> None:
    """Without looking whether all was taken."""
    switch.nic.hold_flows(PORT, DEADLINE)
    switch.nic.spread_flows(PORT, pairs)


def hand_out(switch: Switch, cable: Cable) -> None:
    """Frames of one flow: MANY by the first pair, then one by the second; all are there before anybody looks."""
    spread(switch, 1)
    for number in range(MANY):
        switch.send(cable, numbered(number))
    spread(switch, 2)
    switch.send(cable, numbered(MANY))


def test_nothing_is_delivered_while_flows_are_held_and_nothing_changes_before_all_was_taken(switch: Switch) -> None:
    with near(switch, PAIRS) as guest:
        cable = switch.cable()
        for end in guest.ends:
            end.open(BUFFERS, 256)
        spread(switch, 1)
        for number in range(3):
            switch.send(cable, numbered(number))
        switch.nic.hold_flows(PORT, DEADLINE)
        assert not switch.nic.flows_taken(PORT)
        cable.near.send(TUNNEL + numbered(3))
        time.sleep(0.05)  # in which it would arrive
        assert numbers(guest.ends[0].arrived()) == [0, 1, 2]
        assert switch.nic.flows_taken(PORT)
        switch.nic.spread_flows(PORT, 2)
        found: list[bytes] = []
        until(lambda: bool(found.extend(map(bytes, guest.ends[1].arrived())) or found))
        assert numbers(found) == [3] and guest.ends[0].arrived() == []


def test_who_comes_too_late_changes_nothing(switch: Switch) -> None:
    """The device goes on by itself, so what was looked at before says nothing any more."""
    with near(switch, PAIRS):
        switch.nic.hold_flows(PORT, 0.0)
        with pytest.raises(TimeoutError):
            switch.nic.spread_flows(PORT, 1)
        assert switch.nic.flows(PORT) == {"made": PAIRS, "queues": PAIRS}
        switch.nic.spread_flows(PORT, PAIRS)  # ends the wait


@contextmanager
def served(switch: Switch) -> Iterator[SimpleNamespace]:
    """A channel server at the switch: `requests`, `completions` and `kernel`, the region, are its memory."""
    counters, histograms = abi.STATISTICS_SHAPES["monitor"]
    size = abi.statistics_size(1, counters, histograms)
    sizes = (abi.ring_size(CAPACITY), abi.ring_size(CAPACITY), abi.bell_size(), abi.kernel_size(), size)
    ring, answers, bell, kernel, statistics = map(segment, sizes)
    initialize(statistics, "monitor", 1)
    events = os.eventfd(0)
    Monitor(bell, statistics, size, True, kernel_fd=kernel, event_fd=events)  # begins the kernel region
    with mmap.mmap(ring, 0) as requests, mmap.mmap(answers, 0) as completions, mmap.mmap(kernel, 0) as region:
        switch.nic.connect_kernel(kernel)
        yield SimpleNamespace(
            requests=requests, completions=completions, kernel=region,
            connect=lambda: switch.nic.connect(SERVER, ring, answers, CAPACITY, bell),
        )  # fmt: skip
        switch.nic.disconnect(SERVER)
        switch.nic.disconnect_kernel()
    for fd in (ring, answers, bell, kernel, statistics, events):
        os.close(fd)


def test_what_a_channel_server_has_not_taken_is_under_way(switch: Switch) -> None:
    """On paths through one: an answer that lies on the hardware ring is not the guest's yet."""
    with near(switch, PAIRS), served(switch) as server:
        server.connect()
        Ring(server.requests, capacity=CAPACITY).push(bytes(64))  # of no life of its port: refused
        with switch.nic.quiet():
            pass  # wakes it
        until(lambda: Ring(server.completions, capacity=CAPACITY).tail() == 1)
        switch.nic.hold_flows(PORT, DEADLINE)
        assert not switch.nic.flows_taken(PORT)
        struct.pack_into("<Q", server.completions, HEAD, 1)
        assert switch.nic.flows_taken(PORT)
        switch.nic.spread_flows(PORT, PAIRS)


def test_what_stands_on_a_ring_waits_for_what_a_dead_device_had_taken(switch: Switch, build_dir: Path) -> None:
    """That comes again under the next epoch, so nothing of the epoch before overtakes it."""
    epochs = run(build_c(["ring/offsets.c"], into=build_dir), deadline=10).values()["epochs"]
    with served(switch) as server:
        struct.pack_into("<Q", server.kernel, epochs, EPOCH)
        ring, answers = (Ring(memory, capacity=CAPACITY) for memory in (server.requests, server.completions))
        switch.nic.succeed()
        server.connect()
        switch.nic.go_on()
        request = bytearray(64)
        struct.pack_into("<Q", request, EPOCH_AT, EPOCH)
        ring.push(bytes(request))
        ends = switch.cable(), switch.cable()
        switch.send(ends[0], numbered(0))  # in a later turn than the one that found the request
        switch.send(ends[1], numbered(0))
        assert struct.unpack_from("<Q", server.requests, HEAD)[0] == answers.tail() == 0
        struct.pack_into("<Q", server.kernel, epochs, EPOCH + 1)
        with switch.nic.quiet():
            pass  # wakes it
        until(lambda: answers.tail() == 1)
        assert struct.unpack_from("<Q", server.requests, HEAD)[0] == 1


def test_a_flow_waits_for_its_pair(switch: Switch) -> None:
    """A device that follows another one gets the pairs of a NIC one after the other."""
    with near(switch, PAIRS, attached=1) as guest:
        cable = switch.cable()
        guest.ends[0].open(BUFFERS, 256)
        cable.near.send(TUNNEL + numbered(0))
        time.sleep(0.02)  # in which it would arrive
        assert guest.ends[0].arrived() == []
        guest.attach()
        guest.ends[1].open(BUFFERS, 256)
        found: list[bytes] = []
        until(lambda: bool(found.extend(map(bytes, guest.ends[1].arrived())) or found))
        assert numbers(found) == [0]


def test_a_driver_takes_all_of_a_pair_before_the_next(switch: Switch) -> None:
    with near(switch, PAIRS) as guest:
        guest.nic.open(BUFFERS, 256)
        hand_out(switch, switch.cable())
        found = []
        for _ in range(MANY + 1):
            buffer = guest.nic.receive(DEADLINE)
            assert buffer is not None
            found.append(bytes(buffer))
            guest.nic.release(buffer)
        assert numbers(found) == list(range(MANY + 1))


@contextmanager
def pumping(guest: Near, links: list[Link], cable: Cable, switch: Switch) -> Iterator[None]:
    pump = TapPump(guest.partition.waiter, links)
    thread = threading.Thread(target=pump.run)
    thread.start()
    try:
        yield
    finally:
        pump.stop()
        switch.send(cable, bytes(frame(b"", source=STATION, to="ff:ff:ff:ff:ff:ff")))  # wakes it
        thread.join()


def test_a_pump_writes_all_of_a_pair_before_the_next(switch: Switch) -> None:
    with near(switch, PAIRS) as guest:
        cable = switch.cable()
        taps = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) for _ in range(PAIRS)]
        ours = [tap.fileno() for tap, _ in taps]
        room = guest.memory.allocate
        links = [
            Link(*queues, ours, number, room(4 * STRIDE), room(BUFFERS * STRIDE), STRIDE, STRIDE)
            for number, queues in enumerate(guest.queues)
        ]
        with pumping(guest, links, cable, switch):
            until(lambda: all(queues[1].in_flight == BUFFERS for queues in guest.queues))
        hand_out(switch, cable)
        found: list[bytes] = []
        with pumping(guest, links, cable, switch):
            until(lambda: len([found.extend(waiting(far)) for _, far in taps]) > 0 and len(udp(found)) > MANY)
        assert numbers(udp(found)) == list(range(MANY + 1))
        for pair in taps:
            for end in pair:
                end.close()


def udp(frames: Sequence[bytes]) -> list[bytes]:
    return [one for one in frames if one[23] == socket.IPPROTO_UDP]


def waiting(far: socket.socket) -> list[bytes]:
    found = []
    while True:
        try:
            found.append(far.recv(STRIDE))
        except BlockingIOError:
            return found


@pytest.fixture
def server(build_dir: Path) -> Iterator[Rig]:
    """Serves a queue of frames on the copy path."""
    rig = Rig(run(build_c(["ring/offsets.c"], into=build_dir), deadline=10).values()["terms"], receives=True)
    try:
        rig.take_over(EPOCH, 0)
        rig.go_over("copy")
        yield rig
    finally:
        rig.close()


def test_what_the_monitor_still_copies_is_not_taken(server: Rig) -> None:
    """The device has done its part, and the monitor empties the server's buffer into the guest's: in between it lies on
    no ring, and is not the guest's yet."""
    office = server.office
    assert office is not None and office.taken(0)
    server.ask(range(1, 2))
    server.ring(0)
    call = server.called()
    assert call[10] == abi.CALLS["submit"] and office.taken(0), "a buffer that waits for a frame holds nobody up"
    server.reply(call, by_device=True)
    call = server.called()
    assert call[10] == abi.CALLS["copy"] and not office.taken(0)
    tail = server.completions.tail()
    server.reply(call)
    until(lambda: server.completions.tail() == tail + 1)
    assert not office.taken(0), "it lies on the guest's ring"
    server.completions.take()
    assert office.taken(0)


class Journey(NicQueues):
    """A frame on its way to a guest through a channel server; `steps` further after the first question of a look."""

    PLACES = ("device", "server", "guest")

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: str, steps: int) -> None:
        self.at, self._steps = self.PLACES.index(at), steps
        self.fabric = SimpleNamespace(devices={"nic0": None}, taken=self._server)  # type: ignore[assignment]
        monkeypatch.setattr(nic_queues, "ask", self._device)
        self.record: Any = SimpleNamespace(name="guest", attached=True, served={GENERATION: [0]})
        self.pairs = [{"device": "nic0", "port": PORT, "server": "io-a", "generation": GENERATION}]

    def _asked(self, place: str) -> bool:
        taken = self.PLACES[self.at] != place
        self.at, self._steps = min(self.at + self._steps, 2), 0
        return taken

    async def _device(self, _record: Any, op: str, message: dict[str, Any]) -> dict[str, Any]:
        assert (op, message) == ("flows_taken", {"port": PORT})
        return {"taken": self._asked("device")}

    async def _server(self, _server: str, _numbers: list[int]) -> bool:
        return self._asked("server")

    def taken(self) -> bool:
        return asyncio.run(self._taken(self.record, self.pairs))


@pytest.mark.parametrize("steps", range(3))
@pytest.mark.parametrize("at", Journey.PLACES)
def test_a_frame_that_moves_between_two_questions_is_seen(monkeypatch: pytest.MonkeyPatch, at: str, steps: int) -> None:
    """Who asks the channel server first misses what the device gives it then (hostd/nic_queues.py)."""
    journey = Journey(monkeypatch, at, steps)
    assert not journey.taken() or Journey.PLACES[journey.at] == "guest"
    journey.at = Journey.PLACES.index("guest")
    assert journey.taken()

"""Descriptors, sockets and pipes of the simulated host: numbers that the code under test passes around and closes.

Messages take a seeded time, in order on each socket; what was not sent when its sender died is lost, and what was sent
arrives, as with the kernel's. Whoever closes what is not open, or forgets to close, is found.
"""

from __future__ import annotations

import itertools
import struct
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hostd.wire import Message, WireError, decode

if TYPE_CHECKING:
    from tests.simulation.world import World

FIRST = 1 << 24  # descriptors of this world begin here: no real one does


class Descriptors:
    """Open ones of hostd: number -> what is behind it."""

    def __init__(self) -> None:
        self.open: dict[int, Any] = {}
        self._numbers = itertools.count(FIRST)
        self.faults: list[str] = []

    def new(self, thing: Any) -> int:
        number = next(self._numbers)
        self.open[number] = thing
        return number

    def dup(self, number: int) -> int:
        thing = self.open[number]
        if isinstance(thing, Socket):
            thing.holders += 1
        return self.new(thing)

    def close(self, number: int) -> None:
        thing = self.open.pop(number, None)
        if thing is None:
            self.faults.append(f"descriptor {number - FIRST} is closed twice")
        elif isinstance(thing, Socket):
            thing.drop()


class Socket:
    """One end. `owner` is the process that has it; None: hostd, or nobody yet."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.peer: Socket = self
        self.owner: Any = None
        self.number = -1
        self.inbox: deque[tuple[bytes, list[Any]]] = deque()
        self.ended = False  # the peer has closed, and everything before that has arrived
        self.closed = False
        self.holders = 1  # descriptors of it, in whichever process or message
        self._clear_at = 0.0  # nothing that is sent now arrives before

    # ---- as socket.socket has it

    def fileno(self) -> int:
        if self.number < 0:
            self.number = self.world.descriptors.new(self)
        return self.number

    def setblocking(self, _flag: bool) -> None:
        pass

    def getsockopt(self, *_: Any) -> bytes:
        return struct.pack("3i", 2, 0, 0)

    def close(self) -> None:
        if self.number >= 0 and self.number in self.world.descriptors.open:
            self.world.descriptors.open.pop(self.number)
            self.drop()
        elif self.number < 0:
            self.drop()

    # ---- what the kernel does

    def drop(self) -> None:
        """One descriptor less."""
        self.holders -= 1
        if self.holders == 0:
            self.shut()

    def shut(self) -> None:
        if not self.closed:
            self.closed = True
            self.inbox.clear()
            self._later(self.peer.end)

    def send(self, data: bytes, things: list[Any]) -> None:
        if self.closed or self.peer.closed:
            raise WireError("the peer has closed its end")
        for thing in things:
            if isinstance(thing, Socket):
                thing.holders += 1
        self._later(lambda: self.peer.arrive(data, things))

    def _later(self, act: Any) -> None:
        self._clear_at = max(self._clear_at, self.world.loop.now + self.world.chance.delay())
        self.world.loop.call_at(self._clear_at, act)

    def arrive(self, data: bytes, things: list[Any]) -> None:
        if not self.closed:
            self.inbox.append((data, things))
            self.wake()

    def end(self) -> None:
        self.ended = True
        self.wake()

    def wake(self) -> None:
        if self.owner is not None:
            self.owner.look()
        elif self.number in self.world.loop.readers:
            self.world.loop.call_soon(self.world.ready, self.number)


def pair(world: World) -> tuple[Socket, Socket]:
    one, other = Socket(world), Socket(world)
    one.peer, other.peer = other, one
    return one, other


def send_packet(sock: Socket, data: bytes, descriptors: Sequence[int]) -> None:
    """In the place of hostd.wire.send_packet."""
    known = sock.world.descriptors
    for number in descriptors:
        if number >= FIRST and number not in known.open:
            # With the kernel it may be another one's number by now: then that is what the peer gets.
            known.faults.append(f"descriptor {number - FIRST} is sent, and was closed before: {data[:60]!r}")
            raise WireError("message not sent: Bad file descriptor")
    # A real one is a memory object that hostd has written for the next hostd, of which there is none here.
    sock.send(data, [known.open[number] if number >= FIRST else "memory" for number in descriptors])


def receive_packet(sock: Socket) -> tuple[Message, list[int]]:
    """In the place of hostd.wire.receive_packet."""
    if sock.inbox:
        data, things = sock.inbox.popleft()
        return decode(data), [sock.world.descriptors.new(thing) for thing in things]
    if sock.ended:
        raise EOFError("the peer has closed its end")
    raise BlockingIOError

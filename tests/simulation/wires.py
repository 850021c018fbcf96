"""Descriptors, sockets and pipes of the simulated host: numbers that the code under test passes around and closes.

Messages take a seeded time, in order on each socket; what was not sent when its sender died is lost, and what was sent
arrives, as with the kernel's. Whoever closes what is not open, or forgets to close, is found.
"""

from __future__ import annotations

import itertools
import os
import struct
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hostd.wire import Message, WireError, decode
from tests.simulation.clock import LIFE

if TYPE_CHECKING:
    from tests.simulation.world import World

FIRST = 1 << 24  # descriptors of this world begin here: no real one does


class Memory(bytes):
    """What was in a memory object when it was sent."""


class Descriptors:
    """Open ones: number -> what is behind it. Those of a hostd end with it."""

    def __init__(self) -> None:
        self.open: dict[int, Any] = {}
        self._lives: dict[int, int] = {}  # whose they are
        self._numbers = itertools.count(FIRST)
        self.faults: list[str] = []

    def new(self, thing: Any) -> int:
        number = next(self._numbers)
        self.open[number] = thing
        if LIFE.get():
            self._lives[number] = LIFE.get()
        return number

    def end(self, life: int) -> None:
        """A hostd has died."""
        for number in [number for number, owner in self._lives.items() if owner == life and number in self.open]:
            self.close(number)

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
        if self.world.ghost():
            return
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
            while self.inbox:
                drop(self.inbox.popleft()[1])
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
        self.world.at(self._clear_at, act)

    def arrive(self, data: bytes, things: list[Any]) -> None:
        if self.closed:
            drop(things)
        else:
            self.inbox.append((data, things))
            self.wake()

    def end(self) -> None:
        self.ended = True
        self.wake()

    def wake(self) -> None:
        if self.owner is not None:
            self.owner.look()
        elif self.number in self.world.loop.readers:
            self.world.soon(self.world.ready, self.number)


def drop(things: list[Any]) -> None:
    """They were sent, and nobody takes them."""
    for thing in things:
        if isinstance(thing, Socket):
            thing.drop()


def pair(world: World) -> tuple[Socket, Socket]:
    one, other = Socket(world), Socket(world)
    one.peer, other.peer = other, one
    return one, other


def send_packet(sock: Socket, data: bytes, descriptors: Sequence[int]) -> None:
    """In the place of hostd.wire.send_packet."""
    known = sock.world.descriptors
    if sock.world.step():
        return
    for number in descriptors:
        if number >= FIRST and number not in known.open:
            # With the kernel it may be another one's number by now: then that is what the peer gets.
            known.faults.append(f"descriptor {number - FIRST} is sent, and was closed before: {data[:60]!r}")
            raise WireError("message not sent: Bad file descriptor")
    sock.send(data, [known.open[number] if number >= FIRST else _memory(number) for number in descriptors])
    sock.world.step()


def _memory(number: int) -> Memory:
    """A real descriptor is that of a memory object, which hostd has written for the next hostd."""
    return Memory(os.pread(number, os.fstat(number).st_size, 0))


def _received(world: World, thing: Any) -> int:
    if not isinstance(thing, Memory):
        return world.descriptors.new(thing)
    number = os.memfd_create("note", os.MFD_CLOEXEC)
    os.pwrite(number, thing, 0)
    return number


def receive_packet(sock: Socket) -> tuple[Message, list[int]]:
    """In the place of hostd.wire.receive_packet."""
    if sock.world.step():
        raise BlockingIOError
    if sock.inbox:
        data, things = sock.inbox.popleft()
        received = decode(data), [_received(sock.world, thing) for thing in things]
        sock.world.step()
        return received
    if sock.ended:
        raise EOFError("the peer has closed its end")
    raise BlockingIOError

"""Connections of TCP that the device ends for this guest (A2, A5): data goes between its memory and the socket.

    tcp = guest.nic("eth0").tcp
    connection = tcp.connect("10.0.0.2", 80)
    connection.send(buffer[:100])
    count = connection.receive_into(buffer)   # 0: the peer sends no more

What a request waits for is its connection's affair: others go on. A server with many connections asks which have
something (`tcp.events`) and receives of those.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable
from typing import Self

from pyx import abi
from pyx.calls import RequestError
from pyx.memory import Buffer, Memory
from pyx.queue import ClientQueue

OPEN, SEND, RECEIVE, END = (abi.OPERATIONS[f"tcp_{name}"] for name in ("open", "send", "receive", "end"))
OK = abi.STATUSES["ok"]
TRANSFER_MAX = 65536  # bytes of one request: what an endpoint of a NIC may move at once
EVENTS_MAX = abi.PAGE // abi.TCP_EVENT  # told at once

Ending = tuple[int, int, int]  # status, reason, bytes


class Tcp:
    """The TCP of one NIC. RequestError `offload_withheld` where its connections are not granted."""

    def __init__(self, memory: Memory, name: str, queue: ClientQueue, shown: Callable[[], None]) -> None:
        self.name = name
        self._memory = memory
        self._queue = queue
        self._shown = shown  # the device has ended a connection
        self._tickets: dict[int, int] = {}  # of requests under way, by slot of the queue
        self._ticket = 0
        self._ended: dict[int, Ending] = {}  # by ticket: a slot is used again before its answer is taken
        self._open: dict[int, Connection] = {}
        self._numbers = [0] * abi.TCP_CONNECTIONS_MAX
        self._free = list(range(abi.TCP_CONNECTIONS_MAX - 1, -1, -1))
        self._addresses: list[Buffer] = []  # room for addresses, not in use
        self._events: tuple[int, Buffer] | None = None  # the request that asks, while it is under way

    def connect(self, address: str, port: int, timeout: float | None = None) -> Connection:
        """A connection to `address`. RequestError `connection_refused`, `connection_timeout`, `connection_route` where
        there is none; TimeoutError after `timeout` seconds."""
        connection = Connection(self, self._take())
        try:
            self._opened(connection, address, port, 0, timeout)
        except BaseException:
            connection.reset()
            raise
        return connection

    def listen(self, port: int, address: str = "0.0.0.0", backlog: int = 128) -> Listener:
        """Takes connections at `port` from now on; `address` "0.0.0.0" or "::": at all of the NIC's of that family."""
        listener = Listener(self, self._take())
        try:
            self._opened(listener, address, port, backlog, None)
        except BaseException:
            self._give(listener)
            raise
        return listener

    def events(self, timeout: float | None = None) -> list[Connection]:
        """Connections that have something to receive or have ended, and listeners that have somebody to accept; []
        after `timeout` seconds. Each is told once, and again after a receive of it."""
        if self._events is None:
            room = self._memory.allocate(EVENTS_MAX * abi.TCP_EVENT)
            self._events = (self._submit(RECEIVE, room, 0, abi.TCP_EVENTS), room)
        ticket, room = self._events
        try:
            size = self._finish(ticket, timeout, "events")
        except TimeoutError:
            return []
        words = bytes(room[:size])
        self._events = (self._submit(RECEIVE, room, 0, abi.TCP_EVENTS), room)
        return [self._open[one] for one in abi.tcp_events(words) if one in self._open]

    # ---- for connections ----

    def _opened(self, connection: Connection, address: str, port: int, backlog: int, timeout: float | None) -> None:
        place = ipaddress.ip_address(address)
        room = self._room()
        room[:] = abi.tcp_address(place.version, port, backlog, place.packed)
        try:
            ticket = self._submit(OPEN, room, connection.number, abi.TCP_LISTEN if backlog else 0)
            self._finish(ticket, timeout, f"{'listen at' if backlog else 'connect to'} {address}:{port}")
        except TimeoutError:
            room = self._memory.allocate(abi.TCP_ADDRESS)  # the device may still read the other one
            raise
        finally:
            self._addresses.append(room)
        self._shown()

    def _take(self) -> int:
        if not self._free:
            raise RequestError(abi.STATUSES["refused"], abi.REASONS["connection_limit"], f"{self.name}: connections")
        slot = self._free.pop()
        self._numbers[slot] = self._numbers[slot] % 0xFFFF + 1
        return slot | self._numbers[slot] << 16

    def _give(self, connection: Connection) -> None:
        if self._open.pop(connection.number, None) is not None:
            self._free.append(connection.number & 0xFFFF)

    def _room(self) -> Buffer:
        return self._addresses.pop() if self._addresses else self._memory.allocate(abi.TCP_ADDRESS)

    def _submit(self, operation: int, buffer: Buffer | None, offset: int, flags: int) -> int:
        while self._queue.in_flight == self._queue.capacity:
            self._collect(None)
        self._ticket += 1
        self._tickets[self._queue.submit(operation, buffer, offset, 0, flags)] = self._ticket
        self._queue.kick()
        return self._ticket

    def _collect(self, timeout: float | None) -> None:
        for slot, *ending in self._queue.wait(timeout):
            self.ended(slot, *ending)

    def ended(self, slot: int, status: int, reason: int, count: int) -> None:
        """An answer on the queue that this shares with the NIC's frames."""
        ticket = self._tickets.pop(slot, None)
        if ticket is not None:
            self._ended[ticket] = (status, reason, count)

    def _finish(self, ticket: int, timeout: float | None, what: str) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        while ticket not in self._ended:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError(f"{self.name}: {what}: not within {timeout} s")
            self._collect(left)
        status, reason, count = self._ended.pop(ticket)
        if status != OK:
            raise RequestError(status, reason, f"{self.name}: {what}")
        return count


class Connection:
    """One connection. After a TimeoutError its request is under way still: the same call, same buffer, waits on."""

    def __init__(self, tcp: Tcp, number: int) -> None:
        self.number = number
        self.peer: tuple[str, int] | None = None  # of an accepted one
        self._tcp = tcp
        self._under_way: dict[int, tuple[int, Buffer, int]] = {}  # by operation: ticket, buffer, bytes sent before it
        tcp._open[number] = self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, buffer: Buffer, timeout: float | None = None) -> None:
        """Returns once the socket has taken all of it: a peer that does not receive stops this connection. RequestError
        `connection_reset` where the peer takes no more."""
        done = 0
        while done < len(buffer) or SEND in self._under_way:
            part = buffer[done : done + TRANSFER_MAX]
            if SEND in self._under_way:
                done = self._under_way[SEND][2]
            done += self._request(SEND, part, done, 0, timeout)

    def receive_into(self, buffer: Buffer, timeout: float | None = None) -> int:
        """Bytes that came, at least one; 0: the peer sends no more."""
        return self._request(RECEIVE, buffer[: TRANSFER_MAX], 0, 0, timeout)

    def shutdown(self) -> None:
        """Tells the peer that nothing more is sent; receiving goes on."""
        self._end(abi.TCP_SHUTDOWN)

    def close(self) -> None:
        """Gives it up; what was sent still arrives. Nothing happens where it is closed already."""
        self._last(abi.TCP_CLOSE)

    def reset(self) -> None:
        """Gives it up, and the peer is told so."""
        self._last(abi.TCP_RESET)

    def _last(self, flag: int) -> None:
        if self._tcp._open.get(self.number) is not self:
            return
        try:
            self._end(flag)
        except RequestError as error:
            if error.reason != "connection_unknown":  # it never came to be
                raise
        finally:
            self._tcp._give(self)

    def _end(self, flag: int) -> None:
        ticket = self._tcp._submit(END, None, self.number, flag)
        self._tcp._finish(ticket, None, f"end {self.number:#x}")

    def _request(
        self, operation: int, buffer: Buffer, offset: int, flags: int, timeout: float | None, new: int = 0
    ) -> int:
        if operation not in self._under_way:
            ticket = self._tcp._submit(operation, buffer, self.number | new << 32, flags)
            self._under_way[operation] = (ticket, buffer, offset)
        what = f"{abi.OPERATION_NAMES[operation]} of {self.number:#x}"
        try:
            count = self._tcp._finish(self._under_way[operation][0], timeout, what)
        except TimeoutError:
            raise
        except BaseException:
            self._under_way.pop(operation, None)
            raise
        del self._under_way[operation]
        return count


class Listener(Connection):
    """Where connections come in."""

    _next: Connection  # the one that a request under way is for

    def accept(self, timeout: float | None = None) -> Connection:
        """The next connection; TimeoutError after `timeout` seconds."""
        if RECEIVE in self._under_way:
            connection = self._next
        else:
            connection = self._next = Connection(self._tcp, self._tcp._take())
        room = self._under_way[RECEIVE][1] if RECEIVE in self._under_way else self._tcp._room()
        try:
            self._request(RECEIVE, room, 0, abi.TCP_ACCEPT, timeout, connection.number)
        except TimeoutError:
            raise
        except BaseException:
            self._tcp._give(connection)
            raise
        packed, port = abi.tcp_peer(bytes(room))
        self._tcp._addresses.append(room)
        connection.peer = (str(ipaddress.ip_address(packed)), port)
        return connection

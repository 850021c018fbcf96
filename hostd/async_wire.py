"""The wire for asyncio: several requests outstanding, everything unasked to a callback.

Used by hostd only. It owns its socket and lives in one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Self

from hostd.wire import (
    Message,
    RemoteError,
    WireError,
    close_fds,
    encode,
    prepare,
    raise_error,
    receive_packet,
    send_packet,
)

BURST = 64  # messages taken per wake-up, so that one peer cannot keep the loop for itself
QUEUE_MAX = 1024  # messages kept for receive(); a peer that sends more unasked is cut off

Received = tuple[Message, list[int]]


class AsyncWire:
    """Like Wire. Messages that answer no open request go to `on_event`, or without one to receive().

    `on_event(message, fds)` and `on_close()` are called by the event loop; the callee owns the descriptors. Requests
    are numbered above `first`: on a wire that another process used before, no late reply to that one is taken.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_event: Callable[[Message, list[int]], None] | None = None,
        on_close: Callable[[], None] | None = None,
        first: int = 0,
    ) -> None:
        prepare(sock)
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self.on_event = on_event
        self.on_close = on_close
        self._seq = first
        self._open: dict[int, asyncio.Future[Received]] = {}
        self._unasked: deque[Received] = deque()
        self._readers: deque[asyncio.Future[None]] = deque()
        self._sending = asyncio.Lock()
        self.error: Exception | None = None
        self.closed: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(sock.fileno(), self._readable)

    @classmethod
    async def connect(
        cls,
        path: str | os.PathLike[str],
        on_event: Callable[[Message, list[int]], None] | None = None,
        on_close: Callable[[], None] | None = None,
    ) -> Self:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, os.fspath(path))
            return cls(sock, on_event, on_close)
        except BaseException:
            sock.close()
            raise

    @classmethod
    def from_fd(cls, descriptor: int, on_event: Callable[[Message, list[int]], None] | None = None) -> Self:
        """Takes over `descriptor`, which must be a connected socket."""
        return cls(socket.socket(fileno=descriptor), on_event)

    def fileno(self) -> int:
        return self._sock.fileno()

    async def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send whole or not at all; waits while the peer does not read. WireError if it never will."""
        data = encode(message)
        async with self._sending:
            while True:
                self._check_open()
                try:
                    return send_packet(self._sock, data, fds)
                except BlockingIOError:
                    await self._writable()
                except WireError:
                    self._readable()  # its last words, where it left any
                    self._check_open()
                    raise

    async def receive(self, timeout: float | None = None) -> Received:
        """The next message that answers no request. EOFError at the end, TimeoutError after `timeout` seconds."""
        async with asyncio.timeout(timeout):
            while not self._unasked:
                self._check_open()
                waiter = self._loop.create_future()
                self._readers.append(waiter)
                await waiter
        return self._unasked.popleft()

    async def request(
        self, message: Message, fds: Sequence[int] = (), timeout: float | None = 30.0
    ) -> Received:
        """The reply to `message` with its descriptors; RemoteError for an error reply, EOFError if the peer ends."""
        self._seq += 1
        seq = self._seq
        answer: asyncio.Future[Received] = self._loop.create_future()
        self._open[seq] = answer
        try:
            async with asyncio.timeout(timeout):
                await self.send({**message, "seq": seq}, fds)
                return await answer
        except BaseException as error:
            # The answer may have come in the same turn of the loop: nobody else would close its descriptors.
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                close_fds(answer.result()[1])
            if isinstance(error, TimeoutError):
                raise TimeoutError(f"no reply to {message.get('op')!r} within {timeout} s") from None
            raise
        finally:
            self._open.pop(seq, None)

    def close(self) -> None:
        """End the wire; open requests fail with EOFError."""
        self._end(EOFError("the wire was closed here"))
        while self._unasked:
            close_fds(self._unasked.popleft()[1])

    def _check_open(self) -> None:
        if self.error is not None:
            raise self.error

    async def _writable(self) -> None:
        waiter = self._loop.create_future()
        descriptor = self._sock.fileno()
        self._loop.add_writer(descriptor, _settle, waiter)
        try:
            await waiter
        finally:
            if self.error is None:
                self._loop.remove_writer(descriptor)

    def _readable(self) -> None:
        for _ in range(BURST):
            if self.error is not None:
                return
            try:
                message, fds = receive_packet(self._sock)
            except BlockingIOError:
                return
            except (EOFError, WireError, OSError) as error:
                self._end(error)
                return
            self._deliver(message, fds)

    def _deliver(self, message: Message, fds: list[int]) -> None:
        if "reply" in message:
            return self._answer(message, fds)
        if message.get("event") == "failed":  # a program that never came to serve (partitions/skeleton.py)
            close_fds(fds)
            return self._end(EOFError(str(message.get("message"))))
        if self.on_event is not None:
            return self.on_event(message, fds)
        if len(self._unasked) == QUEUE_MAX:
            close_fds(fds)
            return self._end(WireError(f"more than {QUEUE_MAX} messages that nobody asked for"))
        self._unasked.append((message, fds))
        self._wake_reader()
        return None

    def _answer(self, message: Message, fds: list[int]) -> None:
        seq = message.pop("reply")
        answer = self._open.pop(seq, None) if isinstance(seq, int) else None
        if answer is None or answer.done():  # late: the asker has given up
            return close_fds(fds)
        try:
            raise_error(message)
        except RemoteError as error:
            close_fds(fds)
            return answer.set_exception(error)
        return answer.set_result((message, fds))

    def _wake_reader(self) -> None:
        while self._readers:
            waiter = self._readers.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _end(self, error: Exception) -> None:
        if self.error is not None:
            return
        self.error = error
        descriptor = self._sock.fileno()
        self._loop.remove_reader(descriptor)
        self._loop.remove_writer(descriptor)
        self._sock.close()
        for answer in self._open.values():
            if not answer.done():
                answer.set_exception(EOFError(f"the peer ended before its reply: {error}"))
        self._open.clear()
        for waiter in self._readers:
            _settle(waiter)
        self._readers.clear()
        _settle(self.closed)
        if self.on_close is not None:
            with contextlib.suppress(Exception):
                self.on_close()


def _settle(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)

"""Messages between processes of one host: one JSON object per packet, with descriptors.

A wire is a connected Unix socket of type SOCK_SEQPACKET, so a message arrives whole or not at all and a reader
never has to find borders. A request is {"op": ..., "seq": n, ...}, its answer {"reply": n, ...} or
{"reply": n, "error": {"code", "message", "details"}}, and anything unasked {"event": ..., ...}. Messages are
bounded in size, descriptors in number, and both are refused with a reason at either end (rule 31).
`AsyncWire` is the same thing for asyncio; it lives in its own module so that the keeper does not load asyncio.
"""

from __future__ import annotations

import array
import json
import os
import select
import socket
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hostd.async_wire import AsyncWire

MESSAGE_MAX = 1 << 20  # bytes of one message: the largest list of a full host is a fifth of that
# Per message: channel and ledger of both queues of 32 NICs, and what else a partition has. The kernel's bound is 253.
DESCRIPTORS_MAX = 160
BUFFER = 4 << 20  # bytes on the way in one direction: a few of the largest messages
SO_SNDBUFFORCE = 32  # asm-generic/socket.h; Python does not name it
_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)  # json.dumps makes one a call
_CONTROL = socket.CMSG_SPACE(DESCRIPTORS_MAX * array.array("i").itemsize)

Message = dict[str, Any]


class WireError(Exception):
    """The peer or the caller broke a rule of the wire; the text says which one."""

    code = "unreachable"


class RemoteError(Exception):
    """An error reply: `code` as in hostd.errors.KINDS, `message` for people, `details` for programs."""

    def __init__(self, code: str, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details or {}


def error_reply(seq: Any, code: str, message: str, **details: Any) -> Message:
    return {"reply": seq, "error": {"code": code, "message": message, "details": details}}


def raise_error(reply: Message) -> None:
    """Raise RemoteError if `reply` carries an error, whatever its form."""
    error = reply.get("error")
    if error is None:
        return
    if not isinstance(error, dict):
        raise RemoteError("internal", f"malformed error reply: {str(error)[:200]}")
    details = error.get("details")
    raise RemoteError(
        str(error.get("code", "internal")),
        str(error.get("message", "no message")),
        details if isinstance(details, dict) else {},
    )


def encode(message: Message) -> bytes:
    """Bytes of one message. WireError if it is no JSON object or too long."""
    try:
        data = _ENCODER.encode(message).encode()
    except (TypeError, ValueError, RecursionError) as error:  # UnicodeEncodeError is a ValueError
        raise WireError(f"message cannot be sent as JSON: {error}") from error
    if len(data) > MESSAGE_MAX:
        raise WireError(f"message of {len(data)} bytes; at most {MESSAGE_MAX} are sent")
    return data


def decode(data: bytes) -> Message:
    """The message in `data`. WireError if it is not one JSON object."""
    try:
        message = json.loads(data.decode())  # of bytes it would look for other encodings
    except (ValueError, RecursionError) as error:
        raise WireError(f"message is not JSON: {error}") from error
    if not isinstance(message, dict):
        raise WireError(f"message is no JSON object but {type(message).__name__}")
    return message


def close_fds(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def prepare(sock: socket.socket) -> None:
    """Make room for the largest message; without CAP_NET_ADMIN the kernel's net.core.wmem_max bounds it."""
    if sock.type != socket.SOCK_SEQPACKET or sock.family != socket.AF_UNIX:
        raise WireError(f"a wire needs a Unix socket of type SOCK_SEQPACKET, not {sock}")
    sock.setblocking(False)
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, BUFFER)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)


def send_packet(sock: socket.socket, data: bytes, descriptors: Sequence[int]) -> None:
    """One try. BlockingIOError if the peer has not read enough, WireError where it can never succeed."""
    if len(descriptors) > DESCRIPTORS_MAX:
        raise WireError(f"message with {len(descriptors)} descriptors; at most {DESCRIPTORS_MAX} are sent")
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    try:
        sock.sendmsg([data], rights, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
    except (BrokenPipeError, ConnectionError) as error:
        raise WireError("the peer has closed its end") from error
    except BlockingIOError:
        raise
    except OSError as error:
        room = sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        raise WireError(
            f"message of {len(data)} bytes and {len(descriptors)} descriptors not sent: {error.strerror} "
            f"(socket buffer {room} bytes; net.core.wmem_max bounds it)"
        ) from error


def receive_packet(sock: socket.socket) -> tuple[Message, list[int]]:
    """One try. BlockingIOError if nothing is there, EOFError at the end, WireError for a broken message."""
    how = MESSAGE_MAX + 1, _CONTROL, socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
    try:
        data, ancillary, flags, _ = sock.recvmsg(*how)
    except ConnectionResetError:
        # The peer ended without reading everything; the kernel says so once, before the last messages of the peer.
        data, ancillary, flags, _ = sock.recvmsg(*how)
    descriptors = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    try:
        if flags & socket.MSG_CTRUNC:
            raise WireError(f"message with more than {DESCRIPTORS_MAX} descriptors, or no room for them here")
        if flags & socket.MSG_TRUNC or len(data) > MESSAGE_MAX:
            raise WireError(f"message longer than {MESSAGE_MAX} bytes")
        if not data:
            raise EOFError("the peer has closed its end")
        return decode(data), descriptors.tolist()
    except BaseException:
        close_fds(descriptors)
        raise


class Wire:
    """A wire for synchronous use. It owns `sock`; one thread at a time uses it."""

    def __init__(self, sock: socket.socket) -> None:
        prepare(sock)
        self.sock = sock
        self._seq = 0

    @classmethod
    def connect(cls, path: str | os.PathLike[str]) -> Wire:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.connect(os.fspath(path))
            return cls(sock)
        except BaseException:
            sock.close()
            raise

    @classmethod
    def from_fd(cls, descriptor: int) -> Wire:
        """Takes over `descriptor`, which must be a connected socket."""
        return cls(socket.socket(fileno=descriptor))

    def fileno(self) -> int:
        return self.sock.fileno()

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, message: Message, fds: Sequence[int] = (), timeout: float | None = None) -> None:
        """Send whole or not at all. `timeout` seconds (0: one try) for a peer that does not read, then WireError."""
        data = encode(message)
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                return send_packet(self.sock, data, fds)
            except BlockingIOError:
                if not self._wait(select.POLLOUT, deadline):
                    raise WireError(f"the peer did not take a message within {timeout} s") from None

    def receive(self, timeout: float | None = None) -> tuple[Message, list[int]]:
        """The next message and its descriptors, which the caller now owns. TimeoutError after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                return receive_packet(self.sock)
            except BlockingIOError:
                if not self._wait(select.POLLIN, deadline):
                    raise TimeoutError(f"no message within {timeout} s") from None

    def request(
        self, message: Message, fds: Sequence[int] = (), timeout: float | None = 30.0
    ) -> tuple[Message, list[int]]:
        """Send a request and wait for its reply; RemoteError if that is an error.

        For wires that nobody else reads: events and late replies of earlier requests are dropped here.
        """
        self._seq += 1
        deadline = None if timeout is None else time.monotonic() + timeout
        self.send({**message, "seq": self._seq}, fds, timeout)
        while True:
            rest = None if deadline is None else max(0.0, deadline - time.monotonic())
            reply, received = self.receive(rest)
            if reply.get("reply") == self._seq:
                try:
                    raise_error(reply)
                except RemoteError:
                    close_fds(received)
                    raise
                return reply, received
            close_fds(received)

    def _wait(self, events: int, deadline: float | None) -> bool:
        poll = select.poll()
        poll.register(self.sock, events)
        if deadline is None:
            return bool(poll.poll())
        return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets for a wire."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def __getattr__(name: str) -> Any:
    if name == "AsyncWire":
        from hostd.async_wire import AsyncWire

        return AsyncWire
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "DESCRIPTORS_MAX",
    "MESSAGE_MAX",
    "AsyncWire",
    "Message",
    "RemoteError",
    "Wire",
    "WireError",
    "close_fds",
    "decode",
    "encode",
    "error_reply",
    "pair",
    "prepare",
    "raise_error",
    "receive_packet",
    "send_packet",
]

"""A client of the network block device protocol, byte by byte: for what no real client would send.

Written from doc/proto.md of the NetworkBlockDevice project, without a look at the server.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from pathlib import Path

DEADLINE = 10.0
READ, WRITE, DISCONNECT, FLUSH, TRIM, CACHE, ZEROES, STATUS = range(8)
FUA, NO_HOLE, DONT_FRAGMENT, ONE = 1, 2, 4, 8
EPERM, EIO, EINVAL, ENOSPC, ESHUTDOWN = 1, 5, 22, 28, 108
GO, LIST, STRUCTURED, SET_CONTEXT = 7, 3, 8, 10
ACK, INFO, CONTEXT = 1, 3, 4


@dataclass
class Reply:
    """One whole reply; `kind`: None of a simple one, otherwise the type of its last chunk."""

    cookie: int
    error: int
    data: bytes = b""
    kind: int | None = None


class Client:
    """One connection. `transmit` brings it to the point where requests are taken."""

    def __init__(self, path: Path | str, greet: bool = True) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(DEADLINE)
        self.socket.connect(str(path))
        self.size = self.flags = 0
        self.structured = False
        self._cookie = 0
        self._lengths: dict[int, int] = {}
        if greet:
            magic, option, flags = struct.unpack(">8sQH", self.take(18))
            assert (magic, option, flags & 3) == (b"NBDMAGIC", 0x49484156454F5054, 3)
            self.send(struct.pack(">I", 3))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def take(self, count: int) -> bytes:
        """Exactly so many bytes. EOFError where the server closed before."""
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise EOFError(f"{len(data)} of {count} bytes, then the end")
            data += part
        return data

    def closed(self) -> bool:
        """Has the server closed, with nothing more to say?"""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def closed_now(self) -> bool:
        """Has the server closed by now, behind its greeting?"""
        self.socket.setblocking(False)
        try:
            while self.socket.recv(4096):
                pass
        except BlockingIOError:
            return False
        except ConnectionResetError:
            pass
        return True

    def option(self, option: int, body: bytes = b"") -> list[tuple[int, bytes]]:
        """All replies to one option: (type, data)."""
        self.send(struct.pack(">8sII", b"IHAVEOPT", option, len(body)) + body)
        replies = []
        while True:
            magic, told, kind, length = struct.unpack(">QIII", self.take(20))
            assert (magic, told) == (0x3E889045565A9, option)
            replies.append((kind, self.take(length)))
            if kind == ACK or kind & 1 << 31:
                return replies

    def transmit(self, name: str = "", structured: bool = True, context: bool = True) -> Client:
        if structured:
            assert self.option(STRUCTURED) == [(ACK, b"")]
            self.structured = True
        encoded = name.encode()
        if structured and context:
            query = b"base:allocation"
            body = struct.pack(">I", len(encoded)) + encoded + struct.pack(">II", 1, len(query)) + query
            assert [kind for kind, _ in self.option(SET_CONTEXT, body)] == [CONTEXT, ACK]
        told = self.option(GO, struct.pack(">I", len(encoded)) + encoded + struct.pack(">H", 0))
        assert told[-1][0] == ACK, told
        for kind, data in told:
            if kind == INFO and data[:2] == b"\0\0":
                self.size, self.flags = struct.unpack(">QH", data[2:])
        return self

    def ask(self, command: int, offset: int = 0, length: int = 0, data: bytes = b"", flags: int = 0) -> int:
        """Sends a request; its cookie."""
        self._cookie += 1
        self._lengths[self._cookie] = length if command == READ else 0
        self.send(struct.pack(">IHHQQI", 0x25609513, flags, command, self._cookie, offset, length) + data)
        return self._cookie

    def hear(self) -> Reply:
        """The next reply, whichever request it belongs to."""
        (magic,) = struct.unpack(">I", self.take(4))
        if magic == 0x67446698:
            error, cookie = struct.unpack(">IQ", self.take(12))
            return Reply(cookie, error, b"" if error else self.take(self._lengths.pop(cookie)))
        assert magic == 0x668E33EF and self.structured, f"{magic:#x}"
        flags, kind, cookie, length = struct.unpack(">HHQI", self.take(16))
        data = self.take(length)
        assert flags == 1, "this server sends a reply as one chunk"
        if kind & 1 << 15:
            error, text = struct.unpack_from(">IH", data)
            assert len(data) == 6 + text
            return Reply(cookie, error, b"", kind)
        if kind == 1:
            data = data[8:]
            assert len(data) == self._lengths.pop(cookie)
        return Reply(cookie, 0, data, kind)

    def do(self, command: int, offset: int = 0, length: int = 0, data: bytes = b"", flags: int = 0) -> Reply:
        cookie = self.ask(command, offset, length, data, flags)
        reply = self.hear()
        assert reply.cookie == cookie
        return reply

    def extents(self, offset: int, length: int, flags: int = 0) -> list[tuple[int, int]]:
        """(bytes, state) by base:allocation."""
        reply = self.do(STATUS, offset, length, flags=flags)
        assert reply.kind == 5 and struct.unpack_from(">I", reply.data) == (1,), reply
        return [struct.unpack_from(">II", reply.data, at) for at in range(4, len(reply.data), 8)]

"""The handshake of the network block device protocol, server side: what a client may ask for before it sends requests.

Source: NBD protocol, doc/proto.md of the NetworkBlockDevice project: fixed newstyle negotiation. Bytes in, bytes out:
who moves them is pyx/nbd.pyx.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

GREETING = struct.Struct(">QQH")
OPTION = struct.Struct(">QII")
REPLY = struct.Struct(">QIII")
MAGIC, OPTION_MAGIC, REPLY_MAGIC = 0x4E42444D41474943, 0x49484156454F5054, 0x3E889045565A9
FIXED, NO_ZEROES = 1, 2  # the same bits in the server's and in the client's flags

EXPORT_NAME, ABORT, LIST, INFO, GO, STRUCTURED, LIST_CONTEXT, SET_CONTEXT = 1, 2, 3, 6, 7, 8, 9, 10
ACK, SERVER, REP_INFO, CONTEXT = 1, 2, 3, 4
UNSUPPORTED, INVALID, UNKNOWN, TOO_BIG = 0x80000001, 0x80000003, 0x80000006, 0x80000009
INFO_EXPORT, INFO_NAME, INFO_BLOCK_SIZE = 0, 1, 3

OPTION_BYTES_MAX = 16 << 10  # of one option; four names of the longest kind and their queries
OPTIONS_MAX = 256  # of one connection: who asks for more is no client
QUERIES_MAX = 64
NAME_MAX = 4096  # bytes of a name, by the protocol

HAS_FLAGS, READ_ONLY, FLUSH, FUA, TRIM, WRITE_ZEROES, DONT_FRAGMENT, MULTI_CONNECTION = 1, 2, 4, 8, 32, 64, 128, 256
BASE_ALLOCATION = b"base:allocation"
CONTEXT_ID = 1  # as pyx/nbd.h has it
SECTOR = 512
BLOCK_PREFERRED = 4096


@dataclass(frozen=True)
class Export:
    """One disk as clients see it. `payload_max`: most bytes of one read or write."""

    name: str
    size: int
    read_only: bool
    payload_max: int
    gone: bool = False

    def flags(self, structured: bool) -> int:
        """Every connection works on the one disk without a cache of its own, so that a flush on one of them covers what
        was completed on all (multi-connection)."""
        writing = READ_ONLY if self.read_only else FUA | TRIM | WRITE_ZEROES
        return HAS_FLAGS | FLUSH | MULTI_CONNECTION | writing | (DONT_FRAGMENT if structured else 0)


class Refused(ConnectionError):
    """The connection cannot go on."""


class Handshake:
    """One connection until it sends requests. `export`: the number of the export once the client has chosen."""

    def __init__(self, exports: Sequence[Export]) -> None:
        self.exports = exports
        self.export: int | None = None
        self.structured = False
        self.allocation = False  # asks for block status
        self._context_of = -1
        self._flags: int | None = None
        self._options = 0

    def greeting(self) -> bytes:
        return GREETING.pack(MAGIC, OPTION_MAGIC, FIXED | NO_ZEROES)

    def feed(self, data: bytes) -> tuple[int, bytes]:
        """(bytes used, reply). Refused where the client breaks the protocol or goes away."""
        used, reply = 0, b""
        if self._flags is None:
            if len(data) < 4:
                return 0, b""
            (self._flags,) = struct.unpack_from(">I", data)
            if self._flags & ~(FIXED | NO_ZEROES):
                raise Refused(f"unknown client flags {self._flags:#x}")
            used = 4
        while self.export is None and len(data) - used >= OPTION.size:
            magic, option, length = OPTION.unpack_from(data, used)
            if magic != OPTION_MAGIC:
                raise Refused(f"no option: magic {magic:#x}")
            self._options += 1
            if length > OPTION_BYTES_MAX or self._options > OPTIONS_MAX:
                raise Refused(f"option {option} of {length} bytes, number {self._options}")
            if len(data) - used - OPTION.size < length:
                break
            used += OPTION.size
            reply += self._option(option, data[used : used + length])
            used += length
        return used, reply

    def _option(self, option: int, body: bytes) -> bytes:
        if option == EXPORT_NAME:
            return self._old_export(body)
        if option == ABORT:
            raise Refused("the client aborts")
        handler = {LIST: self._list, INFO: self._info, GO: self._go, STRUCTURED: self._structured,
                   LIST_CONTEXT: self._contexts, SET_CONTEXT: self._contexts}.get(option)  # fmt: skip
        if handler is None:
            return _reply(option, UNSUPPORTED)
        try:
            return handler(option, body)
        except (struct.error, UnicodeDecodeError, ValueError):
            return _reply(option, INVALID, b"malformed")

    def _find(self, name: bytes) -> int | None:
        """The empty name stands for the first disk."""
        there = ((at, export.name.encode()) for at, export in enumerate(self.exports) if not export.gone)
        return next((at for at, named in there if name in (b"", named)), None)

    def _old_export(self, body: bytes) -> bytes:
        number = self._find(body)
        if number is None:
            raise Refused(f"no export {body[:64]!r}")
        self._choose(number)
        export = self.exports[number]
        zeroes = b"" if (self._flags or 0) & NO_ZEROES else bytes(124)
        return struct.pack(">QH", export.size, export.flags(self.structured)) + zeroes

    def _list(self, option: int, body: bytes) -> bytes:
        if body:
            return _reply(option, INVALID, b"a list has no arguments")
        names = [export.name.encode() for export in self.exports if not export.gone]
        told = b"".join(_reply(option, SERVER, struct.pack(">I", len(name)) + name) for name in names)
        return told + _reply(option, ACK)

    def _structured(self, option: int, body: bytes) -> bytes:
        if body:
            return _reply(option, INVALID, b"no arguments")
        self.structured = True
        return _reply(option, ACK)

    def _go(self, option: int, body: bytes) -> bytes:
        name, rest = _name(body)
        (count,) = struct.unpack_from(">H", rest)
        if len(rest) != 2 + 2 * count:
            return _reply(option, INVALID, b"malformed")
        asked = struct.unpack_from(f">{count}H", rest, 2)
        number = self._find(name)
        if number is None:
            return _reply(option, UNKNOWN, b"no such export")
        export = self.exports[number]
        facts = [struct.pack(">HQH", INFO_EXPORT, export.size, export.flags(self.structured))]
        if INFO_NAME in asked:
            facts.append(struct.pack(">H", INFO_NAME) + export.name.encode())
        if INFO_BLOCK_SIZE in asked:
            facts.append(struct.pack(">HIII", INFO_BLOCK_SIZE, SECTOR, BLOCK_PREFERRED, export.payload_max))
        if option == GO:
            self._choose(number)
        return b"".join(_reply(option, REP_INFO, fact) for fact in facts) + _reply(option, ACK)

    _info = _go

    def _choose(self, number: int) -> None:
        self.export = number
        self.allocation = self.structured and self.allocation and self._context_of == number

    def _contexts(self, option: int, body: bytes) -> bytes:
        """The one context that there is, base:allocation, listed or chosen."""
        name, rest = _name(body)
        (count,) = struct.unpack_from(">I", rest)
        if count > QUERIES_MAX:
            return _reply(option, TOO_BIG, b"too many queries")
        queries, at = [], 4
        for _ in range(count):
            (length,) = struct.unpack_from(">I", rest, at)
            if len(rest) - at - 4 < length:
                return _reply(option, INVALID, b"malformed")
            queries.append(rest[at + 4 : at + 4 + length])
            at += 4 + length
        number = self._find(name)
        if at != len(rest) or not self.structured:
            return _reply(option, INVALID, b"structured replies first" if at == len(rest) else b"malformed")
        if number is None:
            return _reply(option, UNKNOWN, b"no such export")
        if option == LIST_CONTEXT:
            found = not queries or any(query in (b"base:", BASE_ALLOCATION) for query in queries)
        else:
            found = BASE_ALLOCATION in queries
            self.allocation, self._context_of = found, number
        answer = struct.pack(">I", CONTEXT_ID if option == SET_CONTEXT else 0) + BASE_ALLOCATION
        return (_reply(option, CONTEXT, answer) if found else b"") + _reply(option, ACK)


def _reply(option: int, kind: int, data: bytes = b"") -> bytes:
    return REPLY.pack(REPLY_MAGIC, option, kind, len(data)) + data


def _name(body: bytes) -> tuple[bytes, bytes]:
    (length,) = struct.unpack_from(">I", body)
    if length > NAME_MAX or len(body) - 4 < length:
        raise ValueError("name")
    return body[4 : 4 + length], body[4 + length :]

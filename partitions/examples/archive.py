"""What the example guests agree on: how an archive lies on a disk, and how it travels in frames.

On disk: sector 0 is a header (magic, length in bytes, SHA-256), the archive begins at byte 4096.
In frames: Ethernet header with type 0x88B5 (local experimental), then kind, sequence number and payload length.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

DATA = 4096  # first byte of the archive on disk
CHUNK = 1 << 20  # bytes of one disk transfer
ETHERTYPE = b"\x88\xb5"

_HEADER = struct.Struct("<8sQ32s")
_MAGIC = b"PVARCH1\0"
_FRAME = struct.Struct("<6s6s2sBxIH")  # destination, source, type, kind, sequence, payload bytes
FRAME_HEADER = _FRAME.size

HELLO, DATA_FRAME, ACK, END = range(1, 5)


class Header(NamedTuple):
    length: int
    digest: bytes


def pack_header(header: Header) -> bytes:
    return _HEADER.pack(_MAGIC, header.length, header.digest)


def unpack_header(sector: bytes) -> Header:
    """ValueError where the disk holds no archive."""
    magic, length, digest = _HEADER.unpack_from(sector)
    if magic != _MAGIC:
        raise ValueError("the disk holds no archive: its first sector has no header")
    return Header(length, digest)


class Frame(NamedTuple):
    destination: bytes
    source: bytes
    kind: int
    sequence: int
    length: int


def pack_frame(frame: Frame) -> bytes:
    return _FRAME.pack(frame.destination, frame.source, ETHERTYPE, frame.kind, frame.sequence, frame.length)


def unpack_frame(data: memoryview) -> Frame | None:
    """None for frames of other programs."""
    if len(data) < FRAME_HEADER:
        return None
    destination, source, ethertype, kind, sequence, length = _FRAME.unpack_from(data)
    if ethertype != ETHERTYPE or length > len(data) - FRAME_HEADER:
        return None
    return Frame(destination, source, kind, sequence, length)

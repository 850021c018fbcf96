"""A sequenced stream of frames in both directions at once, and blocks to a disk and back, every byte compared.

Each frame carries its number and how many of the peer's frames its sender has received, so that nobody has more frames
under way than the peer has buffers: what is lost is lost by the host, not for want of a buffer.
"""

from __future__ import annotations

import random
import struct
import time
from typing import Any

from puppet import Puppet

TYPE = b"\x88\xb6"
HEADER = struct.Struct("<QQ")  # number of the frame; frames received so far
SIZES = (60, 64, 128, 512, 1000, 1514, 2000)
BUFFERS, FRAME = 128, 2048
WINDOW = BUFFERS // 2  # frames under way
BATCH = 16
BLOCK = 16384
NOISE = random.Random(5).randbytes(1 << 16)

_streams: dict[str, Stream] = {}


class Stream:
    """One NIC's end of the stream; lives as long as the guest, so that several calls go on with it."""

    def __init__(self, puppet: Puppet, nic: str) -> None:
        self.nic = puppet.guest.nic(nic)
        self.nic.open(buffers=BUFFERS, frame_size=FRAME)
        self.frames = [puppet.guest.memory.allocate(FRAME) for _ in range(BATCH)]
        self.sent = self.received = self.acknowledged = 0
        self.lost = self.repeated = self.corrupt = 0
        self.sent_bytes = self.received_bytes = 0
        self.last, self.longest = time.monotonic(), 0.0

    def send(self, peer: bytes) -> int:
        """As many frames as the window allows, at most BATCH."""
        count = min(BATCH, WINDOW - (self.sent - self.acknowledged))
        batch = []
        for buffer in self.frames[:count]:
            content = peer + self.nic.mac + TYPE + HEADER.pack(self.sent, self.received) + payload(self.sent)
            buffer[: len(content)] = content
            batch.append(buffer[: len(content)])
            self.sent += 1
            self.sent_bytes += len(content)
        if batch:
            self.nic.send_many(batch)
        return count

    def take(self, timeout: float) -> None:
        """All frames that are there, or the first that comes within `timeout` seconds."""
        while (frame := self.nic.receive(timeout)) is not None:
            self._check(bytes(frame))
            self.nic.release(frame)
            timeout = 0.0

    def _check(self, frame: bytes) -> None:
        now = time.monotonic()
        self.longest = max(self.longest, now - self.last)
        self.last = now
        number, acknowledged = HEADER.unpack_from(frame, 14)
        if frame[:6] != self.nic.mac or frame[12:14] != TYPE or frame[14 + HEADER.size :] != payload(number):
            self.corrupt += 1
        elif number < self.received:
            self.repeated += 1
        else:
            self.lost += number - self.received
            self.received = number + 1
            self.received_bytes += len(frame)
            self.acknowledged = acknowledged

    def result(self) -> dict[str, Any]:
        """`repeated` counts what came twice or out of order. `longest`: seconds between two frames."""
        fields = ("sent", "received", "lost", "repeated", "corrupt", "sent_bytes", "received_bytes", "longest")
        return {field: getattr(self, field) for field in fields} | {"dropped": self.nic.dropped}


def payload(number: int) -> bytes:
    """What frame `number` carries behind its header."""
    length = SIZES[number % len(SIZES)] - 14 - HEADER.size
    start = number * 131 % (len(NOISE) - length)
    return NOISE[start : start + length]


def open(puppet: Puppet, nic: str) -> str:
    """Posts the receive buffers; the NIC's address."""
    _streams[nic] = Stream(puppet, nic)
    return _streams[nic].nic.mac.hex()


def run(puppet: Puppet, nic: str, peer: str, disk: str = "") -> dict[str, Any]:
    """Sends to and receives from `peer` until the test wants the end. With `disk`, a block goes to it and back every
    few batches. `slowest`: seconds of the longest of each step."""
    stream, store = _streams[nic], Store(puppet, disk) if disk else None
    address = bytes.fromhex(peer)
    rounds = 0
    slowest = {"send": 0.0, "take": 0.0, "store": 0.0}
    stream.last = time.monotonic()

    def since(begin: float, step: str) -> float:
        now = time.monotonic()
        slowest[step] = max(slowest[step], now - begin)
        return now

    while not puppet.wanted():
        begin = time.monotonic()
        count = stream.send(address)
        begin = since(begin, "send")
        stream.take(0.0 if count else 0.002)
        begin = since(begin, "take")
        rounds += 1
        if store and rounds % 4 == 0:
            store.round_trip()
            since(begin, "store")
    return stream.result() | {"blocks": store.blocks if store else 0, "slowest": slowest}


def drain(_puppet: Puppet, nic: str, count: int, timeout: float = 5.0) -> dict[str, Any]:
    """Receives until `count` frames of the peer have come, which sends no more, or none for `timeout` seconds."""
    stream = _streams[nic]
    end = time.monotonic() + timeout
    while stream.received < count and time.monotonic() < end:
        before = stream.received
        stream.take(0.05)
        if stream.received != before:
            end = time.monotonic() + timeout
    stream.take(0.02)  # what should not be there
    return stream.result()


class Store:
    """Blocks with a content of their own, at random places of a disk."""

    def __init__(self, puppet: Puppet, disk: str) -> None:
        self.disk = puppet.guest.disk(disk)
        self.out, self.back = puppet.guest.memory.allocate(BLOCK), puppet.guest.memory.allocate(BLOCK)
        self.blocks = 0
        self.generator = random.Random(disk)

    def round_trip(self) -> None:
        data = self.generator.randbytes(64) * (BLOCK // 64)
        offset = 512 * self.generator.randrange((self.disk.size - BLOCK) // 512 + 1)
        self.out[:] = data
        self.disk.write_from(self.out, offset)
        self.disk.read_into(self.back, offset)
        assert bytes(self.back) == data, f"block {self.blocks}: other bytes came back"
        self.blocks += 1


def blocks(puppet: Puppet, disk: str) -> int:
    """Blocks to a disk and back until the test wants the end; how many."""
    store = Store(puppet, disk)
    while store.blocks == 0 or not puppet.wanted():
        store.round_trip()
    return store.blocks

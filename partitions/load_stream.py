"""A sequenced stream of frames in both directions at once, and blocks to a disk and back, every byte compared.

Each frame carries its number and how many of the peer's frames its sender has received, so that nobody has more frames
under way than the peer has buffers: what is lost is lost by the host, not for want of a buffer.
"""

from __future__ import annotations

import random
import struct
import time
from typing import Any

from partitions.guest import Guest
from pyx.memory import Buffer

TYPE = b"\x88\xb6"
HEADER = struct.Struct("<QQ")  # number of the frame; frames received so far
SIZES = (60, 64, 128, 512, 1000, 1514, 2000)
BUFFERS, FRAME = 128, 2048
WINDOW = BUFFERS // 2  # frames under way
BATCH = 16
BLOCK = 16384
NOISE = random.Random(5).randbytes(1 << 16)


class Stream:
    """One NIC's end of the stream. It lives as long as the guest, so that several runs go on with it."""

    def __init__(self, guest: Guest, nic: str) -> None:
        self.nic = guest.nic(nic)
        self.nic.open(buffers=BUFFERS, frame_size=FRAME)
        self.frames = [guest.memory.allocate(FRAME) for _ in range(BATCH)]
        self.sent = self.received = self.acknowledged = 0
        self.lost = self.repeated = self.corrupt = 0
        self.sent_bytes = self.received_bytes = 0
        self.last, self.longest = time.monotonic(), 0.0

    def send(self, peer: bytes) -> int:
        """As many frames as the window allows, at most BATCH."""
        count = min(BATCH, WINDOW - (self.sent - self.acknowledged))
        batch = [self.fill(buffer, peer) for buffer in self.frames[:count]]
        if batch:
            self.nic.send_many(batch)
        return count

    def fill(self, buffer: Buffer, peer: bytes) -> Buffer:
        """The next frame, in `buffer`."""
        content = peer + self.nic.mac + TYPE + HEADER.pack(self.sent, self.received) + payload(self.sent)
        buffer[: len(content)] = content
        self.sent += 1
        self.sent_bytes += len(content)
        return buffer[: len(content)]

    def take(self, timeout: float) -> None:
        """All frames that are there, or the first that comes within `timeout` seconds."""
        while (frame := self.nic.receive(timeout)) is not None:
            self._check(bytes(frame))
            self.nic.release(frame)
            timeout = 0.0

    def _check(self, frame: bytes) -> None:
        now = time.monotonic()
        since, self.last = self.last, now
        self.longest = max(self.longest, now - since)
        number, acknowledged = HEADER.unpack_from(frame, 14)
        if frame[:6] != self.nic.mac or frame[12:14] != TYPE or frame[14 + HEADER.size :] != payload(number):
            self.corrupt += 1
        elif number < self.received:
            self.repeated += 1
        else:
            if number > self.received:
                self.missed(number - self.received, since, now)
            self.received = number + 1
            self.received_bytes += len(frame)
            self.acknowledged = acknowledged

    def missed(self, count: int, _since: float, _now: float) -> None:
        """So many frames have not come between two that came, or between the last one and the end."""
        self.lost += count

    def result(self) -> dict[str, Any]:
        """`repeated` counts what came twice or out of order. `longest`: seconds between two frames."""
        fields = ("sent", "received", "lost", "repeated", "corrupt", "sent_bytes", "received_bytes", "longest")
        return {field: getattr(self, field) for field in fields} | {"dropped": self.nic.dropped}


def payload(number: int) -> bytes:
    """What frame `number` carries behind its header."""
    length = SIZES[number % len(SIZES)] - 14 - HEADER.size
    start = number * 131 % (len(NOISE) - length)
    return NOISE[start : start + length]


class Store:
    """Blocks with a content of their own, at random places of a disk."""

    def __init__(self, guest: Guest, disk: str) -> None:
        self.disk = guest.disk(disk)
        self.out, self.back = guest.memory.allocate(BLOCK), guest.memory.allocate(BLOCK)
        self.blocks = 0
        self.generator = random.Random(disk)

    def round_trip(self) -> None:
        data = self.generator.randbytes(64) * (BLOCK // 64)
        offset = 512 * self.generator.randrange((self.disk.capacity - BLOCK) // 512 + 1)
        self.out[:] = data
        self.disk.write_from(self.out, offset)
        self.disk.read_into(self.back, offset)
        if bytes(self.back) != data:
            raise ValueError(f"block {self.blocks}: other bytes came back")
        self.blocks += 1

"""Reads and writes of a disk, many in flight, whose every block says whose it is and which write it comes from.

What each block may hold is known at any time, so a read tells what went wrong: a write that was acknowledged and is not
there (`lost`), a block that had been read and has gone back to an earlier write (`stale`), or bytes that nobody has
written there (`corrupt`). No two requests in flight are for one block.

    block (4,096 bytes)   owner u32 | block u32 | version u64 | bytes drawn by block and version
"""

from __future__ import annotations

import random
import struct
import time
import zlib
from dataclasses import dataclass
from typing import Any

from partitions.guest import Guest
from partitions.load_stream import NOISE
from pyx import abi
from pyx.memory import Buffer

BLOCK = 4096
STAMP = struct.Struct("<IIQ")
BODY = BLOCK - STAMP.size
READ, WRITE = abi.OPERATIONS["read"], abi.OPERATIONS["write"]
OK = abi.STATUSES["ok"]
GAP = 0.005  # seconds between two completions that are worth to be told
GAPS_MOST = 8_000  # told at once: what fits into a message


class Gaps:
    """Times (begin, end), in seconds of the monotonic clock, in which nothing came."""

    def __init__(self) -> None:
        self.last = time.monotonic()
        self.found: list[tuple[float, float]] = []

    def mark(self) -> None:
        now = time.monotonic()
        if now - self.last > GAP and len(self.found) < GAPS_MOST:
            self.found.append((self.last, now))
        self.last = now


@dataclass
class Block:
    """What one block may hold: version 0 are zeroes."""

    sure: int = 0  # the last write that was acknowledged
    seen: int = 0  # what was read last
    unsure: tuple[int, ...] = ()  # writes after it that ended in an error: there or not
    busy: bool = False


@dataclass
class Under:
    """A request under way."""

    operation: int
    block: int
    version: int
    buffer: Buffer


class Stamped:
    """`depth` requests in flight on disk `name`, half of them writes."""

    def __init__(self, guest: Guest, name: str, depth: int, seed: int) -> None:
        self.disk = guest.disk(name)
        self.owner = zlib.crc32(guest.name.encode())
        self.blocks = [Block() for _ in range(self.disk.capacity // BLOCK)]
        self.draw = random.Random(seed)
        self.under_way: dict[int, Under] = {}
        self.free = [guest.memory.allocate(BLOCK) for _ in range(min(depth, self.disk.queue.capacity))]
        self.version = 0
        self.gaps = Gaps()
        self.written = self.read = self.failed = 0
        self.lost = self.stale = self.corrupt = 0

    def submit(self) -> int:
        """As many requests as there are buffers for; how many."""
        count = 0
        while self.free:
            number = self.draw.randrange(len(self.blocks))
            if self.blocks[number].busy:
                break
            self._push(WRITE if self.draw.random() < 0.5 else READ, number)
            count += 1
        if count:
            self.disk.queue.kick()
        return count

    def _push(self, operation: int, number: int) -> None:
        buffer, version = self.free.pop(), 0
        if operation == WRITE:
            self.version += 1
            version = self.version
            buffer[:] = content(self.owner, number, version)
        self.blocks[number].busy = True
        slot = self.disk.queue.submit(operation, buffer, number * BLOCK)
        self.under_way[slot] = Under(operation, number, version, buffer)

    def collect(self, timeout: float = 0.0) -> int:
        """Takes what was answered; waits up to `timeout` seconds for the first of them. How many."""
        answers = self.disk.queue.wait(timeout) if timeout else self.disk.queue.poll()
        for slot, status, _reason, _bytes in answers:
            self._answered(self.under_way.pop(slot), status)
        if answers:
            self.gaps.mark()
        return len(answers)

    def _answered(self, request: Under, status: int) -> None:
        block = self.blocks[request.block]
        block.busy = False
        self.free.append(request.buffer)
        if status != OK:
            self.failed += 1
            if request.operation == WRITE:
                block.unsure += (request.version,)
        elif request.operation == WRITE:
            self.written += 1
            block.sure, block.unsure = request.version, ()
        else:
            self.read += 1
            self._check(request.block, bytes(request.buffer))

    def _check(self, number: int, data: bytes) -> None:
        """Judges what was read, and holds it for true from then on, so that one fault is counted once."""
        block = self.blocks[number]
        _, _, version = STAMP.unpack_from(data)
        if data != content(self.owner, number, version):
            self.corrupt += 1
            return
        if version == block.sure or version in block.unsure:
            pass
        elif version < block.seen:
            self.stale += 1
        elif version < block.sure:
            self.lost += 1
        else:
            self.corrupt += 1  # nobody has written this yet
        block.sure, block.seen, block.unsure = version, version, ()

    def settle(self, patience: float) -> int:
        """Waits until all is answered, or nothing came for `patience` seconds; how many are not."""
        end = time.monotonic() + patience
        while self.under_way and time.monotonic() < end:
            if self.collect(0.05):
                end = time.monotonic() + patience
        return len(self.under_way)

    def read_all(self, patience: float) -> None:
        """Every block once, but those of requests that nobody answers."""
        for number in range(len(self.blocks)):
            if self.blocks[number].busy:
                continue
            if not self.free and (self.settle(patience) or not self.free):
                return
            self._push(READ, number)
            self.disk.queue.kick()
        self.settle(patience)

    def result(self) -> dict[str, Any]:
        fields = ("written", "read", "failed", "lost", "stale", "corrupt")
        return {field: getattr(self, field) for field in fields} | {"gaps": self.gaps.found}


def content(owner: int, block: int, version: int) -> bytes:
    """What block number `block` holds after write `version`."""
    if version == 0:
        return bytes(BLOCK)
    start = (version * 131 + block * 31) % (len(NOISE) - BODY)
    return STAMP.pack(owner, block, version) + NOISE[start : start + BODY]

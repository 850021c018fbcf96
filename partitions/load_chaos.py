"""Load for `hostctl chaos`: the checked stream of frames and the stamped blocks of a disk in one loop, which waits for
nobody: whatever is not answered while a role is away, is told afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from partitions.guest import Guest
from partitions.load_stamped import OK, Gaps, Stamped
from partitions.load_stream import BATCH, FRAME, HEADER, WINDOW, Stream
from pyx import abi
from pyx.memory import Buffer

SEND = abi.OPERATIONS["send"]
SILENCE = 0.5  # seconds without a frame of the peer after which one more goes out: all of a window may be lost
AGAIN_MOST = 256  # frames that came twice or late of which the report tells
IDLE = 0.002  # seconds to wait where there is nothing to do


class Frames(Stream):
    """A stream whose frames are on their way while the loop goes on."""

    def __init__(self, guest: Guest, nic: str) -> None:
        super().__init__(guest, nic)
        self.frames += [guest.memory.allocate(FRAME) for _ in range(WINDOW - len(self.frames))]
        self.under_way: dict[int, Buffer] = {}
        self.failed = 0
        self.asked = time.monotonic()
        self.missing: list[tuple[float, float, int]] = []  # between which times, and how many
        self.again: list[tuple[float, int, int]] = []  # frames behind later ones: when, number, the number expected

    def push(self, peer: bytes) -> int:
        """As many frames as the window and the buffers allow; how many."""
        now = time.monotonic()
        room = WINDOW - (self.sent - self.acknowledged)
        if room <= 0 and now - max(self.last, self.asked) > SILENCE:
            room, self.asked = 1, now
        count = min(BATCH, room, len(self.frames), self.nic.transmit.capacity - self.nic.transmit.in_flight)
        for _ in range(count):
            buffer = self.frames.pop()
            self.under_way[self.nic.transmit.submit(SEND, self.fill(buffer, peer))] = buffer
        if count > 0:
            self.nic.transmit.kick()
        return max(count, 0)

    def reap(self) -> int:
        """Frames that the device has taken; how many."""
        answers = self.nic.transmit.poll()
        for slot, status, reason, _bytes in answers:
            self.frames.append(self.under_way.pop(slot))
            if status != OK:
                self.failed += 1
            elif reason:
                name = abi.REASON_NAMES[reason]
                self.nic.dropped[name] = self.nic.dropped.get(name, 0) + 1
        return len(answers)

    def _check(self, frame: bytes) -> None:
        repeated = self.repeated
        super()._check(frame)
        if self.repeated > repeated and len(self.again) < AGAIN_MOST:
            self.again.append((self.last, HEADER.unpack_from(frame, 14)[0], self.received))

    def missed(self, count: int, since: float, now: float) -> None:
        super().missed(count, since, now)
        self.missing.append((since, now, count))

    def result(self) -> dict[str, Any]:
        return super().result() | {"failed": self.failed, "missing": self.missing, "again": self.again}


class Chaos:
    """One guest's load."""

    def __init__(self, guest: Guest, depth: int, seed: int) -> None:
        self.guest = guest
        self.frames = Frames(guest, "eth0")
        self.disk = Stamped(guest, "vda", depth, seed)

    def run(self, peer: str, pause: float, over: Callable[[float], bool]) -> dict[str, Any]:
        """Until it is `over`, which is asked before each round. `pause`: seconds of rest meanwhile, processor time for
        those who are started again."""
        address = bytes.fromhex(peer)
        self.frames.last = time.monotonic()
        self.disk.gaps = Gaps()
        while not over(pause):
            worked = self.frames.push(address) + self.frames.reap()
            received = self.frames.received
            self.frames.take(0.0)
            worked += self.frames.received - received
            worked += self.disk.submit() + self.disk.collect()
            if not worked:
                self.disk.collect(IDLE)
        return {"sent": self.frames.sent}

    def finish(self, expected: int, patience: float) -> dict[str, Any]:
        """Ends all that is under way, takes what the peer sent, and reads the whole disk. `unanswered`: requests that
        nothing came for within `patience` seconds."""
        self.disk.settle(patience)
        end = time.monotonic() + patience
        while (self.frames.under_way or self.frames.received < expected) and time.monotonic() < end:
            before = self.frames.received
            self.frames.take(0.01)
            if self.frames.reap() or self.frames.received != before:
                end = time.monotonic() + patience
        self.frames.take(0.02)  # what should not be there
        if self.frames.received < expected:  # the last ones of all are missing
            self.frames.missed(expected - self.frames.received, self.frames.last, time.monotonic())
        self.disk.read_all(patience)
        foreign = sum(queue["foreign"] for queue in self.guest.counts().values())
        return {
            "unanswered": len(self.frames.under_way) + len(self.disk.under_way), "foreign": foreign,
            "disk": self.disk.result(), "frames": self.frames.result(),
        }  # fmt: skip

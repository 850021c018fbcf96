"""The load of `hostctl chaos` sees what it is there to see: a disk and a wire that do wrong, once each."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest

from partitions import load_chaos, load_stamped, load_stream
from partitions.load_stamped import BLOCK, OK, READ, WRITE, Stamped

BLOCKS = 16
ERROR = OK + 1
Wrong = Any


class FakeQueue:
    """A disk's queue over a byte array; `wrong(disk, operation, block)` says what else it does: see `_execute`."""

    capacity = 8

    def __init__(self, wrong: Wrong) -> None:
        self.wrong = wrong
        self.content = bytearray(BLOCKS * BLOCK)
        self.under_way: list[tuple[int, int, bytearray, int]] = []
        self.next = 0

    def submit(self, operation: int, buffer: bytearray, offset: int) -> int:
        self.next += 1
        self.under_way.append((self.next, operation, buffer, offset))
        return self.next

    def kick(self) -> None: ...

    def poll(self) -> list[tuple[int, int, int, int]]:
        return [answer for request in self._taken() if (answer := self._execute(*request))]

    def wait(self, _timeout: float) -> list[tuple[int, int, int, int]]:
        return self.poll()

    def _taken(self) -> list[tuple[int, int, bytearray, int]]:
        taken, self.under_way = self.under_way, []
        return taken

    def _execute(self, slot: int, operation: int, buffer: bytearray, offset: int) -> tuple[int, int, int, int] | None:
        done = self.wrong(self, operation, offset // BLOCK)
        if done == "silent":
            return None
        if done == "error":
            return slot, ERROR, 0, 0
        if operation == READ:
            buffer[:] = self.content[offset : offset + BLOCK]
        elif done != "lose":
            self.content[offset : offset + BLOCK] = buffer
        return slot, OK, 0, BLOCK


def stamped(wrong: Wrong) -> Stamped:
    disk = SimpleNamespace(capacity=BLOCKS * BLOCK, queue=FakeQueue(wrong))
    guest: Any = SimpleNamespace(name="g", disk=lambda _: disk, memory=SimpleNamespace(allocate=bytearray))
    return Stamped(guest, "vda", 4, seed=1)


def found(wrong: Wrong, rounds: int = 400) -> dict[str, int]:
    load = stamped(wrong)
    for _ in range(rounds):
        load.submit()
        load.collect()
    load.settle(0.05)
    load.read_all(0.05)
    return {name: getattr(load, name) for name in ("lost", "stale", "corrupt", "failed")} | {
        "unanswered": len(load.under_way), "moved": load.written + load.read,
    }  # fmt: skip


class Once:
    """Does `what` at the `at`-th write."""

    def __init__(self, what: str, at: int = 100, operation: int = WRITE) -> None:
        self.what, self.left, self.operation = what, at, operation

    def __call__(self, _disk: FakeQueue, operation: int, _block: int) -> str:
        self.left -= operation == self.operation
        return self.what if self.left == 0 and operation == self.operation else ""


class Stale:
    """At one moment, a block goes back to what it held before the last write."""

    def __init__(self) -> None:
        self.before: dict[int, bytes] = {}
        self.read: set[int] = set()
        self.done = False

    def __call__(self, disk: FakeQueue, operation: int, block: int) -> str:
        place = slice(block * BLOCK, (block + 1) * BLOCK)
        if operation == WRITE:
            self.before[block] = bytes(disk.content[place])
            self.read.discard(block)
        elif block in self.read and block in self.before and not self.done:
            disk.content[place] = self.before[block]
            self.done = True
        else:
            self.read.add(block)
        return ""


def test_a_good_disk_has_no_fault() -> None:
    assert found(lambda *_: "") == {"lost": 0, "stale": 0, "corrupt": 0, "failed": 0, "unanswered": 0} | {
        "moved": found(lambda *_: "")["moved"]
    }
    assert found(lambda *_: "")["moved"] > 400


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [(Once("lose"), "lost"), (Stale(), "stale"), (Once("silent"), "unanswered"), (Once("error"), "failed")],
    ids=["lost", "stale", "unanswered", "failed"],
)
def test_each_fault_of_a_disk_is_seen_once(wrong: Wrong, fault: str) -> None:
    counts = found(wrong)
    assert {name: counts[name] for name in ("lost", "stale", "corrupt", "failed", "unanswered")} == {
        name: int(name == fault) for name in ("lost", "stale", "corrupt", "failed", "unanswered")
    }


@pytest.mark.parametrize("byte", [0, 7, 15, 16, BLOCK - 1])
def test_a_changed_byte_is_seen(byte: int) -> None:
    flipped = False

    def flip(disk: FakeQueue, operation: int, block: int) -> str:
        nonlocal flipped
        if operation == READ and not flipped and disk.content[block * BLOCK + 8]:
            disk.content[block * BLOCK + byte] ^= 0x40
            flipped = True
        return ""

    counts = found(flip)
    assert counts["corrupt"] == 1 and counts["lost"] == counts["stale"] == 0


def test_a_write_that_failed_may_be_there_or_not() -> None:
    """Both are right; what is neither it nor the one before it is not."""
    for kept in (False, True):
        load = stamped(Once("error", at=1))
        queue: Any = load.disk.queue
        load._push(WRITE, 3)
        if kept:
            queue.content[3 * BLOCK : 4 * BLOCK] = queue.under_way[0][2]
        load.collect()
        load.read_all(0.01)
        assert (load.failed, load.lost, load.stale, load.corrupt) == (1, 0, 0, 0)


def test_gaps_are_told() -> None:
    gaps = load_stamped.Gaps()
    gaps.last -= 0.1
    gaps.mark()
    gaps.mark()
    assert len(gaps.found) == 1 and gaps.found[0][1] - gaps.found[0][0] >= 0.1


# ---- frames ----


class FakeNic:
    mac = b"\x02\0\0\0\0\1"

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.dropped: dict[str, int] = {}
        self.transmit = SimpleNamespace(capacity=64, in_flight=0)

    def open(self, **_: int) -> None: ...

    def release(self, _frame: bytes) -> None: ...

    def receive(self, _timeout: float) -> bytes | None:
        return self.frames.pop(0) if self.frames else None


def receive(numbers: list[int], change: bool = False) -> dict[str, Any]:
    nic = FakeNic()
    guest: Any = SimpleNamespace(nic=lambda _: nic, memory=SimpleNamespace(allocate=bytearray))
    stream = load_chaos.Frames(guest, "eth0")
    for number in numbers:
        header = nic.mac + b"\x02\0\0\0\0\2" + load_stream.TYPE + load_stream.HEADER.pack(number, 0)
        body = bytearray(load_stream.payload(number))
        body[random.Random(number).randrange(len(body))] ^= change
        nic.frames.append(header + bytes(body))
    stream.take(0.0)
    return stream.result()


def test_frames_lost_repeated_and_changed_are_seen() -> None:
    def faults(result: dict[str, Any]) -> tuple[int, int, int]:
        return result["lost"], result["repeated"], result["corrupt"]

    assert faults(receive([0, 1, 2])) == (0, 0, 0)
    assert faults(receive([0, 1, 4, 5])) == (2, 0, 0)
    assert receive([0, 1, 4, 5])["missing"][0][2] == 2, "and between which times"
    assert faults(receive([0, 1, 1, 2])) == (0, 1, 0)
    assert [again[1:] for again in receive([0, 2, 1, 2, 3])["again"]] == [(1, 3), (2, 3)], "late, and twice"
    assert faults(receive([0], change=True)) == (0, 0, 1)

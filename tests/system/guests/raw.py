"""Requests that no driver would make: 64 bytes of the test's own in the guest's ring slots.

`COMPLETION` is the one place outside the shared layout that knows where a completion has its fields: this side stands
for a hostile guest, which has no library of ours.
"""

from __future__ import annotations

import struct
import time
from collections import Counter
from typing import Any

from puppet import Puppet

from pyx.queue import ClientQueue

COMPLETION = struct.Struct("<QQHHI40x")  # id, epoch, status, reason, bytes moved
SLOT = 64
PATIENCE = 5.0  # seconds for one answer

Answer = tuple[int, int, int, int]  # id, status, reason, bytes


def _answer(queue: ClientQueue, timeout: float = PATIENCE) -> Answer | None:
    slot = queue.receive_raw(timeout)
    if slot is None:
        return None
    identity, _, status, reason, moved = COMPLETION.unpack(slot)
    return identity, status, reason, moved


def submit(puppet: Puppet, endpoint: str, slots: list[str], queue: int = 0) -> list[Answer | None]:
    """Puts slots (hexadecimal) on a queue one after the other; the answer to each, None where none came."""
    ring = puppet.guest.queues(endpoint)[queue]
    answers = []
    for slot in slots:
        ring.submit_raw(bytes.fromhex(slot))
        answers.append(_answer(ring))
    return answers


def burst(puppet: Puppet, endpoint: str, slots: list[str], queue: int = 0, wait: float = PATIENCE) -> list[Answer]:
    """Puts all slots on a queue, then takes what answers come until as many are there or `wait` seconds went by
    without one."""
    ring = puppet.guest.queues(endpoint)[queue]
    for slot in slots:
        ring.submit_raw(bytes.fromhex(slot))
    answers: list[Answer] = []
    while len(answers) < len(slots) and (answer := _answer(ring, wait)) is not None:
        answers.append(answer)
    return answers


def stream(puppet: Puppet, endpoint: str, file: str, queue: int = 0) -> dict[str, Any]:
    """Sends all slots of a file of the program folder, as many in flight as the ring takes.

    {"answered": n, "accepted": n, "foreign": answers to ids that were not in flight, "reasons": {reason: n},
    "wrong": [[slot number, expected reason, reason]]}. Behind the slots the file has a u16 for each: the reason
    that the test expects. Ids of one file are different from each other, or 0.
    """
    ring = puppet.guest.queues(endpoint)[queue]
    with open(file, "rb") as source:
        content = source.read()
    count = len(content) // (SLOT + 2)
    slots, expected = content[: count * SLOT], struct.unpack(f"<{count}H", content[count * SLOT :])
    in_flight: dict[int, list[int]] = {}  # id -> expected reasons; several for id 0 alone
    reasons: Counter[int] = Counter()
    accepted = foreign = answered = sent = 0
    wrong: list[tuple[int, int, int]] = []
    while answered < count:
        while sent < count and sent - answered < ring.capacity:
            slot = slots[sent * SLOT : sent * SLOT + SLOT]
            in_flight.setdefault(int.from_bytes(slot[:8], "little"), []).append(expected[sent])
            ring.submit_raw(slot)
            sent += 1
        answer = _answer(ring)
        if answer is None:
            break
        identity, status, reason, _ = answer
        waiting = in_flight.get(identity)
        if not waiting:
            foreign += 1
            continue
        if reason in waiting:
            waiting.remove(reason)
        else:
            wrong.append((identity, waiting.pop(0), reason))
        if not waiting:
            del in_flight[identity]
        answered += 1
        accepted += status != 2
        reasons[reason] += 1
    return {
        "answered": answered, "accepted": accepted, "foreign": foreign, "reasons": dict(reasons), "wrong": wrong[:20],
    }  # fmt: skip


def throw(puppet: Puppet, endpoint: str, slots: list[str], queue: int = 0) -> None:
    """Puts slots on a queue and waits for nothing."""
    ring = puppet.guest.queues(endpoint)[queue]
    for slot in slots:
        ring.submit_raw(bytes.fromhex(slot))


def poke(puppet: Puppet, endpoint: str, offset: int, value: int, queue: int = 0) -> None:
    """Writes a 64-bit word into the channel segment of a queue."""
    puppet.guest.queues(endpoint)[queue].poke(offset, value.to_bytes(8, "little"))


def spoil(puppet: Puppet, steps: list[list[Any]]) -> None:
    """Of each step, [endpoint, queue, slots, offset, value, more]: sends the slots and takes their answers, writes the
    word, sends more slots."""
    for endpoint, queue, slots, offset, value, more in steps:
        answers = submit(puppet, endpoint, slots, queue)
        assert None not in answers, (endpoint, queue)
        poke(puppet, endpoint, offset, value, queue)
        throw(puppet, endpoint, more, queue)


def waiting(puppet: Puppet) -> list[Answer]:
    """Answers that nobody has taken yet, of all queues."""
    rings = [ring for endpoint in puppet.guest.endpoints for ring in puppet.guest.queues(endpoint)]
    return [answer for ring in rings if (answer := _answer(ring, 0.0)) is not None]


def silence(puppet: Puppet, endpoint: str, slots: list[str], seconds: float, queue: int = 0) -> int:
    """Sends slots over and over and takes no answer; how many the ring took until the end."""
    ring = puppet.guest.queues(endpoint)[queue]
    end, sent = time.monotonic() + seconds, 0
    while time.monotonic() < end and not puppet.wanted():
        try:
            ring.submit_raw(bytes.fromhex(slots[sent % len(slots)]))
            sent += 1
        except BlockingIOError:
            time.sleep(0.001)
    return sent


def drain(puppet: Puppet, endpoint: str, count: int, queue: int = 0) -> list[Answer]:
    """The next `count` answers that wait on a queue."""
    ring = puppet.guest.queues(endpoint)[queue]
    answers: list[Answer] = []
    while len(answers) < count and (answer := _answer(ring)) is not None:
        answers.append(answer)
    return answers

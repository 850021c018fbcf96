"""Requests one by one, with what came of each: for faults on purpose."""

from __future__ import annotations

import time
from typing import Any

from puppet import Puppet

from pyx import abi

LENGTH = 4096
NOTHING = ["none", "none"]


def requests(
    puppet: Puppet, disk: str, operation: str, count: int, wait: float = 5.0, fill: int = 0, length: int = LENGTH
) -> dict[str, Any]:
    """`count` requests at offset 0, each made once the one before was answered or `wait` seconds went by without.

    {"answers": [[status, reason]], none where none came, "seconds": [of each], "foreign", "in_flight", "first",
    "last": bytes of the buffer afterwards}."""
    queue = puppet.guest.disk(disk).queue
    buffer = puppet.guest.memory.allocate(length)
    buffer[:] = bytes([fill]) * length
    answers, seconds = [], []
    for _ in range(count):
        begin = time.monotonic()
        slot = queue.submit(abi.OPERATIONS[operation], None if operation == "flush" else buffer, 0)
        queue.kick()
        answers.append(NOTHING)
        while answers[-1] == NOTHING and time.monotonic() - begin < wait:
            for number, status, reason, _ in queue.wait(max(0.0, begin + wait - time.monotonic())):
                if number == slot:
                    answers[-1] = named(status, reason)
        seconds.append(time.monotonic() - begin)
    return {"answers": answers, "seconds": seconds, "foreign": queue.foreign, "in_flight": queue.in_flight,
            "first": buffer[0], "last": buffer[length - 1]}  # fmt: skip


def rest(puppet: Puppet, disk: str, wait: float = 5.0) -> list[list[str]]:
    """Answers to what is still in flight, as they come within `wait` seconds."""
    queue = puppet.guest.disk(disk).queue
    end, answers = time.monotonic() + wait, []
    while queue.in_flight and time.monotonic() < end:
        answers += [named(status, reason) for _, status, reason, _ in queue.wait(max(0.0, end - time.monotonic()))]
    return answers


def broken(puppet: Puppet, disk: str) -> str:
    """What the driver raises at the next request."""
    try:
        puppet.guest.disk(disk).read_into(puppet.guest.memory.allocate(LENGTH))
    except ConnectionError as error:
        return str(error)
    return ""


def named(status: int, reason: int) -> list[str]:
    statuses = {number: name for name, number in abi.STATUSES.items()}
    return [statuses[status], abi.REASON_NAMES[reason]]

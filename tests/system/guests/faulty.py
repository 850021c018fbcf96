"""Requests one by one, with what came of each: for faults on purpose."""

from __future__ import annotations

import time
from typing import Any

from frames import frame
from nic import receive
from puppet import Puppet

from pyx import abi

LENGTH = 4096
NOTHING = ["none", "none"]


def requests(
    puppet: Puppet, disk: str, operation: str, count: int, wait: float = 5.0, fill: int = 0, length: int = LENGTH
) -> dict[str, Any]:
    """`count` requests at offset 0, as `_one_by_one`; and "first", "last": bytes of the buffer afterwards."""
    queue = puppet.guest.disk(disk).queue
    buffer = puppet.guest.memory.allocate(length)
    buffer[:] = bytes([fill]) * length
    buffers = [None if operation == "flush" else buffer] * count
    found = _one_by_one(queue, abi.OPERATIONS[operation], buffers, wait)
    return {**found, "first": buffer[0], "last": buffer[length - 1]}


def frames(puppet: Puppet, nic: str, to: str, size: int, seeds: list[int], wait: float = 5.0) -> dict[str, Any]:
    """A frame of each seed, as `_one_by_one`."""
    device = puppet.guest.nic(nic)
    buffers = []
    for seed in seeds:
        buffer = puppet.guest.memory.allocate(size)
        buffer[:] = frame(bytes.fromhex(to), device.mac, size, seed)
        buffers.append(buffer)
    return _one_by_one(device.transmit, abi.OPERATIONS["send"], buffers, wait)


def _one_by_one(queue: Any, operation: int, buffers: list[Any], wait: float) -> dict[str, Any]:
    """A request for each buffer, made once the one before was answered or `wait` seconds went by without.

    {"answers": [[status, reason]], none where none came, "seconds": [of each], "foreign", "in_flight", "missed"}."""
    answers, seconds, missed = [], [], queue.waiter.missed
    for buffer in buffers:
        begin = time.monotonic()
        slot = queue.submit(operation, buffer, 0)
        queue.kick()
        answers.append(NOTHING)
        while answers[-1] == NOTHING and time.monotonic() - begin < wait:
            for number, status, reason, _ in queue.wait(max(0.0, begin + wait - time.monotonic())):
                if number == slot:
                    answers[-1] = named(status, reason)
        seconds.append(time.monotonic() - begin)
    return {"answers": answers, "seconds": seconds, "foreign": queue.foreign, "in_flight": queue.in_flight,
            "missed": queue.waiter.missed - missed}


def rest(puppet: Puppet, endpoint: str, wait: float = 5.0) -> list[list[str]]:
    """Answers to what is still in flight, as they come within `wait` seconds."""
    queue = puppet.guest.queues(endpoint)[0]
    end, answers = time.monotonic() + wait, []
    while queue.in_flight and time.monotonic() < end:
        answers += [named(status, reason) for _, status, reason, _ in queue.wait(max(0.0, end - time.monotonic()))]
    return answers


def broken_nic(puppet: Puppet, nic: str, to: str) -> str:
    """What the driver raises at the next frame."""
    device = puppet.guest.nic(nic)
    buffer = puppet.guest.memory.allocate(64)
    buffer[:] = frame(bytes.fromhex(to), device.mac, 64, 1)
    try:
        device.send(buffer)
    except ConnectionError as error:
        return str(error)
    return ""


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


def arrival(puppet: Puppet, nic: str, wait: float) -> dict[str, Any]:
    """The next frame: "digests" of none or one, "seconds" until it was found, "missed": interrupts meanwhile."""
    begin, missed = time.monotonic(), puppet.guest.missed_interrupts
    digests = receive(puppet, nic, 1, wait)
    return {"digests": digests, "seconds": time.monotonic() - begin, "missed": puppet.guest.missed_interrupts - missed}

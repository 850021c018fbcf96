"""System calls, sound and otherwise."""

from __future__ import annotations

import ctypes
import time
from typing import Any

import doorbell
from memory import find, peek, poke
from puppet import Puppet

from pyx.abi import CALLS, REASON_NAMES, STATUS_NAMES, channel_size, ring_size
from pyx.calls import RequestError

CAPACITY = 256  # of a call ring
PATIENCE = 0.5  # seconds for a worker that was woken to take a call
TAIL, HEAD = 64, 128  # of a ring header: the producer's index and the consumer's


def null(puppet: Puppet, timeout: float = 10.0) -> int:
    return puppet.guest.calls.call(CALLS["null"], timeout=timeout)


def connect(puppet: Puppet, service: str) -> list[Any]:
    """["ok", result], or the status and the reason of the refusal."""
    try:
        return ["ok", puppet.guest.calls.connect(service)]
    except RequestError as error:
        return [error.status, error.reason]


def raw(puppet: Puppet, slots: list[str]) -> list[list[Any]]:
    """[id, status, reason, result] of each slot of 64 bytes (hexadecimal), one after the other."""
    answers = []
    for slot in slots:
        identity, status, reason, result = puppet.guest.calls.call_raw(bytes.fromhex(slot))
        answers.append([identity, STATUS_NAMES[status], REASON_NAMES[reason], result])
    return answers


def silence(puppet: Puppet, slot: str, count: int) -> None:
    """Queues calls by hand and takes no answer: as many as the monitor takes, and a ring full behind them. The ring
    must not have been used before."""
    base = find(puppet, channel_size(CAPACITY))
    first = base + ring_size(CAPACITY) - 64 * CAPACITY  # slots lie behind the header
    for number in range(count):
        end = time.monotonic() + PATIENCE
        while number - peek(base + HEAD) == CAPACITY:
            doorbell.ring(doorbell.MONITOR)
            if time.monotonic() > end:
                return
        ctypes.memmove(first + 64 * (number % CAPACITY), bytes.fromhex(slot), 64)
        poke(puppet, base + TAIL, number + 1)
    doorbell.ring(doorbell.MONITOR)

"""System calls, sound and otherwise."""

from __future__ import annotations

from typing import Any

from memory import find, poke
from puppet import Puppet

from pyx.abi import CALLS, REASON_NAMES, STATUS_NAMES, channel_size, ring_size
from pyx.guest import RequestError

CAPACITY = 256  # of a call ring
HEAD = 128  # of a ring header: the consumer's index


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


def flood(puppet: Puppet, slot: str, count: int, address: int, value: int) -> None:
    """Calls without taking the answers; a word is written anew after each."""
    for _ in range(count):
        try:
            puppet.guest.calls.call_raw(bytes.fromhex(slot), timeout=0.0)
        except TimeoutError:
            pass
        poke(puppet, address, value)


def silence(puppet: Puppet, slot: str, count: int) -> None:
    """Calls whose answers stay in the ring: what the guest's library gives back is taken back."""
    head = find(puppet, channel_size(CAPACITY)) + ring_size(CAPACITY) + HEAD
    for _ in range(count):
        poke(puppet, head, 0)
        try:
            puppet.guest.calls.call_raw(bytes.fromhex(slot), timeout=0.0)
        except TimeoutError:
            pass
    poke(puppet, head, 0)

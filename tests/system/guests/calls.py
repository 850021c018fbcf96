"""System calls, sound and otherwise."""

from __future__ import annotations

from typing import Any

from memory import poke
from puppet import Puppet

from pyx.abi import CALLS, REASON_NAMES, STATUS_NAMES
from pyx.guest import RequestError


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

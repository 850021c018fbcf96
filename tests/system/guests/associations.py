"""Security associations of a guest's NIC; frames come and go by the functions of offloads.py."""

from __future__ import annotations

from typing import Any

from puppet import Puppet

from pyx import abi
from pyx.calls import RequestError


def add(puppet: Puppet, nic: str, way: list[Any], key: str, **what: Any) -> None:
    """`way`: direction, SPI, from and to."""
    if "inner" in what:
        what["inner"] = tuple(what["inner"])
    puppet.guest.nic(nic).associations.add(*way, key=bytes.fromhex(key), **what)


def remove(puppet: Puppet, nic: str, way: list[Any]) -> None:
    puppet.guest.nic(nic).associations.remove(*way)


def attempt(puppet: Puppet, nic: str, way: list[Any], key: str, **what: Any) -> str:
    """What `add` objects to; "" where it does not."""
    try:
        add(puppet, nic, way, key, **what)
    except (RequestError, PermissionError) as error:
        return str(error)
    return ""


def raw(puppet: Puppet, nic: str, order: str) -> str:
    """An order as a hostile driver would write it; the reason why it is refused, "" where it is not."""
    device = puppet.guest.nic(nic)
    buffer = puppet.guest.memory.allocate(len(order) // 2)
    buffer[:] = bytes.fromhex(order)
    try:
        device.send_many([buffer], abi.OPERATIONS["associate"])
    except RequestError as error:
        return error.reason
    return ""

"""Rules of the manifest about network interfaces of unmodified programs: names, addresses, MTU (H7)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

from hostd.manifest_checks import Found, Path, entries
from hostd.netlink import Address
from hostd.records import is_python
from hostd.tap import MTU_DEFAULT, MTU_LEAST_IPV6, NAME_MOST

Entries = list[tuple[Path, dict[Any, Any]]]


def check_interfaces(partition: dict[Any, Any]) -> Iterator[Found]:
    """Rules inside one partition."""
    program = partition.get("program")
    word = program[0] if isinstance(program, list) and program else None
    python = isinstance(word, str) and is_python(word)
    for path, nic in entries(partition, "nics"):
        name, mtu = nic.get("name"), nic.get("mtu")
        if python and nic.get("tcp") is None:
            hint = "a Python guest sends and receives frames itself; with tcp the device ends connections for it"
            for key in ("addresses", "mtu", "expose"):
                if nic.get(key) and nic[key] != MTU_DEFAULT:
                    yield Found((*path, key), "belongs to unmodified programs", None, None, hint)
            continue
        if nic.get("tcp") is not None and not (python and nic.get("addresses")):
            text = "belongs to a Python guest's NIC that has addresses"
            yield Found((*path, "tcp"), text, None, "addresses: [10.0.0.2/24]", "a program has the kernel's TCP anyway")
        if isinstance(name, str) and (name == "lo" or len(name) > NAME_MOST):
            accepted = f"at most {NAME_MOST} characters, and not lo"
            yield Found((*path, "name"), "cannot be the name of an interface", name, accepted)
        for place, address in _addresses(nic):
            if address.version == 6 and isinstance(mtu, int) and mtu < MTU_LEAST_IPV6:
                accepted = f"at least {MTU_LEAST_IPV6}"
                yield Found((*path, "mtu"), "is too small for IPv6", mtu, accepted, f"addresses.{place} is {address}")
                break


def check_networks(devices: Entries, partitions: Entries) -> Iterator[Found]:
    """No two interfaces at one device have the same address."""
    default = next((str(device.get("name")) for _, device in devices if device.get("kind") == "nic"), "")
    first: dict[tuple[str, object], Path] = {}
    for path, partition in partitions:
        for nic_path, nic in entries(partition, "nics", path):
            device = str(nic.get("device") or default)
            for place, address in _addresses(nic):
                here = (*nic_path, "addresses", place)
                there = first.setdefault((device, address.ip), here)
                if there != here:
                    text = f"first at {'.'.join(map(str, there))}"
                    yield Found(here, f"is an address twice at device {device}", str(address), None, text)


def _addresses(nic: dict[Any, Any]) -> Iterator[tuple[int, Address]]:
    """Those that can be read; the others are the models' to report."""
    texts = nic.get("addresses")
    for place, text in enumerate(texts if isinstance(texts, list) else []):
        try:
            yield place, ipaddress.ip_interface(text)
        except ValueError:
            continue

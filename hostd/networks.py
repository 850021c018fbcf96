"""Network interfaces of unmodified programs: whose address is whose, and what a new process is told of its own (H7)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any

from hostd.errors import HostError
from hostd.queue_pairs import several
from hostd.records import ENDED


def claim(record: Any, others: Iterable[Any]) -> None:
    """HostError `conflict` where an address of a new partition belongs to one that runs at the same device."""
    wanted = {(nic.device, ipaddress.ip_interface(text).ip) for nic in record.spec.nics for text in _all(nic)}
    if len(wanted) < sum(len(_all(nic)) for nic in record.spec.nics):
        raise HostError("conflict", f"{record.spec.name}: an address is given twice")
    for other in others:
        if other is record or other.type != "guest" or other.state in ENDED:
            continue
        for nic in other.spec.nics:
            for text in _all(nic):
                address = ipaddress.ip_interface(text).ip
                if (nic.device, address) in wanted:
                    owner = f"{nic.name} of {other.spec.name} at {nic.device}"
                    text = f"{record.spec.name}: address {address} belongs to {owner}"
                    raise HostError("conflict", text, address=str(address), user=other.spec.name)


def _all(nic: Any) -> list[str]:
    """Addresses that a NIC brings to its switch: its own, and those of the host that it is exposed to."""
    return [*nic.addresses, *(nic.expose.addresses if nic.expose else ())]


def document(record: Any, symmetric: bool) -> dict[str, Any]:
    """What a program with endpoints is started with beside its words: documents of hostd.tap.Interface, in the order of
    its NICs, and what the process above it maps. Nothing for a program without."""
    if not record.spec.nics and not record.spec.disks:
        return {}
    macs = {endpoint["name"]: endpoint["mac"] for endpoint in record.plan["endpoints"]}
    interfaces = [
        {
            "name": nic.name, "mac": macs[nic.name], "mtu": nic.mtu, "addresses": list(nic.addresses),
            "offloads": nic.offloads, "queues": nic.queues,
        }  # fmt: skip
        for nic in record.spec.nics
    ]
    config = {"plan": record.plan, "symmetric": symmetric, "network": interfaces, "queues": several(record.spec)}
    return {"network": interfaces, "config": config}

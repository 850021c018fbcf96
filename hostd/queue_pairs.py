"""Which endpoints are the queue pairs of one NIC: the first one has its name and address (hostd.nic_queues)."""

from __future__ import annotations

from typing import Any

from hostd.manifest import Nic, PartitionSpec
from hostd.path_changes import endpoint_of
from hostd.records import Record, is_python

Row = dict[str, Any]


def names_of(nic: Nic) -> list[str]:
    """The endpoints of a NIC, the first one first."""
    return [nic.name, *(f"{nic.name}-q{number}" for number in range(1, nic.queues))]


def several(spec: PartitionSpec) -> dict[str, list[str]]:
    """The endpoints of each NIC that has more than one."""
    return {nic.name: names_of(nic) for nic in spec.nics if nic.queues > 1}


def pairs_of(record: Record, name: str) -> list[Row]:
    """All endpoints of the NIC `name`, by hostd's plan; a disk, or a NIC of one queue pair, is alone."""
    nic = next((one for one in getattr(record.spec, "nics", ()) if one.name == name), None)
    return [endpoint_of(record, one) for one in (names_of(nic) if nic else [name])]


def switched(record: Record, endpoint: Row) -> Row:
    """What the switch is told of an endpoint; `lead`: port of its NIC's first queue pair, where it is another one;
    `queues`: how many of its queue pairs are in use (hostd.nic_queues), of the first one."""
    for nic in getattr(record.spec, "nics", ()):
        if endpoint["name"] in names_of(nic):
            first = endpoint["name"] == nic.name
            lead = None if first else endpoint_of(record, nic.name)["port"]
            mtu = 0 if is_python(record.spec.program[0]) else nic.mtu
            rules = {"vlan": nic.vlan or 0, "trunk": nic.trunk, "mtu": mtu}
            used = endpoint.get("queues_used", nic.queues) if first else 1
            return {"lead": lead, "queues": used, **rules, "watches": nic.promiscuous and first}
    return {"lead": None, "queues": 1, "vlan": 0, "trunk": [], "mtu": 0, "watches": False}

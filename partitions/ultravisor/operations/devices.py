"""Operations on devices: a device belongs to the partition that runs its program."""

from __future__ import annotations

from typing import Any

from partitions.messages import Fields, Refusal
from partitions.ultravisor.change import Change
from partitions.ultravisor.types import DEVICE_CLASSES, PORTS_MAX
from pyx import abi


def create(change: Change, fields: Fields) -> dict[str, Any]:
    """`name`, `kind` (nic, disk), `class` (W2), `partition` that runs it, `ports`: endpoints that it can hold."""
    name = fields.name("name")
    kind = fields.choice("kind", ("nic", "disk"))
    device_class = fields.choice("class", DEVICE_CLASSES, default="shared")
    partition = change.partition(fields.reference("partition"))
    ports = fields.integer("ports", 1, PORTS_MAX, default=PORTS_MAX)
    fields.done()
    device, slot, generation = change.new_id("device", "device", abi.DEVICES_MAX)
    change.insert(
        "device",
        **{"id": device, "slot": slot, "generation": generation, "name": name, "kind": kind, "class": device_class},
        ports=ports,
        partition=partition["id"],
    )
    return {"device": device, "slot": slot, "generation": generation}


def remove(change: Change, fields: Fields) -> dict[str, Any]:
    device = change.device(fields.reference("device"))
    fields.done()
    drop(change, device)
    return {"device": device["id"]}


def drop(change: Change, device: dict[str, Any]) -> None:
    """Deletes a device without endpoints."""
    users = change.database.rows(
        """SELECT partition.name AS partition, endpoint.name AS endpoint FROM endpoint
           JOIN partition ON partition.id = endpoint.partition WHERE device = ? LIMIT 16""",
        (device["id"],),
    )
    if users:
        raise Refusal("conflict", f"endpoints use the device {device['name']}", rule="device_in_use", rows=users)
    change.apply("DELETE FROM device WHERE id = :id", id=device["id"])

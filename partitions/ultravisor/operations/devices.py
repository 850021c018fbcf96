"""Operations on buses and devices: a device belongs to the partition that runs its program; a guest may have one, or
all on a bus, to itself (H4)."""

from __future__ import annotations

from typing import Any

from partitions.messages import Fields, Refusal
from partitions.ultravisor.change import Change
from partitions.ultravisor.types import DEVICE_CLASSES, PORTS_MAX
from pyx import abi


def create(change: Change, fields: Fields) -> dict[str, Any]:
    """`name`, `kind` (nic, disk), `class` (W2), `partition` that runs it, `ports`: endpoints that it can hold,
    `bus` on which it lies, by number."""
    name = fields.name("name")
    kind = fields.choice("kind", ("nic", "disk"))
    device_class = fields.choice("class", DEVICE_CLASSES, default="shared")
    partition = change.partition(fields.reference("partition"))
    ports = fields.integer("ports", 1, PORTS_MAX, default=PORTS_MAX)
    number = fields.integer("bus", most=abi.BUSES_MAX - 1, default=None)
    bus = None if number is None else change.bus(number)["number"]
    fields.done()
    device, slot, generation = change.new_id("device", "device", abi.DEVICES_MAX)
    change.insert(
        "device",
        **{"id": device, "slot": slot, "generation": generation, "name": name, "kind": kind, "class": device_class},
        ports=ports,
        partition=partition["id"],
        bus=bus,
    )
    return {"device": device, "slot": slot, "generation": generation}


def remove(change: Change, fields: Fields) -> dict[str, Any]:
    device = change.device(fields.reference("device"))
    fields.done()
    drop(change, device)
    return {"device": device["id"]}


def drop(change: Change, device: dict[str, Any]) -> None:
    """Deletes a device without endpoints and owner."""
    users = change.database.rows(
        """SELECT partition.name AS partition, endpoint.name AS endpoint FROM endpoint
           JOIN partition ON partition.id = endpoint.partition WHERE device = ? LIMIT 16""",
        (device["id"],),
    )
    users += change.database.rows(
        "SELECT name AS owner FROM assignment JOIN partition ON id = partition WHERE device = ?", (device["id"],)
    )
    if users:
        message = f"others have a part of the device {device['name']}"
        raise Refusal("conflict", message, rule="device_in_use", rows=users)
    change.apply("DELETE FROM device WHERE id = :id", id=device["id"])


def define_buses(change: Change, fields: Fields) -> dict[str, Any]:
    """The `buses` of the machine, a list of {"number", "name"}, in place of those before; no device lies on one yet."""
    buses = [_bus(item, position) for position, item in enumerate(fields.items("buses", abi.BUSES_MAX))]
    fields.done()
    used = change.database.rows("SELECT name AS device, bus FROM device WHERE bus IS NOT NULL LIMIT 16")
    if used:
        raise Refusal("conflict", "devices lie on buses", rule="bus_in_use", rows=used)
    change.apply("DELETE FROM bus")
    for bus in buses:
        change.insert("bus", **bus)
    return {"buses": [bus["number"] for bus in buses]}


def _bus(item: object, position: int) -> dict[str, Any]:
    fields = Fields(item, f"buses.{position}")
    row = {"number": fields.integer("number", most=abi.BUSES_MAX - 1), "name": fields.name("name")}
    fields.done()
    return row


def assign(change: Change, partition: dict[str, Any], devices: list[str], buses: list[str]) -> None:
    """Gives a new partition devices and buses to itself, each by name; the constraints judge whether they are free."""
    for name in dict.fromkeys(devices):
        change.insert("assignment", partition=partition["id"], device=change.device(name)["id"])
    for name in dict.fromkeys(buses):
        change.insert("assignment", partition=partition["id"], bus=change.bus(name)["number"])

"""Rules of the manifest about buses and about devices that one partition has to itself (H4)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hostd.manifest_checks import Found, Path, entries, unique

Entries = list[tuple[Path, dict[Any, Any]]]


def check_buses(document: dict[Any, Any]) -> Iterator[Found]:
    """Every device lies on one bus at most, and where there are buses on one; nobody else uses an assigned device."""
    devices, buses = entries(document, "devices"), entries(document, "buses")
    partitions = entries(document, "partitions")
    kinds = {device["name"]: device.get("kind") for _, device in devices if isinstance(device.get("name"), str)}
    yield from unique(buses, "bus")
    yield from _numbers(buses)
    yield from _placed(devices, buses, kinds)
    owners: dict[str, str] = {}
    for path, partition in partitions:
        yield from _assigned(path, partition, buses, kinds, owners)
    for path, partition in partitions:
        yield from _used(path, partition, kinds, owners)


def _names(entry: dict[Any, Any], key: str) -> list[tuple[int, str]]:
    found = entry.get(key)
    words = found if isinstance(found, list) else []
    return [(place, name) for place, name in enumerate(words) if isinstance(name, str)]


def _numbers(buses: Entries) -> Iterator[Found]:
    first: dict[int, Path] = {}
    for path, bus in buses:
        number = bus.get("number")
        if isinstance(number, int) and first.setdefault(number, path) != path:
            yield Found((*path, "number"), "is the number of two buses", number, None, "leave it out to get a free one")


def _placed(devices: Entries, buses: Entries, kinds: dict[str, Any]) -> Iterator[Found]:
    first: dict[str, Path] = {}
    for path, bus in buses:
        for place, name in _names(bus, "devices"):
            where = (*path, "devices", place)
            if name not in kinds:
                yield Found(where, "is not defined as a device", name, ", ".join(kinds) or "no device is defined")
            elif first.setdefault(name, where) != where:
                yield Found(where, "lies on two buses", name)
    for path, device in devices:
        if buses and device.get("name") in kinds and device["name"] not in first:
            yield Found((*path, "name"), "lies on no bus", device["name"], None, "add it to the devices of a bus")


def _assigned(
    path: Path, partition: dict[Any, Any], buses: Entries, kinds: dict[str, Any], owners: dict[str, str]
) -> Iterator[Found]:
    on_bus = {bus.get("name"): [name for _, name in _names(bus, "devices")] for _, bus in buses}
    wanted: list[tuple[Path, str, list[str] | None]]
    wanted = [((*path, "devices", place), name, [name]) for place, name in _names(partition, "devices")]
    wanted += [((*path, "buses", place), name, on_bus.get(name)) for place, name in _names(partition, "buses")]
    for where, name, members in wanted:
        if members is None:
            yield Found(where, "is not defined as a bus", name, ", ".join(map(str, on_bus)) or "no bus is defined")
            continue
        for device in members:
            owner = owners.setdefault(device, str(partition.get("name")))
            if device not in kinds and where[-2] == "devices":
                yield Found(where, "is not defined as a device", device, ", ".join(kinds) or "no device is defined")
            elif owner != partition.get("name"):
                yield Found(where, f"is assigned to {owner} already", device)


def _used(path: Path, partition: dict[Any, Any], kinds: dict[str, Any], owners: dict[str, str]) -> Iterator[Found]:
    for key, kind in (("disks", "disk"), ("nics", "nic")):
        for where, endpoint in entries(partition, key, path):
            own = {name for _, name in _names(partition, "devices")}
            device = endpoint.get("device") or chosen(kind, kinds, own)
            owner = owners.get(str(device))
            if owner is not None and owner != partition.get("name"):
                yield Found((*where, "device"), f"is assigned to {owner} alone", device, None, "name another device")


def chosen(kind: str, kinds: dict[str, Any], own: set[str]) -> str | None:
    """The device of an endpoint that names none: the first fitting one of the partition's own, or of the host."""
    fitting = [name for name, of in kinds.items() if of == kind]
    return next((name for name in fitting if name in own), fitting[0] if fitting else None)

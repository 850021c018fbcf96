"""Where devices lie in the configuration space, and what of it one partition is shown (H1, H3 to H5).

A device has a bus and a number on it. A partition sees its endpoint on a device as a function there: a share of a
device has an identity of its own, a device that is assigned as a whole appears as it is. Functions keep their place
as long as their endpoint lives.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from pyx.abi import BUS_DEVICES, BUSES_MAX, FUNCTIONS

WHOLE = 0xFFFF  # in place of an endpoint's index: a device without an endpoint of this partition

Address = tuple[int, int, int]  # bus, device, function


@dataclass(frozen=True)
class Location:
    """A device on its bus. `owner`: name of the partition that it is assigned to as a whole."""

    name: str
    kind: str
    bus: int
    number: int
    owner: str | None = None

    def document(self) -> dict[str, Any]:
        return asdict(self)


def locate(manifest: Any) -> dict[str, Location]:
    """Every device of a manifest by name. Without buses in it, devices fill bus 0 and following in their order."""
    kinds = {device.name: device.kind for device in manifest.devices}
    owners = owners_of(manifest)
    if not manifest.buses:
        places = {name: divmod(place, BUS_DEVICES) for place, name in enumerate(kinds)}
    else:
        places = {
            name: (number, place)
            for bus, number in zip(manifest.buses, numbers(manifest.buses), strict=True)
            for place, name in enumerate(bus.devices)
        }
    return {name: Location(name, kinds[name], *place, owners.get(name)) for name, place in places.items()}


def numbers(buses: Iterable[Any]) -> list[int]:
    """The number of each bus: its own, or the next one that no bus has asked for."""
    taken = {bus.number for bus in buses if bus.number is not None}
    free = (number for number in range(BUSES_MAX) if number not in taken)
    return [next(free) if bus.number is None else bus.number for bus in buses]


def owners_of(manifest: Any) -> dict[str, str]:
    """Device -> partition that it is assigned to, by name or with its bus."""
    on_bus = {bus.name: bus.devices for bus in manifest.buses}
    return {
        device: partition.name
        for partition in manifest.partitions
        for device in (*partition.devices, *(device for bus in partition.buses for device in on_bus.get(bus, ())))
    }


def place(endpoints: Iterable[dict[str, Any]], locations: dict[int, Location], kept: dict[int, Address]) -> None:
    """Gives each endpoint of a partition a function, in `kept` by generation of the endpoint; what is gone leaves it.

    `locations` by device slot. The first eight on a device are its functions; more go to the bus's free numbers, from
    the last one down.
    """
    living = {endpoint["generation"]: endpoint for endpoint in endpoints}
    for generation in [generation for generation in kept if generation not in living]:
        del kept[generation]
    taken = set(kept.values())
    for generation, endpoint in living.items():
        if generation not in kept:
            found = next(address for address in _places(endpoint["device"], locations) if address not in taken)
            kept[generation] = found
            taken.add(found)


def _places(slot: int, locations: dict[int, Location]) -> Iterator[Address]:
    home = locations[slot]
    used = {location.number for location in locations.values() if location.bus == home.bus}
    spare = [number for number in reversed(range(BUS_DEVICES)) if number not in used]
    for number in (home.number, *spare):
        for function in range(FUNCTIONS):
            yield home.bus, number, function


def address_text(address: Address) -> str:
    """bus:device.function, as lspci writes it."""
    bus, device, function = address
    return f"{bus:02x}:{device:02x}.{function}"


def true_devices(locations: Iterable[Location], users: Iterable[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Every device of the machine with the endpoints on it, for those who may see all. `users`: partition, endpoint."""
    ends = list(users)
    return [
        {
            "device": location.name,
            "kind": location.kind,
            "address": address_text((location.bus, location.number, 0)),
            "owner": location.owner,
            "endpoints": [
                {"partition": name, "endpoint": end["name"], "port": end["port"]}
                for name, end in ends
                if end["device"] == location.name
            ],
        }
        for location in sorted(locations, key=lambda location: (location.bus, location.number))
    ]

"""Where devices lie in the configuration space, and what of it one partition is shown (H1, H3 to H5).

A device has a bus and a number on it. A partition sees its endpoint on a device as a function there: a share of a
device has an identity of its own, a device that is assigned as a whole appears as it is. Functions keep their place
as long as their endpoint lives.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from hostd.errors import HostError
from pyx import config_page
from pyx.abi import BUS_DEVICES, BUSES_MAX, FUNCTIONS, PAGE

WHOLE = 0xFFFF  # in place of an endpoint's index: a device without an endpoint of this partition

Address = tuple[int, int, int]  # bus, device, function
Facts = dict[str, Any]


@dataclass(frozen=True)
class Location:
    """A device on its bus."""

    name: str
    kind: str
    bus: int
    number: int

    def document(self) -> dict[str, Any]:
        return asdict(self)


def locate(manifest: Any) -> dict[str, Location]:
    """Every device of a manifest by name. Without buses in it, devices fill bus 0 and following in their order."""
    kinds = {device.name: device.kind for device in manifest.devices}
    if not manifest.buses:
        places = {name: divmod(place, BUS_DEVICES) for place, name in enumerate(kinds)}
    else:
        places = {
            name: (number, place)
            for bus, number in zip(manifest.buses, numbers(manifest.buses), strict=True)
            for place, name in enumerate(bus.devices)
        }
    return {name: Location(name, kinds[name], *place) for name, place in places.items()}


def numbers(buses: Iterable[Any]) -> list[int]:
    """The number of each bus: its own, or the next one that no bus has asked for."""
    taken = {bus.number for bus in buses if bus.number is not None}
    free = (number for number in range(BUSES_MAX) if number not in taken)
    return [next(free) if bus.number is None else bus.number for bus in buses]


def assigned(spec: Any, manifest: Any) -> list[str]:
    """Devices that a partition has to itself, by name or with their bus; whether it may the command partition decides.
    HostError `invalid` for an unknown name."""
    on_bus = {bus.name: bus.devices for bus in manifest.buses}
    known = [device.name for device in manifest.devices]
    for what, names, there in (("bus", spec.buses, list(on_bus)), ("device", spec.devices, known)):
        unknown = next((name for name in names if name not in there), None)
        if unknown is not None:
            raise HostError("invalid", f"{spec.name}: no {what} {unknown!r}; known: {', '.join(there) or 'none'}")
    return list(dict.fromkeys([*spec.devices, *(device for name in spec.buses for device in on_bus[name])]))


def place(endpoints: Iterable[Facts], locations: Mapping[Any, Location], kept: dict[int, Address]) -> None:
    """Gives each endpoint of a partition a function, in `kept` by generation of the endpoint; what is gone leaves it.

    `locations` by what an endpoint calls its device. The first eight on a device are its functions; more go to the
    bus's free numbers, from the last one down.
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


def _places(device: Any, locations: Mapping[Any, Location]) -> Iterator[Address]:
    home = locations[device]
    used = {location.number for location in locations.values() if location.bus == home.bus}
    spare = [number for number in reversed(range(BUS_DEVICES)) if number not in used]
    for number in (home.number, *spare):
        for function in range(FUNCTIONS):
            yield home.bus, number, function


def functions_of(
    own: Container[str], endpoints: Iterable[Facts], locations: Mapping[Any, Location], places: Mapping[int, Address]
) -> list[Facts]:
    """What a partition is shown, in order of address: its endpoints, and those of its `own` devices, assigned to it as
    a whole, of which it has no endpoint."""
    functions: list[Facts] = []
    for endpoint in endpoints:
        location = locations[endpoint["device"]]
        functions.append(
            {
                **{key: endpoint[key] for key in ("index", "name", "kind", "generation", "length", "mac")},
                "read_only": bool(endpoint["read_only"]),
                "address": places[endpoint["generation"]],
                "outcome": "true" if location.name in own else "changed",
                "device": location.name,
            }
        )
    used = {function["device"] for function in functions}
    for location in locations.values():
        if location.name in own and location.name not in used:
            facts = {"index": WHOLE, "name": location.name, "kind": location.kind, "device": location.name}
            unknown = {"generation": 0, "length": 0, "read_only": False, "mac": ""}
            functions.append({**facts, **unknown, "address": (location.bus, location.number, 0), "outcome": "true"})
    several = {function["address"][:2] for function in functions if function["address"][2]}
    functions.sort(key=lambda function: function["address"])
    return [{**function, "several": function["address"][:2] in several} for function in functions]


def pages_of(functions: list[Facts], memory_pages: int, processors: int, changes: int) -> list[tuple[int, str, bytes]]:
    """Pages of a configuration region that are not all ones: (number, "true" or "changed", content)."""
    pages = [
        (config_page.number(*function["address"]), function["outcome"], config_page.build(function))
        for function in functions
    ]
    tables = config_page.build_table(functions, memory_pages, processors, changes)
    return pages + [(config_page.TABLE + index, "changed", content) for index, content in enumerate(tables)]


def built(
    own: Container[str], plan: Facts, locations: Mapping[Any, Location], processors: int
) -> tuple[list[int], bytes]:
    """Numbers and content of the pages of a partition, for a host without page faults that could be answered."""
    places: dict[int, Address] = {}
    place(plan["endpoints"], locations, places)
    functions = functions_of(own, plan["endpoints"], locations, places)
    memory = sum(extent["size"] for extent in plan["memory"])
    pages = pages_of(functions, memory // PAGE, processors, 1)
    return [number for number, _, _ in pages], b"".join(content for _, _, content in pages)


def address_text(address: Address) -> str:
    """bus:device.function, as lspci writes it."""
    bus, device, function = address
    return f"{bus:02x}:{device:02x}.{function}"


def true_devices(locations: Iterable[Location], records: Iterable[Any]) -> list[Facts]:
    """Every device of the machine with its owner and the endpoints on it, for those who may see all."""
    known = list(records)
    ends = [(record.name, end) for record in known for end in record.plan.get("endpoints", [])]
    owners = {device: record.name for record in known for device in record.assigned}
    return [
        {
            "device": location.name,
            "kind": location.kind,
            "address": address_text((location.bus, location.number, 0)),
            "owner": owners.get(location.name),
            "endpoints": [
                {"partition": name, "endpoint": end["name"], "port": end["port"]}
                for name, end in ends
                if end["device"] == location.name
            ],
        }
        for location in sorted(locations, key=lambda location: (location.bus, location.number))
    ]

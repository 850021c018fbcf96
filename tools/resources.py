"""Inventories of a host: one as `hostctl view --resources` prints it, two side by side as `load` and `unload` do."""

from collections.abc import Iterator
from operator import itemgetter
from typing import Any

from hostd.units import show_size
from tools import output

# Lists of an inventory, each with the fact that names a row best.
LISTS = {
    "partitions": "name",
    "memory": "partition",
    "segments": "kind",
    "channels": "kind",
    "devices": "name",
    "endpoints": "name",
    "assignments": "device",
    "host_segments": "label",
}


def changes(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    """One line for each list that differs: how many rows came and went, and their names."""
    for name, fact in LISTS.items():
        old, new = before.get(name, []), after.get(name, [])
        came, went = [row for row in new if row not in old], [row for row in old if row not in new]
        if came or went:
            parts = [f"{sign}{len(rows)} ({_names(rows, fact)})" for sign, rows in (("+", came), ("-", went)) if rows]
            yield f"  {name}: {', '.join(parts)}"


def _names(rows: list[dict[str, Any]], fact: str) -> str:
    names = sorted({str(row[fact]) for row in rows})
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")


def resource_map(document: dict[str, Any]) -> Iterator[str]:
    """Who has what: machine and quotas, then a table for each list that has rows."""
    machine = document.get("machine") or {"first_frame": 0, "frames": 0}
    page = 4096
    free = sum(extent["frames"] for extent in document.get("free", [])) * page
    size, first = show_size(machine["frames"] * page), machine["first_frame"] * page
    yield f"machine    {size} at {first:#x}, {show_size(free)} free"
    processors = (f"{one['number']} ({one['role']})" for one in document.get("processors", []))
    yield f"processors {', '.join(processors) or 'none'}"
    quotas = (f"{one['resource']} {one['used']} of {one['maximum']}" for one in document.get("quotas", []))
    yield f"quotas     {', '.join(quotas) or 'none'}"
    for name, columns in TABLES.items():
        if document.get(name):
            yield ""
            yield name.upper().replace("_", " ")
            yield from output.table(document[name], columns)
    for device, extents in sorted(document.get("maps", {}).items()):
        mapped = ", ".join(f"{show_size(one['size'])} at {one['hpa']:#x}" for one in extents) or "none"
        yield f"memory that {device} maps: {mapped}"


def _columns(*names: str, **shown: Any) -> list[output.Column]:
    return [(name.upper(), shown.get(name, itemgetter(name))) for name in names]


def _size(row: dict[str, Any]) -> str:
    return show_size(row["size"])


def _memory(row: dict[str, Any]) -> str:
    return show_size(row["memory"])


def _address(name: str) -> Any:
    return lambda row: f"{row[name]:#x}"


TABLES: dict[str, list[output.Column]] = {
    "partitions": _columns("name", "type", "state", "uid", "memory", "pid", memory=_memory),
    "memory": _columns("partition", "hpa", "gpa", "size", hpa=_address("hpa"), gpa=_address("gpa"), size=_size),
    "devices": _columns("name", "kind", "class", "ports", "bus", "partition"),
    "assignments": _columns("partition", "device", "bus"),
    "endpoints": _columns("partition", "name", "kind", "device", "port", "server", "path"),
    "channels": _columns("kind", "client", "server", "service", "queue", "capacity", "size", "state", size=_size),
    "segments": _columns("partition", "kind", "size", size=_size),
    "host_segments": _columns("label", "kind", "size", size=_size),
}

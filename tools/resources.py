"""Two inventories of a host side by side, as `hostctl load` and `unload` print them."""

from collections.abc import Iterator
from typing import Any

# Lists of an inventory, each with the fact that names a row best.
LISTS = {
    "partitions": "name",
    "memory": "partition",
    "segments": "kind",
    "channels": "kind",
    "devices": "name",
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

"""Who has what on a host, as one document that two moments can be compared by: before a load, after its unload (W10).

From the resource database: machine, quotas, partitions with their processes, memory, segments, channels, devices with
their endpoints and owners. From the keeper: segments of hostd's own. From the devices: what they map. Ids, generations
and epochs are left out: they never repeat, so they always differ.
"""

from __future__ import annotations

from typing import Any

from hostd.fabric import Fabric, ask
from hostd.keeper import Keeper
from hostd.records import Record
from hostd.role_segments import LABEL

PAGE = 500  # rows of one answer
Row = dict[str, Any]

# What is shown of a row of each list.
FACTS = {
    "partitions": ("name", "type", "state", "uid", "memory", "pid"),
    "memory": ("partition", "hpa", "gpa", "size"),
    "segments": ("partition", "kind", "size", "doomed"),
    "channels": ("kind", "client", "server", "service", "queue", "capacity", "size", "state"),
    "devices": ("name", "kind", "class", "ports", "partition", "bus"),
    "endpoints": ("partition", "name", "kind", "device", "port", "server", "path"),
    "assignments": ("partition", "device", "bus"),
}
WHOLE = ("devices", "assignments")  # lists that are answered whole
KEYS = {"partitions": "id", "memory": "frame", "segments": "id", "channels": "id", "endpoints": "generation"}


class Inventory:
    """Takes inventories of one host."""

    def __init__(self, records: dict[str, Record], fabric: Fabric, keeper: Keeper) -> None:
        self._records = records
        self._fabric = fabric
        self._keeper = keeper

    async def take(self) -> Row:
        command = self._records["command"]
        found = await ask(command, "query", {"what": "resources"})
        return {
            "machine": found["machine"],
            "processors": found["processors"],
            "quotas": found["quotas"],
            "free": found["free"],
            **{what: await self._list(what) for what in FACTS},
            "host_segments": await self._own_segments(),
            "maps": {name: await self._extents(record) for name, record in list(self._fabric.devices.items())},
        }

    async def _list(self, what: str) -> list[Row]:
        rows: list[Row] = []
        after = 0
        while True:
            paged = {} if what in WHOLE else {"after": after, "limit": PAGE}
            part = (await ask(self._records["command"], "query", {"what": what, **paged}))[what]
            rows += part
            if what in WHOLE or len(part) < PAGE:
                break
            after = part[-1][KEYS[what]]
        return ordered({name: row[name] for name in FACTS[what]} for row in rows)

    async def _own_segments(self) -> list[Row]:
        rows = (await self._keeper.list())["segments"]
        return ordered(
            {"label": row["label"], "kind": row["kind"], "size": row["size"]}
            for row in rows
            if row["label"].startswith(LABEL)
        )

    async def _extents(self, device: Record) -> list[Row]:
        """Machine memory that a device maps."""
        return (await ask(device, "memory", {}))["extents"]


def ordered(rows: Any) -> list[Row]:
    """In an order that does not depend on when they were made."""
    return sorted(rows, key=lambda row: [str(value) for value in row.values()])

"""A partition as hostd needs it to start its process: its memory, segments, endpoints and queues (U4).

The plan is read from the database alone, so it is the same after any restart.
"""

from __future__ import annotations

import json
from typing import Any

from partitions.ultravisor.database import Database
from partitions.ultravisor.types import QUEUES
from pyx import abi


def plan_of(database: Database, partition: int) -> dict[str, Any]:
    """The plan of a partition that exists. `hpa`, `gpa` and sizes in bytes; segments by the keeper's ids."""
    row = database.row("SELECT * FROM partition WHERE id = ?", (partition,))
    assert row is not None
    singles = "SELECT kind, id FROM segment WHERE partition = ? AND kind IN ('view', 'map', 'call', 'events')"
    single = dict(tuple(row) for row in database.execute(singles, (partition,)))
    return {
        "partition": {name: row[name] for name in ("id", "slot", "generation", "name", "type", "state", "uid")},
        "memory": _memory(database, partition),
        "withheld": withheld_of(database, partition),
        "revoked": database.rows(
            "SELECT gpa, size, state, generation FROM withheld WHERE partition = ? AND state <> 'given' ORDER BY gpa",
            (partition,),
        ),
        "view": single.get("view"),
        "map": single.get("map"),
        "map_pages": row["map_pages"],
        "call": {"segment": single["call"], "capacity": row["call_capacity"]} if "call" in single else None,
        "events": single.get("events"),
        "services": json.loads(row["services"]),
        "processors": [
            number
            for (number,) in database.execute(
                "SELECT processor FROM partition_processor WHERE partition = ? ORDER BY processor", (partition,)
            )
        ],
        "program": json.loads(row["program"]),
        "endpoints": _endpoints(database, partition),
        "channels": _channels(database, partition),
    }


def withheld_of(database: Database, partition: int) -> list[dict[str, int]]:
    return database.rows("SELECT gpa, size FROM withheld WHERE partition = ? ORDER BY gpa", (partition,))


def _memory(database: Database, partition: int) -> list[dict[str, Any]]:
    extents = database.rows("SELECT * FROM live_extent WHERE partition = ? ORDER BY gpa", (partition,))
    return [
        {
            "gpa": extent["gpa"],
            "hpa": extent["frame"] * abi.PAGE,
            "size": extent["frames"] * abi.PAGE,
            "segment": extent["segment"],
        }
        for extent in extents
    ]


def _endpoints(database: Database, partition: int) -> list[dict[str, Any]]:
    rows = database.rows(
        """SELECT endpoint.*, device.name AS device_name, device.slot AS device_slot, server.name AS server_name,
                  server.slot AS server_slot, standby.name AS standby_name
           FROM endpoint JOIN device ON device.id = endpoint.device
           LEFT JOIN partition AS server ON server.id = endpoint.server
           LEFT JOIN partition AS standby ON standby.id = endpoint.standby
           WHERE endpoint.partition = ? ORDER BY number""",
        (partition,),
    )
    return [
        {
            "index": row["number"],
            "generation": row["generation"],
            "name": row["name"],
            "kind": row["kind"],
            "device": row["device_name"],
            "device_slot": row["device_slot"],
            "port": row["port"],
            "server": row["server_name"],
            "server_slot": row["server_slot"],
            "standby": row["standby_name"],
            "read_only": bool(row["read_only"]),
            "offset": row["offset"],
            "length": row["length"],
            "mac": row["mac"],
            "file": row["file"],
            "operations": row["operations"],
            "max_transfer": row["max_transfer"],
            "path": row["path"],
            "wanted": row["wanted"],
            "weight": row["weight"],
            "limits": json.loads(row["limits"]),
            "budget": row["budget"],
            "queues": _queues(database, row["generation"], row["kind"]),
            "pair": _pair(database, row["generation"]),
        }
        for row in rows
    ]


def _queues(database: Database, endpoint: int, kind: str) -> list[dict[str, Any]]:
    rows = database.rows("SELECT * FROM channel WHERE endpoint = ? AND kind = 'queue' ORDER BY queue", (endpoint,))
    return [
        {
            "queue": row["queue"],
            "name": QUEUES[kind][row["queue"]],
            "capacity": row["capacity"],
            "id": row["id"],
            "channel": row["segment"],
            "ledger": row["ledger"],
        }
        for row in rows
    ]


def _pair(database: Database, endpoint: int) -> dict[str, Any] | None:
    """The queue pair to the device, with the capacity of each of its queues."""
    return database.row("SELECT id, segment, capacity FROM channel WHERE endpoint = ? AND kind = 'pair'", (endpoint,))


def _channels(database: Database, partition: int) -> list[dict[str, Any]]:
    """Control channels of which it is the client."""
    return database.rows(
        """SELECT channel.id, name AS server, service, capacity, segment FROM channel
           JOIN partition ON partition.id = server WHERE client = ? AND kind = 'control' ORDER BY channel.id""",
        (partition,),
    )

"""Answers about the contents of the database, for hostd and the command partition, which may see all of it.

Every answer carries the version that it shows. Lists that grow are paged: `after` is the last key seen, `limit`
bounds the rows, so an answer fits one message.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from partitions.messages import Fields, Refusal, shown
from partitions.ultravisor.database import Database
from partitions.ultravisor.plan import plan_of
from partitions.ultravisor.states import WITH_PROCESS
from partitions.ultravisor.types import TYPES
from pyx import abi

ROWS_MAX = 500  # of one answer
FREE_MAX = 4096  # free extents of one answer

Query = Callable[[Database, Fields], dict[str, Any]]


def run(database: Database, fields: Fields) -> dict[str, Any]:
    """The operation `query`: `what` names the rows, the other fields depend on it."""
    what = fields.choice("what", tuple(QUERIES))
    answer = QUERIES[what](database, fields)
    fields.done()
    return {"version": database.version, **answer}


def free_extents(database: Database) -> list[dict[str, int]]:
    """What nobody owns, in the order of frames."""
    machine = database.row("SELECT first_frame, frames FROM machine")
    if machine is None:
        return []
    free, position = [], machine["first_frame"]
    end = position + machine["frames"]
    for frame, frames in database.execute("SELECT frame, frames FROM extent ORDER BY frame"):
        if frame > position:
            free.append({"frame": position, "frames": frame - position})
        position = frame + frames
    if position < end:
        free.append({"frame": position, "frames": end - position})
    return free


def _free(database: Database, fields: Fields) -> dict[str, Any]:
    return {"free": free_extents(database)[:FREE_MAX]}


def _resources(database: Database, fields: Fields) -> dict[str, Any]:
    """Everything that a placement depends on, and nothing else: it is stored with each decision."""
    usage = {kind: {"partitions": 0, "memory": 0} for kind in TYPES}
    for kind, count, memory in database.execute("SELECT type, count(*), sum(memory) FROM partition GROUP BY type"):
        usage[kind] = {"partitions": count, "memory": memory}
    return {
        "machine": database.row("SELECT first_frame, frames FROM machine"),
        "free": free_extents(database)[:FREE_MAX],
        "processors": database.rows("SELECT number, role FROM processor ORDER BY number"),
        "quotas": database.rows("SELECT resource, used, maximum FROM quota ORDER BY resource"),
        "usage": usage,
        "devices": database.rows(
            """SELECT name, kind, class, ports,
                      (SELECT count(*) FROM endpoint WHERE endpoint.device = device.id) AS used,
                      (SELECT bus.name FROM bus WHERE bus.number = device.bus) AS bus,
                      (SELECT partition.name FROM device_owner JOIN partition ON partition.id = device_owner.partition
                       WHERE device_owner.device = device.id) AS owner
               FROM device ORDER BY name"""
        ),
        "users": _users(database),
        "buses": [name for (name,) in database.execute("SELECT name FROM bus ORDER BY number")],
        "servers": database.rows(
            "SELECT name, state FROM partition WHERE type = 'io' AND state <> 'removed' ORDER BY slot"
        ),
    }


def _users(database: Database) -> dict[str, list[str]]:
    """By device the names of partitions with endpoints there."""
    users: dict[str, list[str]] = {}
    for device, partition in database.execute(
        """SELECT DISTINCT device.name, partition.name FROM endpoint JOIN device ON device.id = endpoint.device
           JOIN partition ON partition.id = endpoint.partition ORDER BY device.name, partition.name"""
    ):
        users.setdefault(device, []).append(partition)
    return users


def _partitions(database: Database, fields: Fields) -> dict[str, Any]:
    after, limit = fields.integer("after", default=0), fields.integer("limit", 1, ROWS_MAX, default=ROWS_MAX)
    rows = database.rows(
        """SELECT partition.id, slot, generation, name, type, state, uid, memory, pid, start_time FROM partition
           LEFT JOIN process ON process.partition = partition.id
           WHERE partition.id > ? AND state <> 'removed' ORDER BY partition.id LIMIT ?""",
        (after, limit),
    )
    return {"partitions": rows}


def _partition(database: Database, fields: Fields) -> dict[str, Any]:
    reference = fields.reference("partition")
    column = "id" if isinstance(reference, int) else "name"
    row = database.row(f"SELECT id FROM partition WHERE {column} = ? AND state <> 'removed'", (reference,))
    if row is None:
        raise Refusal("not_found", f"no partition {shown(reference)}", rule="partition", rows=[])
    process = database.row("SELECT pid, start_time FROM process WHERE partition = ?", (row["id"],))
    return {"partition": {**plan_of(database, row["id"]), "process": process}}


def _channels(database: Database, fields: Fields) -> dict[str, Any]:
    """Ends, size, generation and state of each memory channel (U4). One is open while both its ends have a
    process; that follows from their states and is not stored a second time."""
    after, limit = fields.integer("after", default=0), fields.integer("limit", 1, ROWS_MAX, default=ROWS_MAX)
    rows = database.rows(
        """SELECT channel.id, channel.generation, channel.kind, client.name AS client, server.name AS server, capacity,
                  channel.segment, segment.size, ledger, endpoint, queue, service,
                  client.state AS client_state, server.state AS server_state
           FROM channel JOIN partition AS client ON client.id = client JOIN partition AS server ON server.id = server
           JOIN segment ON segment.id = channel.segment WHERE channel.id > ? ORDER BY channel.id LIMIT ?""",
        (after, limit),
    )
    for row in rows:
        ends = (row.pop("client_state"), row.pop("server_state"))
        row["state"] = "open" if all(end in WITH_PROCESS for end in ends) else "closed"
    return {"channels": rows}


def _memory(database: Database, fields: Fields) -> dict[str, Any]:
    after, limit = fields.integer("after", default=0), fields.integer("limit", 1, ROWS_MAX, default=ROWS_MAX)
    rows = database.rows(
        """SELECT frame, frames, name AS partition, gpa, segment, doomed FROM extent
           JOIN partition ON partition.id = extent.partition JOIN segment ON segment.id = extent.segment
           WHERE frame > ? ORDER BY frame LIMIT ?""",
        (after, limit),
    )
    return {"memory": [{**row, "hpa": row["frame"] * abi.PAGE, "size": row["frames"] * abi.PAGE} for row in rows]}


def _segments(database: Database, fields: Fields) -> dict[str, Any]:
    after, limit = fields.integer("after", default=0), fields.integer("limit", 1, ROWS_MAX, default=ROWS_MAX)
    rows = database.rows(
        """SELECT segment.id, kind, size, name AS partition, doomed FROM segment
           JOIN partition ON partition.id = segment.partition WHERE segment.id > ? ORDER BY segment.id LIMIT ?""",
        (after, limit),
    )
    return {"segments": rows}


def _devices(database: Database, fields: Fields) -> dict[str, Any]:
    rows = database.rows(
        """SELECT device.id, device.slot, device.generation, device.name, kind, class, ports,
                  partition.name AS partition, bus
           FROM device JOIN partition ON partition.id = device.partition ORDER BY device.name"""
    )
    return {"devices": rows}


def _assignments(database: Database, fields: Fields) -> dict[str, Any]:
    """Devices and buses that guests have to themselves; of a bus each device on it too, with the bus."""
    rows = database.rows(
        """SELECT partition.name AS partition, device.name AS device, bus.name AS bus FROM assignment
           JOIN partition ON partition.id = assignment.partition
           LEFT JOIN bus ON bus.number = assignment.bus
           LEFT JOIN device ON device.id = assignment.device OR device.bus = assignment.bus
           ORDER BY device.name, bus.name"""
    )
    return {"assignments": rows}


def _endpoints(database: Database, fields: Fields) -> dict[str, Any]:
    after, limit = fields.integer("after", default=0), fields.integer("limit", 1, ROWS_MAX, default=ROWS_MAX)
    rows = database.rows(
        """SELECT endpoint.generation, partition.name AS partition, endpoint.name, endpoint.kind, device.name AS device,
                  port, server.name AS server, read_only, file, offset, length, mac, path, wanted
           FROM endpoint JOIN partition ON partition.id = endpoint.partition JOIN device ON device.id = endpoint.device
           LEFT JOIN partition AS server ON server.id = endpoint.server
           WHERE endpoint.generation > ? ORDER BY endpoint.generation LIMIT ?""",
        (after, limit),
    )
    return {"endpoints": rows}


def _audit(database: Database, fields: Fields) -> dict[str, Any]:
    after, limit = fields.integer("after", default=0), fields.integer("limit", 1, 100, default=100)
    rows = database.rows("SELECT * FROM audit WHERE sequence > ? ORDER BY sequence LIMIT ?", (after, limit))
    return {"audit": rows}


def _transactions(database: Database, fields: Fields) -> dict[str, Any]:
    """Committed changes whose answers are kept, by version; with `key`, that one with its results."""
    key = fields.text("key", default=None)
    after, limit = fields.integer("after", default=0), fields.integer("limit", 1, ROWS_MAX, default=ROWS_MAX)
    if key is None:
        columns = "SELECT key, version FROM answer WHERE version > ? ORDER BY version LIMIT ?"
        return {"transactions": database.rows(columns, (after, limit))}
    rows = database.rows("SELECT key, version, results FROM answer WHERE key = ?", (key,))
    return {"transactions": [{**row, "results": json.loads(row["results"])} for row in rows]}


QUERIES: dict[str, Query] = {
    "resources": _resources,
    "free": _free,
    "partitions": _partitions,
    "partition": _partition,
    "channels": _channels,
    "memory": _memory,
    "segments": _segments,
    "devices": _devices,
    "assignments": _assignments,
    "endpoints": _endpoints,
    "audit": _audit,
    "transactions": _transactions,
}

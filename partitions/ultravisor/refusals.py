"""From a broken constraint to a refusal: rule, sentence, and the rows that stand in the way.

The constraints of schema.sql are the judges; what is here only explains their verdict, so nothing here can let
a bad change through. Keys are the names that SQLite reports: of a trigger's rule, of a named CHECK, or the
columns of a UNIQUE constraint.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

from partitions.messages import Refusal
from partitions.ultravisor import states
from partitions.ultravisor.database import Database
from pyx import abi

ROWS_MAX = 16  # conflicting rows that a refusal names


@dataclass(frozen=True)
class Rule:
    """`rows` is a query over the values of the refused statement; `table` the one that it applies to, or any."""

    code: str
    sentence: str
    rows: str = ""


_OVERLAPPING_FRAMES = """
    SELECT partition.name AS partition, frame, frames FROM extent JOIN partition ON partition.id = extent.partition
    WHERE frame < :frame + :frames AND :frame < frame + frames ORDER BY frame"""

# Of an assignment or an endpoint, of which only the former has a bus.
_OWNERS = """
    SELECT device.name AS device, partition.name AS owner FROM device_owner
    JOIN device ON device.id = device_owner.device JOIN partition ON partition.id = device_owner.partition
    WHERE device.id = :device OR device.bus = :bus ORDER BY device.name"""
_USERS = """
    SELECT device.name AS device, partition.name AS user, endpoint.name AS endpoint FROM endpoint
    JOIN device ON device.id = endpoint.device JOIN partition ON partition.id = endpoint.partition
    WHERE (device.id = :device OR device.bus = :bus) AND endpoint.partition <> :partition ORDER BY device.name"""

RULES = {
    "frames_overlap": Rule("conflict", "these frames are owned already", _OVERLAPPING_FRAMES),
    "addresses_overlap": Rule(
        "conflict",
        "these partition addresses are backed already",
        f"""SELECT gpa, frame, frames FROM extent WHERE partition = :partition
           AND gpa < :gpa + :frames * {abi.PAGE} AND :gpa < gpa + frames * {abi.PAGE} ORDER BY gpa""",
    ),
    "frames_outside_machine": Rule(
        "conflict", "frames would lie outside the machine", "SELECT first_frame, frames FROM machine"
    ),
    "addresses_outside_map": Rule(
        "invalid", "the partition map is too small", "SELECT name, map_pages FROM partition WHERE id = :partition"
    ),
    "foreign_segment": Rule("internal", "a segment of another partition, kind or size"),
    "segment_in_use": Rule("internal", "the segment is in use"),
    "immutable": Rule("internal", "this row never changes"),
    "append_only": Rule("internal", "this table only grows"),
    "generation_reused": Rule("internal", "a generation must not be used twice"),
    "state_move": Rule("state", "this state cannot follow", "SELECT name, state FROM partition WHERE id = :id"),
    "running_without_process": Rule(
        "state", "no process is recorded", "SELECT name, state FROM partition WHERE id = :id"
    ),
    "process_remains": Rule(
        "state", "a process is still recorded", "SELECT pid, start_time FROM process WHERE partition = :id"
    ),
    "process_without_state": Rule(
        "state", "it has no process in this state", "SELECT name, state FROM partition WHERE id = :partition"
    ),
    "partition_type": Rule(
        "invalid",
        "this type of partition cannot take that part",
        "SELECT name, type FROM partition WHERE id IN (:server, :standby)",
    ),
    "device_mismatch": Rule(
        "conflict",
        "the device is of another kind, or all its ports are taken",
        "SELECT name, kind, ports FROM device WHERE id = :device",
    ),
    "device_class": Rule(
        "denied", "the device's class keeps it from this partition", "SELECT name, class FROM device WHERE id = :device"
    ),
    "withheld_overlap": Rule(
        "conflict",
        "these addresses are withheld already",
        """SELECT gpa, size FROM withheld WHERE partition = :partition
           AND gpa < :gpa + :size AND :gpa < gpa + size ORDER BY gpa""",
    ),
    "revocation_move": Rule(
        "state",
        "its revocation is in another state",
        "SELECT gpa, size, state FROM withheld WHERE partition = :partition AND gpa = :gpa",
    ),
    "device_owned": Rule("conflict", "another partition has the device to itself", _OWNERS),
    "device_used": Rule("conflict", "others use the device", _USERS),
    "assignment_type": Rule(
        "invalid", "only guests have devices to themselves", "SELECT name, type FROM partition WHERE id = :partition"
    ),
    "assignment.device": Rule("conflict", "the device is assigned already", _OWNERS),
    "assignment.bus": Rule("conflict", "the bus is assigned already", _OWNERS),
    "bus.name": Rule("conflict", "a bus has this name already", "SELECT number, name FROM bus WHERE name = :name"),
    "endpoint_alone": Rule(
        "denied",
        "only the console drives a device by itself, and only one that is host-managed",
        "SELECT name, class FROM device WHERE id = :device",
    ),
    "two_writers": Rule(
        "conflict",
        "another endpoint writes in this range of the file",
        """SELECT partition.name AS partition, endpoint.name AS endpoint, offset, length FROM endpoint
           JOIN partition ON partition.id = endpoint.partition
           WHERE device = :device AND file = :file AND read_only = 0
           AND offset < :offset + :length AND :offset < offset + length ORDER BY offset""",
    ),
    "disk_shrinks": Rule(
        "state",
        "a disk only grows while a partition has it",
        "SELECT name, kind, length FROM endpoint WHERE generation = :generation",
    ),
    "path_unwanted": Rule(
        "conflict",
        "an endpoint goes over only to the path that a transaction wants",
        "SELECT name, path, wanted FROM endpoint WHERE generation = :generation",
    ),
    "pair_ends": Rule("internal", "a queue pair joins an endpoint's own partition and its own device"),
    "quota_exceeded": Rule(
        "conflict", "the machine has no more of it", "SELECT resource, used, maximum FROM quota ORDER BY resource"
    ),
    "quota_negative": Rule("internal", "more given back than was taken"),
    "endpoint_shape": Rule("invalid", "a disk needs file and length, a NIC needs an address, and neither the other's"),
    "endpoint_read_only": Rule("invalid", "a read-only disk cannot grant writing"),
    "endpoint_standby": Rule("invalid", "server and standby must differ"),
    "channel_ends": Rule("invalid", "a channel has two different ends"),
    "partition.name": Rule(
        "conflict", "the name is taken", "SELECT id, name, type, state FROM partition WHERE name = :name"
    ),
    "partition_uid": Rule("conflict", "another guest has this uid", "SELECT id, name FROM partition WHERE uid = :uid"),
    "process.pid, process.start_time": Rule(
        "conflict",
        "this process belongs to another partition",
        """SELECT name FROM partition JOIN process ON partition = id
           WHERE pid = :pid AND start_time = :start_time""",
    ),
    "process.partition": Rule(
        "conflict", "the partition has a process", "SELECT pid, start_time FROM process WHERE partition = :partition"
    ),
    "segment.id": Rule(
        "internal", "the keeper gave out a segment twice", "SELECT partition, kind FROM segment WHERE id = :id"
    ),
    "extent.frame": Rule("conflict", "these frames are owned already", _OVERLAPPING_FRAMES),
    "device.name": Rule("conflict", "the device exists", "SELECT id, name, kind, class FROM device WHERE name = :name"),
    "endpoint.partition, endpoint.name": Rule(
        "conflict",
        "the partition has an endpoint of this name",
        "SELECT number, name, kind FROM endpoint WHERE partition = :partition AND name = :name",
    ),
    "endpoint.device, endpoint.mac": Rule(
        "conflict",
        "the address is taken at this device",
        """SELECT partition.name AS partition, endpoint.name AS endpoint, mac FROM endpoint
           JOIN partition ON partition.id = endpoint.partition WHERE device = :device AND mac = :mac""",
    ),
    "channel.client, channel.server, channel.service": Rule(
        "conflict",
        "these two have a channel for this service",
        "SELECT id, service FROM channel WHERE client = :client AND server = :server AND service = :service",
    ),
}


def rule_name(error: sqlite3.IntegrityError) -> str:
    """The name that the broken constraint goes by in RULES."""
    text = str(error)
    kind, separator, name = text.partition(" constraint failed: ")
    if not separator:
        return text  # RAISE(ABORT, name)
    # An expression index, and one with a WHERE clause over other columns, is reported by its columns or its name.
    return {"partition.uid": "partition_uid"}.get(name, name.removeprefix("index '").removesuffix("'"))


def refusal(database: Database, error: sqlite3.IntegrityError, values: dict[str, Any]) -> Refusal:
    """The refusal for a statement with `values` that broke a constraint."""
    name = rule_name(error)
    rule = RULES.get(name)
    if rule is None:
        return Refusal("invalid", f"the database refuses these values: {error}", rule=name, rows=[])
    rows = []
    if rule.rows:
        known = _Known(values)
        rows = database.rows(f"SELECT * FROM ({rule.rows}) LIMIT {ROWS_MAX}", known)
    return Refusal(rule.code, _sentence(name, rule, values, rows), rule=name, rows=rows)


def _sentence(name: str, rule: Rule, values: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    if name == "state_move" and rows:
        source, target = rows[0]["state"], values.get("state", "removed")
        reason = states.reason_against(source, target) or rule.sentence
        return f"{rows[0]['name']} is {source} and cannot become {target}: {reason}"
    if not rows:
        return rule.sentence
    shown = "; ".join(", ".join(f"{column} {value}" for column, value in row.items()) for row in rows[:3])
    return f"{rule.sentence} ({shown}{'; ...' if len(rows) > 3 else ''})"


class _Known(dict):
    """Values that a refused statement did not have count as NULL in the query for rows."""

    def __missing__(self, key: str) -> None:
        return None

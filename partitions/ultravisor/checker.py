"""Invariants of the resource database, checked on its rows by other means than its constraints (rule test 33).

What a constraint or trigger should have prevented is looked for again here, in plain Python, so that a rule that
was lost from the schema is noticed. With a keeper, its segments are compared as well. Reads everything once.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from partitions.ultravisor.database import Database
from partitions.ultravisor.keeper import Keeper
from partitions.ultravisor.states import STATES, WITH_PROCESS
from partitions.ultravisor.types import PATHS, QUEUES, TYPES
from pyx import abi


def check(database: Database, keeper: Keeper | None = None) -> list[str]:
    """All violations as sentences; an empty list is what everybody wants."""
    tables = {name: database.rows(f"SELECT * FROM {name}") for name in TABLES}
    found = list(database.integrity())
    for invariant in INVARIANTS:
        found += invariant(tables)
    if keeper is not None:
        found += _keeper_agrees(tables, keeper)
    return found


TABLES = (
    "head", "life", "quota", "machine", "processor", "partition", "partition_processor", "process", "segment",
    "extent", "withheld", "bus", "device", "assignment", "endpoint", "channel", "epoch",
)  # fmt: skip

Tables = dict[str, list[dict[str, Any]]]


def _overlaps(ranges: Iterable[tuple[int, int, str]]) -> list[str]:
    """(first, count, name) in any order: pairs that share a number."""
    found, end, last = [], None, ""
    for first, count, name in sorted(ranges):
        if end is not None and first < end:
            found.append(f"{last} and {name} overlap at {first}")
        if end is None or first + count > end:
            end, last = first + count, name
    return found


def _memory(tables: Tables) -> Iterable[str]:
    extents = tables["extent"]
    yield from _overlaps((row["frame"], row["frames"], f"extent {row['frame']}") for row in extents)
    machine = tables["machine"][0] if tables["machine"] else {"first_frame": 0, "frames": 0}
    end = machine["first_frame"] + machine["frames"]
    doomed = {row["id"] for row in tables["segment"] if row["doomed"]}
    for row in extents:
        if row["frame"] < machine["first_frame"] or row["frame"] + row["frames"] > end:
            yield f"extent {row['frame']} lies outside the machine"
    for partition in tables["partition"]:
        own = [row for row in extents if row["partition"] == partition["id"] and row["segment"] not in doomed]
        name = partition["name"]
        yield from _overlaps((row["gpa"], row["frames"] * abi.PAGE, f"{name} address {row['gpa']}") for row in own)
        total = sum(row["frames"] for row in own) * abi.PAGE
        if partition["state"] != "removed" and total != partition["memory"]:
            yield f"{name} has {partition['memory']} bytes on record and {total} in extents"
        kept = [(row["gpa"], row["size"], f"{name} withheld {row['gpa']}") for row in tables["withheld"]
                if row["partition"] == partition["id"]]  # fmt: skip
        yield from _overlaps(kept)
        if any(gpa + size > partition["map_pages"] * abi.PAGE for gpa, size, _ in kept):
            yield f"{name} has addresses withheld that it cannot have"
        if own and max(row["gpa"] + row["frames"] * abi.PAGE for row in own) != total:
            yield f"{name} has a gap in its addresses"


def _quotas(tables: Tables) -> Iterable[str]:
    used = {
        "frames": sum(row["frames"] for row in tables["extent"]),
        "partitions": len(tables["partition"]),
        "endpoints": len(tables["endpoint"]),
        "channels": len(tables["channel"]),
    }
    for row in tables["quota"]:
        if row["used"] != used[row["resource"]]:
            yield f"quota {row['resource']}: {row['used']} on record, {used[row['resource']]} in use"
        if not 0 <= row["used"] <= row["maximum"]:
            yield f"quota {row['resource']}: {row['used']} of {row['maximum']}"


def _generations(tables: Tables) -> Iterable[str]:
    last = {(row["scope"], row["slot"]): row["generation"] for row in tables["life"]}
    for scope in ("partition", "device", "channel"):
        for row in tables[scope]:
            if row["generation"] > last.get((scope, row["slot"]), 0):
                yield f"{scope} {row['id']} has a generation that was never given out"
    head = tables["head"][0]
    for row in tables["endpoint"]:
        if row["generation"] > head["endpoint_generation"]:
            yield f"endpoint {row['name']} has a generation that was never given out"
    ranges = [(row["first"], row["last"] - row["first"] + 1, f"epochs of {row['server']}") for row in tables["epoch"]]
    yield from _overlaps(ranges)
    if any(row["last"] > head["epoch"] for row in tables["epoch"]):
        yield "epochs were given out that are not on record"


def _states(tables: Tables) -> Iterable[str]:
    processes = {row["partition"] for row in tables["process"]}
    for row in tables["partition"]:
        if row["state"] not in STATES:
            yield f"{row['name']} is in an unknown state {row['state']}"
        if row["id"] in processes and row["state"] not in WITH_PROCESS:
            yield f"{row['name']} is {row['state']} and has a process"
        if row["id"] not in processes and row["state"] == "running":
            yield f"{row['name']} is running without a process"
    twins = Counter((row["pid"], row["start_time"]) for row in tables["process"])
    yield from (f"process {pid} belongs to {count} partitions" for (pid, _), count in twins.items() if count > 1)


def _segments(tables: Tables) -> Iterable[str]:
    """Every segment backs exactly one thing of its own partition, and every partition has what its type says."""
    owner = {row["id"]: row["partition"] for row in tables["segment"]}
    doomed = {row["id"] for row in tables["segment"] if row["doomed"]}
    uses: Counter[int] = Counter()
    users = [(row["segment"], row["partition"]) for row in tables["extent"]]
    users += [(row[name], row["client"]) for row in tables["channel"] for name in ("segment", "ledger") if row[name]]
    for segment, partition in users:
        uses[segment] += 1
        if owner.get(segment) != partition:
            yield f"segment {segment} is used by another partition than its owner"
    for row in tables["segment"]:
        if row["kind"] in ("memory", "channel", "ledger") and uses[row["id"]] != 1 and row["id"] not in doomed:
            yield f"segment {row['id']} ({row['kind']}) backs {uses[row['id']]} things"
    for row in tables["partition"]:
        if row["state"] != "removed":
            yield from _type_segments(tables, row)


def _type_segments(tables: Tables, partition: dict[str, Any]) -> Iterable[str]:
    rule = TYPES[partition["type"]]
    wanted = {
        "view": rule.view,
        "map": partition["map_pages"] > 0,
        "call": rule.call_capacity > 0,
        "events": rule.events,
    }
    has = Counter(row["kind"] for row in tables["segment"] if row["partition"] == partition["id"])
    for kind, due in wanted.items():
        if has[kind] != int(due):
            yield f"{partition['name']} has {has[kind]} segments of kind {kind} instead of {int(due)}"


def _endpoints(tables: Tables) -> Iterable[str]:
    devices = {row["id"]: row for row in tables["device"]}
    types = {row["id"]: row["type"] for row in tables["partition"]}
    queues = Counter(row["endpoint"] for row in tables["channel"] if row["kind"] == "queue")
    pairs = Counter(row["endpoint"] for row in tables["channel"] if row["kind"] == "pair")
    for row in tables["endpoint"]:
        if row["kind"] != devices[row["device"]]["kind"] or row["port"] >= devices[row["device"]]["ports"]:
            yield f"endpoint {row['name']} does not fit its device"
        if row["server"] is None:
            if types[row["partition"]] != "console":
                yield f"endpoint {row['name']} of a {types[row['partition']]} is served by nobody"
        elif types[row["server"]] != "io":
            yield f"endpoint {row['name']} is served by a partition of type {types[row['server']]}"
        if queues[row["generation"]] != (0 if row["server"] is None else len(QUEUES[row["kind"]])):
            yield f"endpoint {row['name']} has {queues[row['generation']]} queues"
        if pairs[row["generation"]] != 1:
            yield f"endpoint {row['name']} has {pairs[row['generation']]} queue pairs"
        if row["path"] not in PATHS or row["wanted"] not in PATHS:
            yield f"endpoint {row['name']} is on the path {row['path']} and to go to {row['wanted']}"
    yield from _pair_ends(tables)
    for name in ("port", "mac"):
        twins = Counter((row["device"], row[name]) for row in tables["endpoint"] if row[name] is not None)
        yield from (f"{name} {value} is taken {count} times" for (_, value), count in twins.items() if count > 1)
    writers: dict[tuple[int, str], list[tuple[int, int, str]]] = {}
    for row in tables["endpoint"]:
        if row["kind"] == "disk" and not row["read_only"]:
            writers.setdefault((row["device"], row["file"]), []).append((row["offset"], row["length"], row["file"]))
    for ranges in writers.values():
        yield from (f"two writers: {text}" for text in _overlaps(ranges))


def _pair_ends(tables: Tables) -> Iterable[str]:
    """A pair joins the partition of its endpoint and the process of its device, with queues like the server's."""
    owners = {row["id"]: row["partition"] for row in tables["device"]}
    endpoints = {row["generation"]: row for row in tables["endpoint"]}
    capacities = {row["endpoint"]: row["capacity"] for row in tables["channel"] if row["kind"] == "queue"}
    for row in tables["channel"]:
        endpoint = endpoints.get(row["endpoint"]) if row["kind"] == "pair" else None
        if endpoint is not None:
            if (row["client"], row["server"]) != (endpoint["partition"], owners[endpoint["device"]]):
                yield f"the queue pair of endpoint {endpoint['name']} has foreign ends"
            if endpoint["server"] is not None and row["capacity"] != capacities.get(row["endpoint"]):
                yield f"the queue pair of endpoint {endpoint['name']} has {row['capacity']} slots"


def _names(tables: Tables) -> Iterable[str]:
    for table, columns in (("partition", ("slot", "name")), ("device", ("slot", "name")), ("channel", ("slot",))):
        for column in columns:
            twins = Counter(row[column] for row in tables[table])
            yield from (f"{table} {column} {value} has {count} rows" for value, count in twins.items() if count > 1)
    guests = Counter(row["uid"] for row in tables["partition"] if row["type"] == "guest" and row["uid"] is not None)
    yield from (f"uid {uid} belongs to {count} guests" for uid, count in guests.items() if count > 1)
    numbers = {row["number"] for row in tables["processor"]}
    for row in tables["partition_processor"]:
        if row["processor"] not in numbers:
            yield f"partition {row['partition']} runs on processor {row['processor']}, which is unknown"
    for row in tables["partition"]:
        if any(service not in abi.SERVICES for service in json.loads(row["services"])):
            yield f"{row['name']} is granted an unknown service"


def _assignments(tables: Tables) -> Iterable[str]:
    """What a guest has to itself nobody else has, and nobody else uses (H4)."""
    names = {row["id"]: row["name"] for row in tables["partition"]}
    types = {row["id"]: row["type"] for row in tables["partition"]}
    users: dict[int, set[int]] = {}
    for row in tables["endpoint"]:
        users.setdefault(row["device"], set()).add(row["partition"])
    buses = {row["number"] for row in tables["bus"]}
    for row in tables["assignment"]:
        if types.get(row["partition"]) != "guest":
            yield f"{names.get(row['partition'])} has a device to itself and is no guest"
    for device in tables["device"]:
        if device["bus"] is not None and device["bus"] not in buses:
            yield f"device {device['name']} lies on bus {device['bus']}, which is unknown"
        mine = [row for row in tables["assignment"] if device["id"] == row["device"]]
        mine += [row for row in tables["assignment"] if row["bus"] is not None and device["bus"] == row["bus"]]
        owners = {row["partition"] for row in mine}
        if len(owners) > 1:
            yield f"device {device['name']} is assigned to {len(owners)} partitions"
        for owner in owners:
            others = [names.get(user, "?") for user in users.get(device["id"], ()) if user != owner]
            if others:
                yield f"device {device['name']} of {names.get(owner)} alone is used by {', '.join(others)}"


INVARIANTS = (_memory, _quotas, _generations, _states, _segments, _endpoints, _assignments, _names)


def _keeper_agrees(tables: Tables, keeper: Keeper) -> Iterable[str]:
    present = keeper.own_segments()
    recorded = {row["id"]: row for row in tables["segment"]}
    for segment, row in recorded.items():
        if segment not in present:
            yield f"segment {segment} ({row['kind']}) is not at the keeper"
        elif present[segment]["size"] != row["size"]:
            yield f"segment {segment} has {present[segment]['size']} bytes at the keeper, {row['size']} on record"
    yield from (f"segment {segment} at the keeper has no row" for segment in sorted(present.keys() - recorded.keys()))

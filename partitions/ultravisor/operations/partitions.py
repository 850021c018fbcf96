"""Operations on partitions: their creation with all that they own, their states, their removal (U1, U2)."""

from __future__ import annotations

import json
from typing import Any

from partitions.messages import Fields, Refusal
from partitions.ultravisor.change import Change, stored
from partitions.ultravisor.operations import channels, devices, endpoints, memory
from partitions.ultravisor.plan import plan_of
from partitions.ultravisor.states import STATES, WITH_PROCESS
from partitions.ultravisor.types import CONTROL_CAPACITY, TYPES, TypeRule
from pyx import abi

PROGRAM_MAX = 64 << 10  # bytes of JSON that hostd may keep with a partition
ASSIGNED = (("devices", abi.DEVICES_MAX), ("buses", abi.BUSES_MAX))
UID_MAX = (1 << 32) - 2  # the last value means "no uid" to the kernel


def create(change: Change, fields: Fields) -> dict[str, Any]:
    """Defines a partition and returns its plan. Fields: `name`, `type`, `memory` (bytes) with `extents`,
    `memory_maximum` (bytes that its partition map has room for), `uid`, or `uid_base` for a uid of base + slot,
    `processors`, `services`, `endpoints`, `channels` (control channels with itself as client), `devices` and
    `buses` that it has to itself, by name, `withheld` ranges of its memory ({"gpa", "size"}, bytes), which nobody
    may touch, and `program`, an object that hostd finds again in the plan."""
    name = fields.name("name")
    kind = fields.choice("type", tuple(TYPES))
    rule = TYPES[kind]
    size = fields.integer("memory", default=0)
    maximum = fields.integer("memory_maximum", least=size, default=size)
    extents = memory.parse_extents(fields, default=[])
    slot, generation = change.new_slot("partition", "partition", abi.PARTITIONS_MAX)
    row = {
        "id": abi.make_id(slot, generation),
        "slot": slot,
        "generation": generation,
        "name": name,
        "type": kind,
        "state": "defined",
        "uid": _uid(fields, slot),
        "memory": size,
        "map_pages": maximum // abi.PAGE,
        "map_generation": 1,
        "call_capacity": rule.call_capacity,
        "services": stored(fields.texts("services", len(abi.SERVICES), longest=31, default=[])),
        "program": _program(fields),
    }
    processors = fields.integers("processors", default=[])
    wanted_endpoints = fields.items("endpoints", abi.ENDPOINTS_MAX, default=[])
    withheld = memory.parse_withheld(fields)
    own = [fields.texts(what, most, longest=63, default=[]) for what, most in ASSIGNED]
    wanted_channels = fields.items("channels", abi.PARTITIONS_MAX, default=[])
    fields.done()
    _check_memory(fields, rule, row, extents, maximum)
    _check_services(fields, json.loads(row["services"]))
    change.insert("partition", **row)
    _add_segments(change, rule, row)
    memory.add_extents(change, row, 0, extents)
    for gpa, length in withheld:
        change.insert("withheld", partition=row["id"], gpa=gpa, size=length)
    _set_processors(change, row, processors)
    devices.assign(change, row, *own)
    for position, item in enumerate(wanted_endpoints):
        endpoints.add_endpoint(change, row, Fields(item, f"{fields.where}.endpoints.{position}"))
    for position, item in enumerate(wanted_channels):
        _add_channel(change, row, Fields(item, f"{fields.where}.channels.{position}"))
    change.touched.add(row["id"])
    return plan_of(change.database, row["id"])


def _uid(fields: Fields, slot: int) -> int | None:
    base = fields.integer("uid_base", most=UID_MAX - abi.PARTITIONS_MAX, default=None)
    uid = fields.integer("uid", most=UID_MAX, default=None)
    if base is not None and uid is not None:
        raise fields.refuse("uid", "either uid or uid_base", uid)
    return uid if base is None else base + slot


def _program(fields: Fields) -> str:
    program = fields.take("program", default={})
    if not isinstance(program, dict):
        raise fields.refuse("program", "an object", program)
    try:
        text = json.dumps(program, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        text.encode()  # a lone surrogate could be stored but not sent
    except (RecursionError, ValueError):
        raise fields.refuse("program", "an object of texts, numbers and lists", program) from None
    if len(text) > PROGRAM_MAX:
        raise Refusal("invalid", f"{fields.where}.program: {len(text)} bytes, at most {PROGRAM_MAX} are kept")
    return text


def _check_memory(
    fields: Fields, rule: TypeRule, row: dict[str, Any], extents: list[tuple[int, int]], maximum: int
) -> None:
    if maximum and not rule.memory:
        raise fields.refuse("memory", f"0 for the type {row['type']}", maximum)
    for name, value in (("memory", row["memory"]), ("memory_maximum", maximum)):
        if value % abi.PAGE:
            raise fields.refuse(name, f"a multiple of {abi.PAGE} bytes", value)
    given = sum(frames for _, frames in extents) * abi.PAGE
    if given != row["memory"]:
        raise Refusal("invalid", f"{fields.where}.extents: {given} bytes for {row['memory']} bytes of memory")


def _check_services(fields: Fields, services: list[str]) -> None:
    for service in services:
        if service not in abi.SERVICES:
            raise fields.refuse("services", "some of " + ", ".join(abi.SERVICES), service)


def _add_segments(change: Change, rule: TypeRule, row: dict[str, Any]) -> None:
    """The segments that partitions of this type have; queues and memory bring their own."""
    sizes = {
        "view": abi.view_size() if rule.view else 0,
        "map": abi.map_size(row["map_pages"]) if row["map_pages"] else 0,
        "call": abi.channel_size(rule.call_capacity) if rule.call_capacity else 0,
        "events": abi.events_size() if rule.events else 0,
    }
    for kind, size in sizes.items():
        if size:
            change.segment(row["id"], row["name"], kind, size)


def _add_channel(change: Change, row: dict[str, Any], fields: Fields) -> None:
    server = change.partition(fields.reference("server"), "server")
    service = fields.choice("service", tuple(abi.SERVICES))
    capacity = fields.integer("capacity", 2, abi.RING_SLOTS_MAX, default=CONTROL_CAPACITY)
    fields.done()
    channels.open_channel(change, row, server, service, capacity)


def _set_processors(change: Change, row: dict[str, Any], numbers: list[int]) -> None:
    known = {number for (number,) in change.database.execute("SELECT number FROM processor")}
    for number in numbers:
        if number not in known:
            listed = ", ".join(map(str, sorted(known))) or "none"
            raise Refusal("not_found", f"no processor {number}; known: {listed}", rule="processor", rows=[])
    change.apply("DELETE FROM partition_processor WHERE partition = :partition", partition=row["id"])
    for number in sorted(set(numbers)):
        change.insert("partition_processor", partition=row["id"], processor=number)


def processors(change: Change, fields: Fields) -> dict[str, Any]:
    """Sets on which `processors` a `partition` may run; an empty list means all."""
    row = change.partition(fields.reference("partition"))
    numbers = fields.integers("processors")
    fields.done()
    _set_processors(change, row, numbers)
    return {"partition": row["id"], "processors": sorted(set(numbers))}


def record_process(change: Change, fields: Fields) -> dict[str, Any]:
    """Records `pid` and `start_time` (clock ticks since boot) of a `partition`, which is starting with this."""
    row = change.partition(fields.reference("partition"))
    pid = fields.integer("pid", least=1)
    start_time = fields.integer("start_time")
    fields.done()
    known = change.database.row("SELECT pid, start_time FROM process WHERE partition = ?", (row["id"],))
    if known != {"pid": pid, "start_time": start_time}:  # telling the same twice changes nothing
        if row["state"] not in WITH_PROCESS:
            _move(change, row, "starting")
        change.insert("process", partition=row["id"], pid=pid, start_time=start_time)
    return {"partition": row["id"], "pid": pid, "start_time": start_time}


def state(change: Change, fields: Fields) -> dict[str, Any]:
    """Moves a `partition` to a `state`; to its present one is no move. Ends forget the process."""
    row = change.partition(fields.reference("partition"))
    target = fields.choice("state", tuple(state for state in STATES if state != "removed"))
    fields.done()
    if target != row["state"]:
        if target not in WITH_PROCESS:
            change.apply("DELETE FROM process WHERE partition = :partition", partition=row["id"])
        _move(change, row, target)
    return {"partition": row["id"], "state": target, "before": row["state"]}


def _move(change: Change, row: dict[str, Any], target: str) -> None:
    change.apply("UPDATE partition SET state = :state WHERE id = :id", id=row["id"], state=target)
    change.touched.add(row["id"])


def remove(change: Change, fields: Fields) -> dict[str, Any]:
    """Removes a `partition` that has no process, with all that it owns. What it owned is free for others once the
    keeper has dropped the segments, which happens before the answer."""
    row = change.partition(fields.reference("partition"))
    fields.done()
    _refuse_while_needed(change, row)
    for device in change.database.rows("SELECT * FROM device WHERE partition = ?", (row["id"],)):
        devices.drop(change, device)
    change.apply("DELETE FROM assignment WHERE partition = :id", id=row["id"])
    for endpoint in change.database.rows("SELECT * FROM endpoint WHERE partition = ?", (row["id"],)):
        endpoints.drop_endpoint(change, endpoint)
    change.apply("DELETE FROM channel WHERE client = :id", id=row["id"])
    change.apply("DELETE FROM partition_processor WHERE partition = :id", id=row["id"])
    change.apply("DELETE FROM epoch WHERE server = :id", id=row["id"])
    _move(change, row, "removed")
    change.apply("DELETE FROM withheld WHERE partition = :id", id=row["id"])
    dropped = change.doom("partition = :id", id=row["id"])
    change.dooms = True  # the row itself goes in the same step as the segments, also where there are none
    return {"partition": row["id"], "name": row["name"], "segments": dropped}


def _refuse_while_needed(change: Change, row: dict[str, Any]) -> None:
    needed = change.database.rows(
        """SELECT partition.name AS partition, endpoint.name AS endpoint FROM endpoint
           JOIN partition ON partition.id = endpoint.partition
           WHERE :id IN (server, standby) AND endpoint.partition <> :id
           UNION ALL SELECT partition.name, service FROM channel JOIN partition ON partition.id = client
           WHERE server = :id AND kind = 'control' LIMIT 16""",
        {"id": row["id"]},
    )
    if needed:
        raise Refusal("conflict", f"others are served by {row['name']}", rule="server_in_use", rows=needed)

"""Operations on endpoints: a device as one partition sees it, with its queues to the server in charge and its queue
pair to the device (U4, U8)."""

from __future__ import annotations

import posixpath
import re
from typing import Any

from partitions.messages import INTEGER_MAX, TEXT_MAX, Fields, Refusal
from partitions.ultravisor.change import Change
from partitions.ultravisor.operations import shares
from partitions.ultravisor.operations.channels import add_channel, checked_capacity
from partitions.ultravisor.states import WITH_PROCESS
from partitions.ultravisor.types import (
    OPERATIONS,
    PATH_ALONE,
    PATH_FIRST,
    QUEUE_CAPACITY,
    QUEUES,
    TRANSFER_MAX,
    TYPES,
    WRITING,
)
from pyx import abi

ENDPOINT_NAME = re.compile(r"[a-z][a-z0-9-]{0,14}")  # fits a descriptor with its end mark
MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


def attach(change: Change, fields: Fields) -> dict[str, Any]:
    """Gives a `partition` an endpoint; the other fields are those of one item of `partition.create`'s list."""
    partition = change.partition(fields.reference("partition"))
    return add_endpoint(change, partition, fields)


def add_endpoint(change: Change, partition: dict[str, Any], fields: Fields) -> dict[str, Any]:
    """Fields: `name`, `kind`, `device`, `server`, `standby`, `capacity`, `max_transfer` (bytes), `operations`,
    `path` (wanted from the start), `weight`, `limits`, `budget` (bytes; see shares.py);
    a disk's `file`, `offset`, `length` (bytes) and `read_only`; a NIC's `mac`. Without a `server` the partition drives
    the device by itself: that is the console's, and only at devices that are host-managed."""
    name = fields.text("name", 15, pattern=ENDPOINT_NAME)
    kind = fields.choice("kind", tuple(QUEUES))
    device = change.device(fields.reference("device"))
    in_charge = fields.reference("server", default=None)
    server = None if in_charge is None else change.partition(in_charge, "server")
    standby = fields.reference("standby", default=None)
    capacity = checked_capacity(fields.integer("capacity", 2, abi.RING_SLOTS_MAX, default=QUEUE_CAPACITY[kind]))
    max_transfer = fields.integer("max_transfer", 1, TRANSFER_MAX[kind], default=TRANSFER_MAX[kind])
    number = _free_number(change, partition)
    medium = _disk(fields) if kind == "disk" else _nic(fields, partition["slot"], number)
    operations = _operations(fields, kind, medium["read_only"])
    share = shares.share(fields, PATH_ALONE if server is None else PATH_FIRST)
    fields.done()
    if not TYPES[partition["type"]].endpoints:
        raise Refusal(
            "invalid", f"a partition of type {partition['type']} has no endpoints", rule="partition_type", rows=[]
        )
    generation = change.database.value(
        "UPDATE head SET endpoint_generation = endpoint_generation + 1 RETURNING endpoint_generation"
    )
    change.insert(
        "endpoint",
        generation=generation,
        partition=partition["id"],
        number=number,
        name=name,
        kind=kind,
        device=device["id"],
        port=_free_port(change, device["id"]),
        server=None if server is None else server["id"],
        standby=None if standby is None else change.partition(standby, "standby")["id"],
        operations=operations,
        max_transfer=max_transfer,
        **medium,
        **share,
    )
    for queue in range(0 if server is None else len(QUEUES[kind])):
        assert server is not None
        _add_queue(change, partition, server, generation, queue, capacity)
    _add_pair(change, partition, device, generation, len(QUEUES[kind]), capacity)
    change.touched.add(partition["id"])
    return {"partition": partition["id"], "index": number, "generation": generation, "name": name}


def _disk(fields: Fields) -> dict[str, Any]:
    file = fields.text("file", TEXT_MAX)
    # One spelling for one file: the rule about writers compares names.
    if posixpath.normpath(file) != file or file in (".", "..") or file.startswith(("../", "//")):
        raise fields.refuse("file", "a path in its shortest form, without ..", file)
    offset = fields.integer("offset", default=0)
    length = fields.integer("length", least=abi.SECTOR)
    for name, value in (("offset", offset), ("length", length)):
        if value % abi.SECTOR:
            raise fields.refuse(name, f"a multiple of {abi.SECTOR} bytes", value)
    if length > INTEGER_MAX - offset:
        raise fields.refuse("length", f"at most {INTEGER_MAX - offset} bytes behind that offset", length)
    read_only = int(fields.boolean("read_only", default=False))
    return {"file": file, "offset": offset, "length": length, "read_only": read_only, "mac": None}


def _nic(fields: Fields, slot: int, number: int) -> dict[str, Any]:
    mac = fields.text("mac", 17, default=None)
    if mac is None:
        # Locally administered, and derived from where the endpoint is, so unique and the same after a restart.
        mac = f"02:00:00:{slot >> 8:02x}:{slot & 0xFF:02x}:{number:02x}"
    mac = mac.lower()
    if not MAC.fullmatch(mac) or int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
        raise fields.refuse("mac", "an address of one station, like 02:00:00:00:00:01", mac)
    return {"file": None, "offset": 0, "length": 0, "read_only": 0, "mac": mac}


def _operations(fields: Fields, kind: str, read_only: int) -> int:
    """Mask of granted operations: all that the kind has, unless fewer are asked for."""
    possible = [name for name in OPERATIONS[kind] if not (read_only and name in WRITING)]
    wanted = fields.texts("operations", len(OPERATIONS[kind]), longest=16, default=possible)
    for name in wanted:
        if name not in possible:
            raise fields.refuse("operations", "some of " + ", ".join(possible), name)
    if not wanted:
        raise fields.refuse("operations", "at least one of " + ", ".join(possible), wanted)
    return abi.operations_mask(*wanted)


def _free_number(change: Change, partition: dict[str, Any]) -> int:
    rows = change.database.execute("SELECT number FROM endpoint WHERE partition = ?", (partition["id"],))
    taken = {row[0] for row in rows}
    for number in range(abi.ENDPOINTS_MAX):
        if number not in taken:
            return number
    raise Refusal("conflict", f"{partition['name']} has {abi.ENDPOINTS_MAX} endpoints already", rule="slots", rows=[])


def _free_port(change: Change, device: int) -> int:
    """Lowest free port; the device's trigger refuses one beyond its number of ports."""
    taken = {row[0] for row in change.database.execute("SELECT port FROM endpoint WHERE device = ?", (device,))}
    return next(port for port in range(len(taken) + 1) if port not in taken)


def _add_queue(
    change: Change, client: dict[str, Any], server: dict[str, Any], endpoint: int, queue: int, capacity: int
) -> None:
    segment = change.segment(client["id"], client["name"], "channel", abi.channel_size(capacity))
    ledger = change.segment(client["id"], client["name"], "ledger", abi.ledger_size(capacity))
    add_channel(
        change, "queue", client["id"], server["id"], capacity, segment, ledger=ledger, endpoint=endpoint, queue=queue
    )


def _add_pair(
    change: Change, client: dict[str, Any], device: dict[str, Any], endpoint: int, queues: int, capacity: int
) -> None:
    """Made with the endpoint and idle until it is on the direct path: a change of path needs no new segment."""
    segment = change.segment(client["id"], client["name"], "channel", abi.pair_size(queues, capacity))
    add_channel(change, "pair", client["id"], device["partition"], capacity, segment, endpoint=endpoint)


def grow(change: Change, fields: Fields) -> dict[str, Any]:
    """The disk `name` of a `partition` has `length` bytes from now on, never fewer than before; its medium has them."""
    partition = change.partition(fields.reference("partition"))
    row = known_endpoint(change, partition, fields.text("name", 15, pattern=ENDPOINT_NAME))
    length = fields.integer("length", least=abi.SECTOR)
    if length % abi.SECTOR:
        raise fields.refuse("length", f"a multiple of {abi.SECTOR} bytes", length)
    fields.done()
    place = {name: row[name] for name in ("generation", "name", "device", "file", "offset")}
    change.apply("UPDATE endpoint SET length = :length WHERE generation = :generation", length=length, **place)
    change.touched.add(partition["id"])
    return {"partition": partition["id"], "index": row["number"], "name": row["name"], "length": length}


def detach(change: Change, fields: Fields) -> dict[str, Any]:
    """Takes the endpoint `name` from a `partition`: one that has no process, or `drained`, where its device has
    confirmed that nothing of it is in flight."""
    partition = change.partition(fields.reference("partition"))
    name = fields.text("name", 15, pattern=ENDPOINT_NAME)
    drained = fields.boolean("drained", default=False)
    fields.done()
    row = known_endpoint(change, partition, name)
    if partition["state"] in WITH_PROCESS and not drained:
        raise Refusal(
            "state",
            f"{partition['name']} is {partition['state']} and may have requests in flight at {name}; stop it first",
            rule="mapped",
            rows=[{"name": partition["name"], "state": partition["state"]}],
        )
    drop_endpoint(change, row)
    change.touched.add(partition["id"])
    return {"partition": partition["id"], "index": row["number"], "generation": row["generation"], "name": name}


def known_endpoint(change: Change, partition: dict[str, Any], name: str) -> dict[str, Any]:
    row = change.database.row("SELECT * FROM endpoint WHERE partition = ? AND name = ?", (partition["id"], name))
    if row is None:
        raise Refusal("not_found", f"{partition['name']} has no endpoint {name}", rule="endpoint", rows=[])
    return row


def drop_endpoint(change: Change, row: dict[str, Any]) -> None:
    """Deletes an endpoint with its queues and its pair; their segments wait for the keeper."""
    segments = change.database.rows("SELECT segment, ledger FROM channel WHERE endpoint = ?", (row["generation"],))
    change.apply("DELETE FROM channel WHERE endpoint = :generation", generation=row["generation"])
    change.apply("DELETE FROM endpoint WHERE generation = :generation", generation=row["generation"])
    for pair in segments:
        change.doom("id IN (:segment, :ledger)", **pair)

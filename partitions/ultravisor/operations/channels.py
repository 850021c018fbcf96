"""Operations on control channels between partitions, and on the terms of office of their servers."""

from __future__ import annotations

from typing import Any

from partitions.messages import Fields, Refusal
from partitions.ultravisor.change import Change
from partitions.ultravisor.types import CHANNELS_MAX, CONTROL_CAPACITY
from pyx import abi

EPOCHS_MAX = 1 << 32  # of one reservation; 2^63 in all outlast two billion such reservations


def create(change: Change, fields: Fields) -> dict[str, Any]:
    """A control channel of `capacity` slots from `client` to `server` for `service`."""
    fields.choice("kind", ("control",), default="control")
    client = change.partition(fields.reference("client"), "client")
    server = change.partition(fields.reference("server"), "server")
    service = fields.choice("service", tuple(abi.SERVICES))
    capacity = fields.integer("capacity", 2, abi.RING_SLOTS_MAX, default=CONTROL_CAPACITY)
    fields.done()
    return open_channel(change, client, server, service, capacity)


def open_channel(
    change: Change, client: dict[str, Any], server: dict[str, Any], service: str, capacity: int
) -> dict[str, Any]:
    """Makes a control channel between two rows of partitions."""
    checked_capacity(capacity)
    segment = change.segment(client["id"], client["name"], "channel", abi.control_size(capacity))
    channel = add_channel(change, "control", client["id"], server["id"], capacity, segment, service=service)
    return {"channel": channel, "segment": segment, "capacity": capacity, "service": service}


def add_channel(
    change: Change, kind: str, client: int, server: int, capacity: int, segment: int, **more: int | str
) -> int:
    """Inserts a channel of `kind` between two partitions in that segment; its id. `more`: columns of that kind."""
    channel, slot, generation = change.new_id("channel", "channel", CHANNELS_MAX)
    change.insert(
        "channel",
        id=channel,
        slot=slot,
        generation=generation,
        kind=kind,
        client=client,
        server=server,
        capacity=capacity,
        segment=segment,
        **more,
    )
    return channel


def checked_capacity(capacity: int) -> int:
    if capacity & (capacity - 1):
        raise Refusal("invalid", f"capacity {capacity} is no power of two", rule="capacity", rows=[])
    return capacity


def remove(change: Change, fields: Fields) -> dict[str, Any]:
    """Removes a control `channel`; its segment goes with it. Queues and pairs go with their
    endpoint."""
    number = fields.integer("channel", least=1)
    fields.done()
    row = change.database.row("SELECT * FROM channel WHERE id = ?", (number,))
    if row is None:
        raise Refusal("not_found", f"no channel {number}", rule="channel", rows=[])
    if row["kind"] != "control":
        raise Refusal("invalid", f"channel {number} is a {row['kind']}; detach its endpoint", rule="channel", rows=[])
    change.apply("DELETE FROM channel WHERE id = :id", id=number)
    change.doom("id = :segment", segment=row["segment"])
    return {"channel": number}


def reserve_epochs(change: Change, fields: Fields) -> dict[str, Any]:
    """Gives a `partition` (of type io) `count` terms of office that nobody ever had or will have; they replace
    those that it had. Epochs are numbered over all servers, so a later reservation is always the higher one."""
    server = change.partition(fields.reference("partition"))
    count = fields.integer("count", 1, EPOCHS_MAX)
    fields.done()
    if server["type"] != "io":
        raise Refusal("invalid", f"{server['name']} is no I/O partition", rule="partition_type", rows=[])
    last = change.database.value("UPDATE head SET epoch = epoch + ? RETURNING epoch", (count,))
    first = last - count + 1
    change.apply(
        "INSERT INTO epoch VALUES (:server, :first, :last) ON CONFLICT DO UPDATE SET first = :first, last = :last",
        server=server["id"],
        first=first,
        last=last,
    )
    return {"partition": server["id"], "first": first, "last": last}

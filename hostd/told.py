"""What the roles of the data plane are told of a partition, out of its plan."""

from __future__ import annotations

from typing import Any

from hostd.queue_pairs import switched
from hostd.records import Record

# Facts of an endpoint that its device is told.
OF_PORT = ("port", "generation", "mac", "file", "offset", "length", "weight", "limits")


def of_port(record: Record, endpoint: dict[str, Any], memory: list[dict[str, Any]]) -> dict[str, Any]:
    """What the device of an endpoint is told; `memory`: of the partition, with its first endpoint there."""
    return {
        **{name: endpoint[name] for name in OF_PORT},
        "capacity": endpoint["pair"]["capacity"],
        "partition": record.number,
        "endpoint": endpoint["index"],
        "memory": memory,
        **switched(record, endpoint),
    }


def of_queues(endpoint: dict[str, Any]) -> list[dict[str, Any]]:
    """What the channel server of an endpoint is told of each of its queues."""
    facts = {"endpoint": endpoint["index"], "kind": endpoint["kind"], "budget": endpoint["budget"]}
    return [{**facts, "queue": queue["queue"], "capacity": queue["capacity"]} for queue in endpoint["queues"]]


def extents_of(record: Record) -> list[dict[str, int]]:
    """Where a partition's memory lies, as device and monitor are told."""
    return [{"hpa": extent["hpa"], "size": extent["size"]} for extent in record.plan["memory"]]


def revoked_of(record: Record, rows: list[dict[str, Any]] | None = None) -> list[dict[str, int]]:
    """Where in machine memory lies what is revoked of a partition's memory, or `rows` of it."""
    found = []
    for kept in record.plan.get("revoked", []) if rows is None else rows:
        for extent in record.plan["memory"]:
            first = max(kept["gpa"], extent["gpa"])
            size = min(kept["gpa"] + kept["size"], extent["gpa"] + extent["size"]) - first
            if size > 0:
                found.append({"hpa": extent["hpa"] + first - extent["gpa"], "size": size})
    return found


def segment_of(plan: dict[str, Any], name: str) -> int | None:
    """The segment that a plan names, alone or with its capacity; None where the partition has none."""
    value = plan[name]
    return value["segment"] if isinstance(value, dict) else value

"""What a partition believes of itself beside what is true: the answers to `hostctl view`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hostd.errors import HostError
from hostd.fabric import Fabric, ask
from hostd.hardware import built as pages_in_advance
from hostd.hardware import true_devices
from hostd.hardware_region import sealed
from hostd.records import Record

Row = dict[str, Any]

# Facts of an endpoint that a guest is told; the path is the one that its driver went over to.
BELIEVED = ("index", "name", "kind", "length", "read_only", "mac", "max_transfer", "path")


async def of_partition(record: Record, command: Record, monitor: Record | None) -> Row:
    """{"believed", "enforced", "true", "sandbox", "connections"}: as hostd.interface describes it. Without a monitor
    nobody enforces anything."""
    true = (await ask(command, "query", {"what": "partition", "partition": record.number}))["partition"]
    enforced = None
    known = record.attached or record.type in ("io", "ultravisor", "command", "operations")
    if monitor is not None and known:
        enforced = (await ask(monitor, "descriptor", {"partition": record.number}))["descriptor"]
    believed = {
        "name": record.name,
        "memory": sum(extent["size"] for extent in record.plan["memory"]),
        "endpoints": [{key: endpoint[key] for key in BELIEVED} for endpoint in record.plan["endpoints"]],
    }
    ends = {endpoint["generation"]: endpoint["name"] for endpoint in record.plan["endpoints"]}
    connections = {ends[number]: one.row() for number, one in record.connections.items() if number in ends}
    answer = {"believed": believed, "enforced": enforced, "true": true, "sandbox": record.sandbox}
    return {**answer, "connections": connections}


async def of_hardware(record: Record, records: Iterable[Record], fabric: Fabric) -> Row:
    """What a guest is shown of buses and devices, and all that there is, with its owners."""
    if record.type != "guest":
        raise HostError("state", f"{record.name} is part of the infrastructure: it has no configuration space")
    shown = None
    if record.attached:
        shown = (await ask(fabric.monitor, "hardware", {"partition": record.number}))["hardware"]
    return {
        "region": record.sandbox.get("hardware"),
        "believed": shown,
        "true": true_devices(fabric.locations.values(), records),
    }


def show(record: Record, fabric: Fabric, document: Row, fds: dict[str, int]) -> dict[str, int]:
    """The descriptors that a new guest's process is handed out of `fds`. Where its looks at hardware do not trap, one
    more is a sealed object with the pages that it is shown, and their numbers go into its start document: to map them,
    or to make files of them for an unmodified program."""
    maps = document["entry"] is not None or "config" in document
    if not document.get("traps"):
        numbers, content = pages_in_advance(record.assigned, record.plan, fabric.locations, record.processors)
        document.setdefault("config", {})["configuration"] = numbers
        fds["configuration"] = sealed("configuration", content)
    return fds if maps else {"configuration": fds["configuration"]}


async def of_decisions(command: Record, partition: str | None, decision: int | None, replay: bool) -> Row:
    """What was decided and why; with `replay` each record says whether it would be decided so again."""
    records = (await ask(command, "explain", {"partition": partition, "decision": decision}))["records"]
    if replay:
        for record in records:
            record["replay"] = await ask(command, "replay", {"decision": record["decision"]})
    return {"decisions": records}

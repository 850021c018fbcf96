"""What NICs of a partition may leave to their device, and who withholds the rest, as the API shows it (A2)."""

from __future__ import annotations

from typing import Any

from hostd.fabric import ask
from hostd.records import Record
from pyx import abi

Row = dict[str, Any]
SOURCES = ("device", "path", "policy", "peer")


async def of_partition(record: Record, monitor: Record) -> Row:
    """{"partition", "capabilities": [{"endpoint", "device", "path", "capability", "granted", "withheld_by": [...],
    "proved": True, False, None}]}: the monitor's table, and the partition's own word on what its probes showed."""
    rows: list[Row] = []
    told = (await ask(monitor, "offloads", {"partition": record.number}))["offloads"]
    for endpoint in record.plan["endpoints"]:
        words = told.get(str(endpoint["index"]))
        for name, bit in abi.OFFLOADS.items() if words else ():
            proved = True if words["proved"] & bit else False if words["disproved"] & bit else None
            rows.append({
                "endpoint": endpoint["name"], "device": endpoint["device"], "path": endpoint["path"],
                "capability": name, "granted": bool(words["granted"] & bit),
                "withheld_by": [source for source in SOURCES if words[source] & bit], "proved": proved,
            })  # fmt: skip
    return {"partition": record.name, "capabilities": rows}

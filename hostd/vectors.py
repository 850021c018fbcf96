"""Interrupt vectors of partitions, as the API shows and changes them (W3): routes, masks, and the console's world held.

Each queue of an endpoint has one, whoever posts it: its device, or the I/O partition that serves it. One more tells of
changes of the hardware: `@hardware`, a name that no endpoint has.

Everything is asked of the monitor, which is the master of the routes while a kernel is loaded.
"""

from __future__ import annotations

import signal
from typing import Any

from hostd.children import Children
from hostd.errors import HostError
from hostd.fabric import ask
from hostd.path_changes import endpoint_of
from hostd.records import Record
from pyx.abi import ENDPOINT_HARDWARE

HARDWARE = "@hardware"
Row = dict[str, Any]


async def of_partition(record: Record, monitor: Record) -> Row:
    """{"partition", "vectors": [...]}: route, mask and pending state of each, with its counts."""
    rows = (await ask(monitor, "vectors", {"partition": record.number}))["vectors"]
    names = {endpoint["index"]: endpoint for endpoint in record.plan["endpoints"]}
    names[ENDPOINT_HARDWARE] = {"name": HARDWARE, "device": None}
    vectors = [
        {
            **row,
            "endpoint": names[row["endpoint"]]["name"],
            "device": names[row["endpoint"]]["device"],
            "owner": record.name if row["owner"] == record.number else None,
        }
        for row in rows
        if row["endpoint"] in names
    ]
    return {"partition": record.name, "vectors": vectors}


async def mask(record: Record, monitor: Record, endpoint: str, queue: int, on: bool) -> Row:
    """Holds the interrupts of one vector, or ends that."""
    index = ENDPOINT_HARDWARE if endpoint == HARDWARE else endpoint_of(record, endpoint)["index"]
    await ask(monitor, "mask", {"partition": record.number, "endpoint": index, "queue": queue, "on": on})
    return {"partition": record.name, "endpoint": endpoint, "queue": queue, "masked": on}


async def hold(record: Record, monitor: Record, children: Children, on: bool) -> Row:
    """The console's world stands, or runs again: a world switch by hand. Worlds of guests are the scheduler's."""
    if record.type != "console":
        raise HostError("state", f"{record.name} is a {record.type}: only the console's world is held by hand")
    if on:
        answer = await ask(monitor, "hold", {"partition": record.number, "on": True})
        if not answer["held"]:
            children.signal(record, signal.SIGSTOP)
    else:
        children.signal(record, signal.SIGCONT)
        await ask(monitor, "hold", {"partition": record.number, "on": False})
    record.held = on
    return {"partition": record.name, "held": on}

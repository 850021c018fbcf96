"""What an endpoint may have of its device beside others: weight, token buckets, budget of buffers (A4).

    limits: {"bytes": {"rate": per second, "burst": amount, "period": seconds}, "operations": {the same},
             "offloads": [names of those that a NIC may use], "connections": of TCP that the device may end}

Absent means unlimited, a rate of 0 means blocked. A bucket gets its rate's share once in a period and holds at most
that and the burst, which is an amount that may be used at once.
"""

from __future__ import annotations

from typing import Any

from partitions.messages import INTEGER_MAX, Fields
from partitions.ultravisor.change import stored
from partitions.ultravisor.types import (
    BUDGET_DEFAULT,
    BUDGET_MAX,
    LIMITED,
    PATH_FIRST,
    PATHS,
    PERIOD_DEFAULT,
    PERIOD_MAX,
    PERIOD_MIN,
    WEIGHT_DEFAULT,
    WEIGHT_MAX,
)
from pyx import abi


def share(fields: Fields, first: str = PATH_FIRST) -> dict[str, Any]:
    """Columns of a new endpoint, which begins on the path `first`, out of its fields `path`, `weight`, `limits` and
    `budget`."""
    return {
        "path": first,
        "wanted": fields.choice("path", PATHS, default=first),
        "weight": fields.integer("weight", 1, WEIGHT_MAX, default=WEIGHT_DEFAULT),
        "limits": stored(_limits(fields)),
        "budget": fields.integer("budget", 1, BUDGET_MAX, default=BUDGET_DEFAULT),
    }


def _limits(fields: Fields) -> dict[str, Any]:
    """The limits with all defaults filled in, so that whoever reads them needs none."""
    found: dict[str, Any] = {}
    given = Fields(fields.take("limits", default={}), f"{fields.where}.limits")
    for name in LIMITED:
        value = given.take(name, default=None)
        if value is not None:
            bucket = Fields(value, f"{given.where}.{name}")
            found[name] = {
                "rate": bucket.integer("rate"),
                "burst": bucket.integer("burst", most=INTEGER_MAX, default=0),
                "period": bucket.number("period", PERIOD_MIN, PERIOD_MAX, default=PERIOD_DEFAULT),
            }
            bucket.done()
    offloads = given.take("offloads", default=None)
    if offloads is not None:
        names = Fields({"offloads": offloads}, given.where)
        found["offloads"] = names.texts("offloads", len(abi.OFFLOADS), longest=24, default=())
        for name in found["offloads"]:
            if name not in abi.OFFLOADS:
                raise names.refuse("offloads", "some of " + ", ".join(abi.OFFLOADS), name)
    connections = given.integer("connections", 0, abi.TCP_CONNECTIONS_MAX, default=0)
    if connections:
        found["connections"] = connections
    given.done()
    return found

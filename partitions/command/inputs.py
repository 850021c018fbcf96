"""What is decided on, what a decision is, and what several kinds of requests are asked (U13)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Decision:
    """`rule` decided, `reason` is its sentence; `placement` has extents and processors where a partition was placed.
    `code` is that of the error with which a refusal is answered."""

    accepted: bool
    rule: str
    reason: str
    placement: dict[str, Any] | None = None
    rejected: list[dict[str, Any]] = field(default_factory=list)
    rejected_more: int = 0
    code: str | None = None

    def text(self) -> str:
        """The form that is stored and compared."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True)
class Inputs:
    """`policy`: as the operations partition keeps it. For a placement `request` has the fields of `partition.create`
    and `resources` is the ultravisor's answer of that name; for a path `request` is {"op": "endpoint.path", "name",
    "endpoint", "path"} and `resources` {"version", "partition", "extents", "endpoints"}; for a touch of a device
    `request` is {"op": "device.use", "name", "type", "endpoints": [one]} and `resources` as for a placement. For an
    endpoint that comes `request` is {"op": "endpoint.attach", "name", "type", "endpoints": [one]} and `resources` has
    those of a placement and of a path; for one that goes it is {"op": "endpoint.detach", "name", "endpoint"}, with
    those of a path, and so for {"op": "memory.revoke", "name", "gpa", "size"}, {"op": "memory.grant", "name", "gpa"},
    {"op": "pair.revoke", "name", "endpoint"}, {"op": "calls.revoke", "name"} and {"op": "calls.grant", "name"}."""

    request: dict[str, Any]
    resources: dict[str, Any]
    policy: dict[str, Any]

    @property
    def memory(self) -> int:
        return self.request.get("memory") or 0


def subject(inputs: Inputs) -> dict[str, Any] | None:
    named = inputs.request["endpoint"]
    return next((endpoint for endpoint in inputs.resources["endpoints"] if endpoint["name"] == named), None)


def endpoint_known(inputs: Inputs) -> Iterator[str]:
    if subject(inputs) is None:
        known = ", ".join(endpoint["name"] for endpoint in inputs.resources["endpoints"]) or "none"
        yield f"{inputs.request['name']} has no endpoint {inputs.request['endpoint']}; known: {known}"


def taker(inputs: Inputs) -> Iterator[str]:
    """Only a running guest takes an endpoint, or loses one, on its own."""
    partition = inputs.resources["partition"]
    if partition["type"] != "guest" or partition["state"] != "running":
        yield f"{partition['name']} is no running guest: it is {partition['type']}, {partition['state']}"


Rules = dict[str, Callable[[Inputs], Iterator[str]]]
# Rules of a kind of request, the codes of their refusals, and what is done where none objects.
Kind = tuple[Rules, dict[str, str], Callable[[Inputs], Decision]]

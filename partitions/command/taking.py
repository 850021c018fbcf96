"""Decisions about what is taken from a running guest, memory, endpoints and channels, and about what is given back.

Nobody's agreement is asked for but the rules': the receipt says what came of it (hostd.revocation, hostd.withdrawal).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from partitions.command.inputs import Decision, Inputs, Kind, Rules, endpoint_known, subject, taker
from pyx import abi


def _detach(inputs: Inputs) -> Decision:
    one = subject(inputs)
    assert one is not None
    return Decision(True, "detach", f"{inputs.request['name']} gives back {one['name']} at {one['device']}")


def _revocable(inputs: Inputs) -> Iterator[str]:
    """Entries of the direct path must still hold all the pieces: two more at most."""
    if any("direct" in (one["path"], one["wanted"]) for one in inputs.resources["endpoints"]):
        extents = inputs.resources["extents"] + 2
        if extents > abi.TRANSLATION_EXTENTS:
            yield f"the memory could lie in {extents} pieces, translation entries hold {abi.TRANSLATION_EXTENTS}"


def _freed(inputs: Inputs) -> Iterator[str]:
    """Granted again is only what nobody else can reach any more."""
    row = next((one for one in inputs.resources["revoked"] if one["gpa"] == inputs.request["gpa"]), None)
    if row is None:
        yield f"nothing of {inputs.request['name']} is revoked at {inputs.request['gpa']}"
    elif row["state"] != "freed":
        yield f"what was revoked at {row['gpa']} is in the state {row['state']}"


def _direct(inputs: Inputs) -> Iterator[str]:
    """Elsewhere the rings lead to a channel server, and go with the endpoint."""
    one = subject(inputs)
    if one is not None and one["path"] != "direct":
        where = f"{inputs.request['name']}: {one['name']} is on {one['path']}"
        yield f"{where}, so its queue pair is not in use; its other rings go with the endpoint"


def _channel(inputs: Inputs) -> Decision:
    op, what = inputs.request["op"], inputs.request.get("endpoint")
    channel = "the call ring" if what is None else f"the queue pair of {what}"
    return Decision(True, op.partition(".")[2], f"{inputs.request['name']}: {channel}")


def _revoke(inputs: Inputs) -> Decision:
    """Accepted; with it memory goes or comes."""
    return Decision(True, inputs.request["op"].partition(".")[2], f"{inputs.request['name']}: {_range(inputs.request)}")


def _range(request: dict[str, Any]) -> str:
    return f"memory from {request['gpa']} on" + (f", {request['size']} bytes" if "size" in request else "")


REVOKE_RULES: Rules = {"running": taker, "pieces": _revocable}
GRANT_RULES: Rules = {"running": taker, "freed": _freed}
MEMORY_CODES = {"running": "state", "pieces": "state", "freed": "state"}
CHANNEL_RULES: Rules = {
    "running": taker,
    "endpoint": endpoint_known,
    "direct": _direct,
}
CHANNEL_CODES = {"running": "state", "endpoint": "not_found", "direct": "state"}
CALLS_RULES: Rules = {"running": taker}
DETACH_RULES: Rules = {"running": taker, "endpoint": endpoint_known}
DETACH_CODES = {"running": "state", "endpoint": "not_found"}

KINDS: dict[str, Kind] = {
    "endpoint.detach": (DETACH_RULES, DETACH_CODES, _detach),
    "memory.revoke": (REVOKE_RULES, MEMORY_CODES, _revoke),
    "memory.grant": (GRANT_RULES, MEMORY_CODES, _revoke),
    "pair.revoke": (CHANNEL_RULES, CHANNEL_CODES, _channel),
    "calls.revoke": (CALLS_RULES, CHANNEL_CODES, _channel),
    "calls.grant": (CALLS_RULES, CHANNEL_CODES, _channel),
}

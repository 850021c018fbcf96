"""Decisions where a partition goes, which endpoints come and go while it runs, and which path one takes: pure functions
of request, resources and policy (U13).

It reads no clock, file or random number, so a replay over the stored inputs gives the same answer byte for byte.
Checks run in the order of their table; the first that objects decides against the request and gives its name to
the decision. Raise VERSION with every change that makes some answer another one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from partitions.command import taking
from partitions.command.inputs import Decision, Inputs, Kind, Rules, endpoint_known, subject, taker
from pyx import abi

VERSION = 4
PIECES_MAX = 8  # extents of one partition: each costs every process that maps the partition a mapping
REJECTED_MAX = 32  # alternatives that a decision names; the rest is counted


def decide(request: dict[str, Any], resources: dict[str, Any], policy: dict[str, Any]) -> Decision:
    """Accepts with a placement or refuses with the first rule that objects."""
    inputs = Inputs(request, resources, policy)
    rules, codes, accept = KINDS.get(request.get("op", ""), (RULES, CODES, _place))
    for rule, check in rules.items():
        objection = next(check(inputs), None)
        if objection is not None:
            return Decision(False, rule, objection, code=codes.get(rule, "not_placed"))
    return accept(inputs)


# -- rules: each yields its objection, or nothing


def _partitions_limit(inputs: Inputs) -> Iterator[str]:
    limit, running = inputs.policy.get("partitions_limit"), _usage(inputs)["partitions"]
    if _limited(inputs) and limit is not None and running + 1 > limit:
        yield f"{running} guests exist, the policy allows {limit}"


def _partition_memory_limit(inputs: Inputs) -> Iterator[str]:
    limit = inputs.policy.get("partition_memory_limit")
    if _limited(inputs) and limit is not None and inputs.memory > limit:
        yield f"{inputs.memory} bytes asked for, the policy allows {limit} for one partition"


def _memory_limit(inputs: Inputs) -> Iterator[str]:
    limit, owned = inputs.policy.get("memory_limit"), _usage(inputs)["memory"]
    if _limited(inputs) and limit is not None and owned + inputs.memory > limit:
        yield f"guests own {owned} bytes, {inputs.memory} more would pass the policy's limit of {limit}"


def _devices(inputs: Inputs) -> Iterator[str]:
    """Each endpoint's device exists, is of its kind and has a port left."""
    devices = {device["name"]: device for device in inputs.resources["devices"]}
    wanted: dict[str, int] = {}
    for endpoint in inputs.request.get("endpoints") or []:
        name = endpoint["device"]
        device = devices.get(name)
        if device is None or device["kind"] != endpoint["kind"]:
            known = ", ".join(row["name"] for row in devices.values() if row["kind"] == endpoint["kind"]) or "none"
            yield f"there is no {endpoint['kind']} device {name}; known: {known}"
            continue
        wanted[name] = wanted.get(name, 0) + 1
        if device["used"] + wanted[name] > device["ports"]:
            yield f"device {name} has {device['ports']} ports and {device['used']} of them are taken"


def _device_class(inputs: Inputs) -> Iterator[str]:
    """Host-managed devices are the console's alone, reserved ones everybody's but the console's (W2)."""
    classes = {device["name"]: device["class"] for device in inputs.resources["devices"]}
    console = inputs.request["type"] == "console"
    for endpoint in inputs.request.get("endpoints") or []:
        held = classes.get(endpoint["device"])
        if held == "host-managed" and not console:
            yield f"device {endpoint['device']} is host-managed: the console drives it by itself"
        if held == "reserved" and console:
            yield f"device {endpoint['device']} is reserved for guests: the console must not touch it"


def _assigned(inputs: Inputs) -> Iterator[str]:
    """What one guest has to itself nobody else has or uses (H4)."""
    name, devices = inputs.request["name"], {device["name"]: device for device in inputs.resources["devices"]}
    buses, own = inputs.request.get("buses") or [], inputs.request.get("devices") or []
    known = inputs.resources.get("buses", [])
    yield from (f"there is no bus {bus}; known: {', '.join(known) or 'none'}" for bus in buses if bus not in known)
    yield from (f"there is no device {one}; known: {', '.join(devices) or 'none'}" for one in own if one not in devices)
    mine = {*own, *(device["name"] for device in devices.values() if device.get("bus") in buses)} & devices.keys()
    wanted = {endpoint["device"] for endpoint in inputs.request.get("endpoints") or []} & devices.keys()
    for device in sorted(mine):
        for user in inputs.resources.get("users", {}).get(device, []):
            if user != name:
                yield f"device {device} is used by {user}"
    for device in sorted(mine | wanted):
        owner = devices[device].get("owner")
        if owner not in (None, name):
            yield f"device {device} is assigned to {owner} alone"


def _servers(inputs: Inputs) -> Iterator[str]:
    """Each endpoint's server is an I/O partition that runs. One without a server is driven by its own partition."""
    states = {server["name"]: server["state"] for server in inputs.resources["servers"]}
    for endpoint in inputs.request.get("endpoints") or []:
        server = endpoint.get("server")
        if server is not None and states.get(server) != "running":
            known = ", ".join(f"{name} ({state})" for name, state in states.items()) or "none"
            yield f"no I/O partition {server} runs; known: {known}"


def _paths(inputs: Inputs) -> Iterator[str]:
    """Every endpoint begins on redirect for a moment; the policy speaks about what it is to use."""
    allowed = inputs.policy.get("paths")
    for endpoint in inputs.request.get("endpoints") or []:
        path = endpoint.get("path") or "redirect"
        if _limited(inputs) and allowed is not None and path not in allowed:
            yield f"{endpoint['name']} is to use the path {path}, the policy allows {', '.join(allowed) or 'none'}"


def _processors(inputs: Inputs) -> Iterator[str]:
    known = [processor["number"] for processor in inputs.resources["processors"]]
    for number in inputs.request.get("processors") or []:
        if number not in known:
            yield f"the machine has no processor {number}; known: {', '.join(map(str, known)) or 'none'}"


def _placement_known(inputs: Inputs) -> Iterator[str]:
    if inputs.policy.get("placement") not in PLACEMENTS:
        yield f"the policy asks for the placement {inputs.policy.get('placement')!r}; known: {', '.join(PLACEMENTS)}"


RULES: Rules = {
    "placement": _placement_known,
    "partitions_limit": _partitions_limit,
    "partition_memory_limit": _partition_memory_limit,
    "memory_limit": _memory_limit,
    "devices": _devices,
    "device_class": _device_class,
    "assigned": _assigned,
    "servers": _servers,
    "paths": _paths,
    "processors": _processors,
}
CODES = {"assigned": "conflict"}


def _limited(inputs: Inputs) -> bool:
    """Policies speak about guests: what belongs to the host itself must start whatever they say."""
    return inputs.request["type"] == "guest"


def _usage(inputs: Inputs) -> dict[str, int]:
    return inputs.resources["usage"]["guest"]


# -- placement


def _place(inputs: Inputs) -> Decision:
    frames = inputs.memory // abi.PAGE
    extents, rejected = PLACEMENTS[inputs.policy["placement"]](frames, inputs.resources["free"])
    more = max(0, len(rejected) - REJECTED_MAX)
    if extents is None:
        reason = f"no room for {frames} frames in at most {PIECES_MAX} pieces"
        return Decision(False, "memory", reason, None, rejected[:REJECTED_MAX], more, "not_placed")
    placement = {"extents": extents, "processors": _chosen_processors(inputs)}
    reason = f"{frames} frames in {len(extents)} extents" if frames else "needs no memory"
    return Decision(True, inputs.policy["placement"], reason, placement, rejected[:REJECTED_MAX], more)


def _first_fit(frames: int, free: list[dict[str, int]]) -> tuple[list[dict[str, int]] | None, list[dict[str, Any]]]:
    """The first free extent that holds everything; if none does, the largest ones until it is enough."""
    if frames == 0:
        return [], []
    rejected: list[dict[str, Any]] = []
    for extent in free:
        if extent["frames"] >= frames:
            return [{"frame": extent["frame"], "frames": frames}], rejected
        rejected.append({"alternative": extent, "reason": f"{extent['frames']} frames, {frames} needed"})
    # Largest first, so that there are few pieces; among equals the lowest.
    pieces, missing = [], frames
    for extent in sorted(free, key=lambda extent: (-extent["frames"], extent["frame"]))[:PIECES_MAX]:
        count = min(extent["frames"], missing)
        pieces.append({"frame": extent["frame"], "frames": count})
        missing -= count
        if missing == 0:
            return sorted(pieces, key=lambda piece: piece["frame"]), rejected
    return None, rejected


PLACEMENTS = {"first-fit": _first_fit}


def _chosen_processors(inputs: Inputs) -> list[int]:
    """Those asked for, otherwise all that guests may have; infrastructure stays where hostd put it."""
    wanted = inputs.request.get("processors")
    if wanted:
        return sorted(set(wanted))
    if inputs.request["type"] != "guest":
        return []
    known = inputs.resources["processors"]
    return [processor["number"] for processor in known if processor["role"] != "infrastructure"]


# -- paths of endpoints


def _running(inputs: Inputs) -> Iterator[str]:
    """Only a driver at work can go over."""
    state = inputs.resources["partition"]["state"]
    if state not in ("starting", "running"):
        yield f"{inputs.request['name']} is {state}; an endpoint changes its path while its guest runs"


def _path_allowed(inputs: Inputs) -> Iterator[str]:
    allowed, path = inputs.policy.get("paths"), inputs.request["path"]
    if inputs.resources["partition"]["type"] == "guest" and allowed is not None and path not in allowed:
        yield f"the policy allows the paths {', '.join(allowed) or 'none'}, not {path}"


def _pieces(inputs: Inputs) -> Iterator[str]:
    """The device checks addresses of the direct path by a fixed number of translation entries."""
    extents = inputs.resources["extents"]
    if inputs.request["path"] == "direct" and extents > abi.TRANSLATION_EXTENTS:
        yield f"the memory lies in {extents} pieces, translation entries hold {abi.TRANSLATION_EXTENTS}"


PATH_RULES: Rules = {
    "endpoint": endpoint_known,
    "running": _running,
    "paths": _path_allowed,
    "pieces": _pieces,
}
PATH_CODES = {"endpoint": "not_found", "running": "state", "paths": "denied", "pieces": "state"}


# -- devices that a partition wants to touch

USE_RULES: Rules = {"devices": _devices, "device_class": _device_class}
USE_CODES = {"devices": "not_found", "device_class": "denied"}


def _use(inputs: Inputs) -> Decision:
    (endpoint,) = inputs.request["endpoints"]
    return Decision(True, "device_class", f"{inputs.request['name']} may touch {endpoint['device']}")


# -- endpoints that come and go while their guest runs


def _new_name(inputs: Inputs) -> Iterator[str]:
    (endpoint,) = inputs.request["endpoints"]
    if any(one["name"] == endpoint["name"] for one in inputs.resources["endpoints"]):
        yield f"{inputs.request['name']} has an endpoint {endpoint['name']} already"


def _attach(inputs: Inputs) -> Decision:
    (endpoint,) = inputs.request["endpoints"]
    where = f"{inputs.request['name']} gets {endpoint['name']} at {endpoint['device']}"
    return Decision(True, "attach", f"{where}, on {endpoint.get('path') or 'redirect'}")


ATTACH_RULES: Rules = {
    "running": taker,
    "endpoint": _new_name,
    "devices": _devices,
    "device_class": _device_class,
    "assigned": _assigned,
    "servers": _servers,
    "paths": _paths,
}
ATTACH_CODES = {
    "running": "state", "endpoint": "conflict", "devices": "invalid", "device_class": "denied", "assigned": "conflict",
    "servers": "state", "paths": "denied",
}  # fmt: skip


def _change_path(inputs: Inputs) -> Decision:
    """Accepted; the other allowed paths were possible too, but nobody asked for them."""
    endpoint, path = subject(inputs), inputs.request["path"]
    assert endpoint is not None
    before = endpoint["path"]
    reason = f"{endpoint['name']} is on {path} already" if before == path else f"{endpoint['name']}: {before} to {path}"
    return Decision(True, "paths", reason)


# By `op` of the request: rules, the codes of their refusals, and what is done where none objects.
KINDS: dict[str, Kind] = {
    "endpoint.path": (PATH_RULES, PATH_CODES, _change_path),
    "endpoint.attach": (ATTACH_RULES, ATTACH_CODES, _attach),
    **taking.KINDS,
    "device.use": (USE_RULES, USE_CODES, _use),
}

"""From a request to a placed partition, an endpoint, a wanted path or memory that goes: policy, resources, decision,
record, transaction (U13).

    place -> policy.get (operations) -> query (ultravisor) -> decide -> journal -> transaction (ultravisor)

The transaction names the version of the resources that was decided on, so a decision is never carried out on
others; if they have changed, it is made anew. A repeated key goes on where the first request was interrupted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from hostd.wire import RemoteError, WireError
from partitions.command.decide import decide
from partitions.command.journal import Journal
from partitions.messages import Fields, Refusal
from pyx import abi

ATTEMPTS_MAX = 8  # decisions of one request: others may change the resources between a decision and its transaction
TIMEOUT = 120.0  # seconds for the ultravisor, which allocates the memory of a partition before it answers
# Refusals that say nothing about the request: the same one may succeed later, so they are no outcome.
# Operations that are decided by what the partition has, and nothing else.
OF_PARTITION = (
    "endpoint.path", "endpoint.detach", "memory.revoke", "memory.grant", "pair.revoke", "calls.revoke", "calls.grant",
)  # fmt: skip
PASSING = ("timeout", "unreachable", "internal")


class Peer(Protocol):
    """A partition that answers requests: a wire, or a control channel in shared memory."""

    def request(
        self, message: dict[str, Any], fds: Any = (), timeout: float | None = None
    ) -> tuple[dict[str, Any], list[int]]: ...


def ask(peer: Peer, name: str, message: dict[str, Any]) -> dict[str, Any]:
    """The fields of another partition's answer; its refusals pass through as RemoteError."""
    try:
        answer = peer.request(message, timeout=TIMEOUT)[0]
    except (WireError, EOFError, OSError) as error:
        code = "timeout" if isinstance(error, TimeoutError) else "unreachable"
        raise Refusal(code, f"{name}: {error}", role=name) from error
    return {field: value for field, value in answer.items() if field != "reply"}


class Placing:
    """`clock` gives the time for the journal."""

    def __init__(
        self, journal: Journal, ultravisor: Peer, operations: Peer, clock: Callable[[], float] = time.time
    ) -> None:
        self._journal = journal
        self._ultravisor = ultravisor
        self._operations = operations
        self._clock = clock

    def place(self, request: dict[str, Any], zone: str, key: str, actor: str) -> dict[str, Any]:
        """{"decision", "plan", "replayed"}, or the refusal that was decided under this key. The plan is the result of
        the operation: of a change of path, what changed."""
        record = self._journal.latest(key)
        if record is not None and record["request"] != request:
            raise Refusal("conflict", "the key stands for another request", rule="key_reused", rows=[])
        for _ in range(ATTEMPTS_MAX):
            if record is None or record["outcome"] == "superseded":
                record = self._decide(request, zone, key, actor)
            answer = self._carry_out(record)
            if answer is not None:
                return answer
            record = None
        raise Refusal("conflict", f"the resources changed {ATTEMPTS_MAX} times while deciding; try again")

    def use(self, request: dict[str, Any], zone: str, key: str, actor: str) -> dict[str, Any]:
        """{"decision", "replayed"}: the partition may touch the device that `use_request` names, or its call ring goes
        or comes, or the refusal. No transaction follows."""
        record = self._journal.latest(key)
        if record is None:
            record = self._decide(request, zone, key, actor)
        elif record["request"] != request:
            raise Refusal("conflict", "the key stands for another request", rule="key_reused", rows=[])
        if record["outcome"] == "refused":
            raise _refusal(record)
        replayed = record["outcome"] is not None
        if not replayed:
            self._journal.conclude(record["decision"], "committed", {})
        return {"decision": record["decision"], "replayed": replayed}

    def detach(self, request: dict[str, Any], zone: str, key: str, actor: str) -> dict[str, Any]:
        """{"decision", "replayed"}: the endpoint may go. It goes with `detached`, once its device has dropped it."""
        record = self._journal.latest(key)
        if record is None or record["outcome"] == "superseded":
            record = self._decide(request, zone, key, actor)
        elif record["request"] != request:
            raise Refusal("conflict", "the key stands for another request", rule="key_reused", rows=[])
        if record["outcome"] == "refused":
            raise _refusal(record)
        return {"decision": record["decision"], "replayed": record["outcome"] == "committed"}

    def detached(self, decision: int, failure: dict[str, Any] | None) -> dict[str, Any]:
        """{"decision"}: nothing of the endpoint is in flight any more, so its rows go; or it stays, with the
        `failure` of whoever should have drained it: {"code", "message"}."""
        record = self._journal.get(decision)
        if record is None or record["request"].get("op") != "endpoint.detach":
            raise Refusal("not_found", f"no decision {decision} about an endpoint that goes is on record")
        if record["outcome"] == "committed":
            return {"decision": decision}
        if record["outcome"] is not None:
            raise _refusal(record)
        if failure is not None:
            self._journal.conclude(decision, "refused", failure)
            return {"decision": decision}
        # On whatever the resources are by now: what was decided is still what the partition gives back.
        self._carry_out({**record, "resources": {"version": None}})
        return {"decision": decision}

    def rehearse(self, request: dict[str, Any], zone: str) -> dict[str, Any]:
        """What `place` would answer now. Nothing is recorded, because nothing is decided."""
        decision = decide(**self._inputs(request, zone))
        if not decision.accepted:
            assert decision.code is not None
            raise Refusal(decision.code, decision.reason, rule=decision.rule, rejected=decision.rejected)
        operations = [operation_of(request, decision.placement)]
        transaction = {"op": "transaction", "operations": operations, "dry_run": True}
        plan = ask(self._ultravisor, "ultravisor", transaction)["results"][0]
        return {"decision": None, "plan": plan, "replayed": False}

    def _inputs(self, request: dict[str, Any], zone: str) -> dict[str, Any]:
        policy = ask(self._operations, "operations", {"op": "policy.get", "zone": zone})["policy"]
        if request.get("op") in OF_PARTITION:
            resources = self._surroundings(request["name"])
        elif request.get("op") == "endpoint.attach":
            # Of the older version where they differ: then the transaction is refused and this is decided anew.
            resources = ask(self._ultravisor, "ultravisor", {"op": "query", "what": "resources"})
            resources = {**self._surroundings(request["name"]), **resources}
        else:
            resources = ask(self._ultravisor, "ultravisor", {"op": "query", "what": "resources"})
        return {"request": request, "resources": resources, "policy": policy}

    def _surroundings(self, partition: str) -> dict[str, Any]:
        """What a decision about a path depends on."""
        answer = ask(self._ultravisor, "ultravisor", {"op": "query", "what": "partition", "partition": partition})
        plan = answer["partition"]
        return {
            "version": answer["version"],
            "partition": {name: plan["partition"][name] for name in ("id", "name", "type", "state")},
            "extents": _runs(plan["memory"], plan["withheld"]),
            "revoked": plan["revoked"],
            "endpoints": [
                {name: endpoint[name] for name in ("name", "kind", "device", "path", "wanted")}
                for endpoint in plan["endpoints"]
            ],
        }

    def _decide(self, request: dict[str, Any], zone: str, key: str, actor: str) -> dict[str, Any]:
        """The record of a new decision, durable before anything is done about it."""
        inputs = self._inputs(request, zone)
        number = self._journal.record(key, self._clock(), actor, inputs, decide(**inputs))
        record = self._journal.get(number)
        assert record is not None
        return record

    def _carry_out(self, record: dict[str, Any]) -> dict[str, Any] | None:
        """The answer to a recorded decision: the stored one, or that of its transaction, which may have been sent
        before a crash and then answers again. None where the resources have changed since."""
        number = record["decision"]
        if record["outcome"] == "committed":
            return {"decision": number, "plan": record["detail"], "replayed": True}
        if record["outcome"] == "refused":
            raise _refusal(record)
        transaction = {
            "op": "transaction",
            "operations": [operation_of(record["request"], record["answer"]["placement"])],
            "key": f"place:{record['key']}",
            "expect": record["resources"]["version"],
            "actor": record["actor"],
        }
        try:
            answer = ask(self._ultravisor, "ultravisor", transaction)
        except RemoteError as error:
            if error.code not in PASSING:
                detail = {"code": error.code, "message": error.message, "details": error.details}
                superseded = error.details.get("rule") == "version"
                self._journal.conclude(number, "superseded" if superseded else "refused", detail)
                if superseded:
                    return None
            raise RemoteError(error.code, error.message, {**error.details, "decision": number}) from error
        plan = answer["results"][0]
        self._journal.conclude(number, "committed", plan)
        return {"decision": number, "plan": plan, "replayed": answer["replayed"]}


def _runs(memory: list[dict[str, int]], withheld: list[dict[str, int]]) -> int:
    """Runs of pages with equal rights that translation entries have to name."""
    count = 0
    for extent in memory:
        end = extent["gpa"] + extent["size"]
        borders = {border for one in withheld for border in (one["gpa"], one["gpa"] + one["size"])}
        count += 1 + sum(extent["gpa"] < border < end for border in borders)
    return count


def _refusal(record: dict[str, Any]) -> Refusal:
    """The refusal on record: of the decision itself, or of the ultravisor."""
    detail, answer = record["detail"], record["answer"]
    details = detail.get("details") or {"rule": answer["rule"], "rejected": answer["rejected"]}
    return Refusal(detail["code"], detail["message"], **details, decision=record["decision"])


def checked_request(request: object) -> dict[str, Any]:
    """A request whose fields `decide` can read; the ultravisor checks the rest of them."""
    fields = Fields(request, "request")
    assert isinstance(request, dict)
    fields.name("name")
    fields.choice("type", tuple(abi.PARTITION_TYPES))
    fields.integer("memory", default=0)
    fields.integers("processors", default=None)
    for position, item in enumerate(fields.items("endpoints", abi.ENDPOINTS_MAX, default=[])):
        endpoint = Fields(item, f"request.endpoints.{position}")
        endpoint.choice("kind", tuple(abi.ENDPOINT_KINDS))
        endpoint.name("device")
        if request["type"] != "console":  # which may drive a device by itself
            endpoint.name("server")
        endpoint.choice("path", tuple(abi.PATHS), default=None)
    for what, most in (("devices", abi.DEVICES_MAX), ("buses", abi.BUSES_MAX)):
        fields.texts(what, most, default=[])
    if fields.take("op", default=None) is not None:  # it would choose the rules
        raise Refusal("invalid", "request.op: a request for a place has none", field="op")
    if fields.take("extents", default=None) is not None:
        raise Refusal("invalid", "request.extents: the command partition chooses them", field="extents")
    return request


def path_request(fields: Fields) -> dict[str, Any]:
    """The request of a change of path, out of the fields of a message."""
    return {
        "op": "endpoint.path",
        "name": fields.name("partition"),
        "endpoint": fields.name("endpoint"),
        "path": fields.choice("path", tuple(abi.PATHS)),
    }


def attach_request(name: str, endpoint: object) -> dict[str, Any]:
    """The request of one more endpoint, whose fields are those of `partition.create`, for a running guest."""
    request = {"name": name, "type": "guest", "endpoints": [endpoint]}
    checked_request(request)
    Fields(endpoint, "endpoint").name("name")
    return {"op": "endpoint.attach", **request}


def memory_request(fields: Fields, op: str) -> dict[str, Any]:
    """The request to take memory from a running guest, or to give it back (`memory.grant`)."""
    request = {"op": op, "name": fields.name("partition"), "gpa": fields.integer("gpa")}
    return request | ({"size": fields.integer("size", least=abi.PAGE)} if op == "memory.revoke" else {})


def use_request(name: str, kind: str, device: str, device_kind: str) -> dict[str, Any]:
    """The request of a partition called `name` to touch a device: decided as an endpoint there would be."""
    endpoint = {"name": device, "kind": device_kind, "device": device}
    return {"op": "device.use", "name": name, "type": kind, "endpoints": [endpoint]}


def operation_of(request: dict[str, Any], placement: dict[str, Any] | None) -> dict[str, Any]:
    """The transaction's operation that carries a decision out."""
    if request.get("op") in ("endpoint.path", "pair.revoke"):
        subject = {"partition": request["name"], "name": request["endpoint"]}
        return {"op": "endpoint.path", **subject, "path": request.get("path", "redirect")}
    if request.get("op") == "endpoint.attach":
        return {"op": "endpoint.attach", "partition": request["name"], **request["endpoints"][0]}
    if request.get("op") in ("memory.revoke", "memory.grant"):
        return {"partition" if name == "name" else name: value for name, value in request.items()}
    if request.get("op") == "endpoint.detach":
        subject = {"partition": request["name"], "name": request["endpoint"]}
        return {"op": "endpoint.detach", **subject, "drained": True}
    assert placement is not None
    return {**request, "op": "partition.create", **placement}

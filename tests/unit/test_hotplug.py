"""Endpoints that come and go: what is decided, recorded and judged by the constraints of the database (U2, U13, H4)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hostd.wire import RemoteError
from partitions.command.decide import decide
from partitions.command.placing import attach_request
from partitions.messages import Refusal
from tests.framework.control_plane import MIB, disk, guest, nic
from tests.unit.test_decide import POLICY, request, resources
from tests.unit.test_decide_path import around
from tests.unit.test_placing import Scene


def coming(**fields: Any) -> dict[str, Any]:
    return attach_request("store", disk("vdb", **fields))


def surroundings(**fields: Any) -> dict[str, Any]:
    return {**around(), **resources(), **fields}


def owned(device: str, owner: str, bus: str | None = None) -> list[dict[str, Any]]:
    """The devices, one of which lies on a bus or belongs to somebody."""
    return [
        one if one["name"] != device else {**one, "owner": owner or None, "bus": bus} for one in resources()["devices"]
    ]


REFUSED = [
    ("running", "state", coming(), around("stopped"), {}, "store is no running guest: it is guest, stopped"),
    ("running", "state", coming(), around(kind="console"), {}, "it is console, running"),
    ("endpoint", "conflict", attach_request("store", disk("vda")), {}, {}, "store has an endpoint vda already"),
    ("devices", "invalid", coming(device="disk9"), {}, {}, "there is no disk device disk9"),
    ("assigned", "conflict", coming(), {"devices": owned("disk0", "other")}, {}, "disk0 is assigned to other alone"),
    ("servers", "state", coming(server="io-b"), {}, {}, "no I/O partition io-b runs"),
    ("paths", "denied", coming(path="direct"), {}, {"paths": ["copy"]}, "vdb is to use the path direct"),
]


@pytest.mark.parametrize(("rule", "code", "asked", "there", "policy", "reason"), REFUSED)
def test_a_refused_endpoint_names_rule_and_code(
    rule: str, code: str, asked: dict[str, Any], there: dict[str, Any], policy: dict[str, Any], reason: str
) -> None:
    decision = decide(asked, surroundings(**there), POLICY | policy)
    assert (decision.accepted, decision.rule, decision.code) == (False, rule, code)
    assert reason in decision.reason


def test_an_accepted_one_says_where_it_goes() -> None:
    decision = decide(coming(path="copy"), surroundings(devices=owned("disk0", "store")), POLICY)
    assert (decision.accepted, decision.rule, decision.reason) == (True, "attach", "store gets vdb at disk0, on copy")


ASSIGNED = [
    ({"devices": ["disk0"]}, {"users": {"disk0": ["other"]}}, "device disk0 is used by other"),
    ({"devices": ["disk0"]}, {"devices": owned("disk0", "other")}, "device disk0 is assigned to other alone"),
    ({"buses": ["back"]}, {"devices": owned("disk0", "", "back"), "users": {"disk0": ["other"]}}, "used by other"),
    ({"buses": ["back"]}, {"devices": owned("disk0", "other", "back")}, "assigned to other alone"),
    ({"devices": ["disk9"]}, {}, "there is no device disk9; known: disk0, nic0"),
    ({"buses": ["front"]}, {}, "there is no bus front; known: back"),
]


@pytest.mark.parametrize(("wanted", "there", "reason"), ASSIGNED)
def test_what_somebody_has_or_uses_is_not_assigned(wanted: dict[str, Any], there: dict[str, Any], reason: str) -> None:
    known = {**resources(), "buses": ["back"], "users": {}}
    decision = decide(request(**wanted), known | there, POLICY)
    assert (decision.accepted, decision.rule, decision.code) == (False, "assigned", "conflict")
    assert reason in decision.reason
    free = {**known, "devices": owned("disk0", "store", "back"), "users": {"disk0": ["store"]}}
    assert decide(request(devices=["disk0"], buses=["back"]), free, POLICY).accepted


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """A running guest called store."""
    scene = Scene(tmp_path)
    scene.host.transaction(guest("store", endpoints=[disk()]))
    scene.host.transaction({"op": "process.record", "partition": "store", "pid": 900, "start_time": 1})
    scene.host.transaction({"op": "partition.state", "partition": "store", "state": "running"})
    yield scene
    assert scene.host.check() == []
    scene.host.close()
    scene.policies.close()
    scene.journal.close()


def attach(scene: Scene, key: str = "a", **endpoint: Any) -> dict[str, Any]:
    return scene.placing.place(attach_request("store", nic(**endpoint)), "default", key, "test")


def names(scene: Scene) -> list[str]:
    return [row["name"] for row in scene.host.query("endpoints")["endpoints"] if row["partition"] == "store"]


def test_an_endpoint_comes_and_goes_on_record(scene: Scene) -> None:
    first = attach(scene)
    assert attach(scene) == {**first, "replayed": True}
    assert names(scene) == ["vda", "eth0"]
    going = {"op": "endpoint.detach", "name": "store", "endpoint": "eth0"}
    decided = scene.placing.detach(going, "default", "d", "test")
    assert names(scene) == ["vda", "eth0"]  # until its device has dropped it
    scene.host.transaction({"op": "epoch.reserve", "partition": "io-a", "count": 1})  # the version moves on meanwhile
    for _ in range(2):
        scene.placing.detached(decided["decision"], None)
    assert names(scene) == ["vda"]
    assert scene.placing.detach(going, "default", "d", "test") == {**decided, "replayed": True}
    records = scene.journal.find("store", 10)
    assert [(one["answer"]["rule"], one["outcome"]) for one in records] == [
        ("attach", "committed"), ("detach", "committed"),
    ]  # fmt: skip
    with pytest.raises(Refusal, match="store has no endpoint eth0; known: vda"):
        scene.placing.detach(going, "default", "again", "test")


def test_a_detach_that_failed_says_why_and_takes_nothing(scene: Scene) -> None:
    going = {"op": "endpoint.detach", "name": "store", "endpoint": "vda"}
    decided = scene.placing.detach(going, "default", "d", "test")
    scene.placing.detached(decided["decision"], {"code": "timeout", "message": "disk0 is silent"})
    assert names(scene) == ["vda"]
    [record] = scene.journal.find("store", 10)
    assert (record["outcome"], record["detail"]["message"]) == ("refused", "disk0 is silent")
    with pytest.raises(Refusal, match="disk0 is silent"):
        scene.placing.detached(decided["decision"], None)
    with pytest.raises(Refusal, match="no decision 77"):
        scene.placing.detached(77, None)


def test_the_database_judges_what_a_decision_overlooked(scene: Scene) -> None:
    """Somebody else gets the device between the decision and its transaction: refused by the rows, with their names."""
    scene.host.transaction(guest("owner", frame=66000, devices=["nic0"]))
    transaction = {"op": "endpoint.attach", "partition": "store", **nic()}
    with pytest.raises(Refusal) as refused:
        scene.host.transaction(transaction)
    assert (refused.value.code, refused.value.details["rule"]) == ("conflict", "device_owned")
    assert refused.value.details["rows"] == [{"device": "nic0", "owner": "owner"}]
    with pytest.raises((Refusal, RemoteError)) as recorded:
        attach(scene)
    assert recorded.value.details["rule"] == "assigned"
    assert scene.journal.find("store", 1)[0]["outcome"] == "refused"
    for second in ("devices", "endpoints"):
        wanted = {"devices": ["nic0"]} if second == "devices" else {"endpoints": [nic()]}
        with pytest.raises(Refusal, match="has the device to itself"):
            scene.host.transaction(guest("third", frame=67000, memory=MIB, **wanted))
    with pytest.raises(Refusal) as used:
        scene.host.transaction(guest("third", frame=67000, devices=["disk0"]))
    assert used.value.details["rows"] == [{"device": "disk0", "user": "store", "endpoint": "vda"}]
    scene.host.transaction({"op": "partition.remove", "partition": "owner"})
    assert attach(scene, "later")["plan"]["name"] == "eth0"


def test_buses_are_defined_while_no_device_lies_on_one(scene: Scene) -> None:
    buses = [{"number": 0, "name": "front"}, {"number": 16, "name": "back"}]
    scene.host.transaction({"op": "machine.buses", "buses": buses})
    scene.host.transaction({"op": "machine.buses", "buses": buses[1:]})
    with pytest.raises(Refusal, match="no bus 0; known: back"):
        scene.host.transaction({"op": "device.create", "name": "nic1", "kind": "nic", "partition": "nic0", "bus": 0})
    scene.host.transaction({"op": "device.create", "name": "nic1", "kind": "nic", "partition": "nic0", "bus": 16})
    with pytest.raises(Refusal, match="devices lie on buses"):
        scene.host.transaction({"op": "machine.buses", "buses": buses})
    scene.host.transaction(guest("owner", frame=66000, buses=["back"]))
    assert scene.host.query("assignments")["assignments"] == [{"partition": "owner", "device": "nic1", "bus": "back"}]
    with pytest.raises(Refusal, match="has the device to itself"):
        scene.host.transaction({"op": "endpoint.attach", "partition": "store", **nic(device="nic1")})

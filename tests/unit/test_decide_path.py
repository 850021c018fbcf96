"""Decisions about paths of endpoints: by policy, on record, replayed; at a placement and at a change (A1)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hostd.wire import RemoteError
from partitions.command.decide import decide
from partitions.command.placing import checked_request, path_request
from partitions.messages import Fields, Refusal
from partitions.operations.policies import checked_policy
from pyx import abi
from tests.framework.control_plane import disk, nic
from tests.unit.test_decide import POLICY, endpoint, request, resources
from tests.unit.test_placing import Scene


def change(path: str = "direct", **fields: Any) -> dict[str, Any]:
    return {"op": "endpoint.path", "name": "store", "endpoint": "vda", "path": path, **fields}


def around(state: str = "running", kind: str = "guest", extents: int = 1, path: str = "redirect") -> dict[str, Any]:
    vda = {"name": "vda", "kind": "disk", "device": "disk0", "path": path, "wanted": path}
    return {
        "version": 9, "partition": {"id": 65537, "name": "store", "type": kind, "state": state}, "extents": extents,
        "endpoints": [vda],
    }  # fmt: skip


def test_an_allowed_change_is_accepted_with_its_reason() -> None:
    decision = decide(change(), around(), POLICY)
    assert (decision.accepted, decision.rule, decision.reason) == (True, "paths", "vda: redirect to direct")
    assert decide(change("copy"), around(path="copy"), POLICY).reason == "vda is on copy already"


REFUSED = [
    ("endpoint", "not_found", change(endpoint="vdb"), around(), {}, "store has no endpoint vdb; known: vda"),
    ("running", "state", change(), around("stopped"), {}, "store is stopped"),
    ("running", "state", change(), around("defined"), {}, "store is defined"),
    ("paths", "denied", change(), around(), {"paths": ["copy", "redirect"]}, "paths copy, redirect, not direct"),
    ("paths", "denied", change(), around(), {"paths": []}, "paths none, not direct"),
    ("pieces", "state", change(), around(extents=abi.TRANSLATION_EXTENTS + 1), {}, "29 pieces"),
]


@pytest.mark.parametrize(("rule", "code", "asked", "surroundings", "policy", "reason"), REFUSED)
def test_a_refused_change_names_rule_and_code(
    rule: str, code: str, asked: dict[str, Any], surroundings: dict[str, Any], policy: dict[str, Any], reason: str
) -> None:
    decision = decide(asked, surroundings, POLICY | policy)
    assert (decision.accepted, decision.rule, decision.code) == (False, rule, code)
    assert reason in decision.reason


ACCEPTED = [
    (change(), around(), {"paths": ["direct"]}),
    (change(), around(), {"paths": None}),
    (change(), around(kind="console"), {"paths": []}),  # policies speak about guests
    (change(), around("starting"), {}),
    (change(), around(extents=abi.TRANSLATION_EXTENTS), {}),
    (change("copy"), around(extents=abi.TRANSLATION_EXTENTS + 1), {}),
]


@pytest.mark.parametrize(("asked", "surroundings", "policy"), ACCEPTED)
def test_what_no_rule_objects_to_is_accepted(
    asked: dict[str, Any], surroundings: dict[str, Any], policy: dict[str, Any]
) -> None:
    decision = decide(asked, surroundings, POLICY | policy)
    assert decision.accepted
    assert decision.text() == decide(*json.loads(json.dumps([asked, surroundings, POLICY | policy]))).text()


@pytest.mark.parametrize(("path", "accepted"), [("copy", False), ("direct", True), (None, False)])
def test_a_placement_follows_the_policy_too(path: str | None, accepted: bool) -> None:
    wanted = endpoint() | ({"path": path} if path else {})  # without one it is redirect
    decision = decide(request(endpoints=[wanted]), resources(), POLICY | {"paths": ["direct"]})
    assert (decision.accepted, decision.rule) == (accepted, "first-fit" if accepted else "paths")
    assert accepted or decision.code == "not_placed"


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    scene.place(endpoints=[disk(), nic(path="copy")])
    scene.host.do({"op": "process.record", "partition": "store", "pid": 4000, "start_time": 1})
    scene.host.do({"op": "partition.state", "partition": "store", "state": "running"})
    yield scene
    assert scene.host.check() == []
    scene.host.close()
    scene.policies.close()
    scene.journal.close()


def asked(path: str, name: str = "vda") -> dict[str, Any]:
    return path_request(Fields({"partition": "store", "endpoint": name, "path": path}, "path"))


def wanted(scene: Scene) -> list[str]:
    return [entry["wanted"] for entry in scene.host.query("partition", partition="store")["partition"]["endpoints"]]


def test_a_change_is_on_record_with_its_inputs(scene: Scene) -> None:
    answer = scene.placing.place(asked("direct"), "default", "k7", "test")
    assert answer["plan"]["wanted"] == "direct" and wanted(scene) == ["direct", "copy"]
    assert scene.placing.place(asked("direct"), "default", "k7", "test") == {**answer, "replayed": True}
    record = scene.journal.find("store", 10)[-1]
    assert (record["decision"], record["outcome"], record["actor"]) == (answer["decision"], "committed", "test")
    assert record["request"] == asked("direct") and record["answer"]["rule"] == "paths"
    assert record["resources"]["endpoints"][0]["path"] == "redirect"
    again = decide(record["request"], record["resources"], record["policy"])
    assert again.text() == scene.journal.text(record["decision"])


def test_a_denied_change_changes_nothing_and_is_on_record(scene: Scene) -> None:
    scene.policy(paths=["redirect"])
    for _ in range(2):  # the second time from the record
        with pytest.raises(Refusal) as caught:
            scene.placing.place(asked("direct"), "default", "k8", "test")
        assert (caught.value.code, caught.value.details["rule"]) == ("denied", "paths")
    assert wanted(scene) == ["redirect", "copy"]
    record = scene.journal.find("store", 10)[-1]
    assert (record["outcome"], record["detail"]["code"]) == ("refused", "denied")


def test_a_key_stands_for_one_change(scene: Scene) -> None:
    scene.placing.place(asked("direct"), "default", "k9", "test")
    with pytest.raises(Refusal, match="another request"):
        scene.placing.place(asked("copy"), "default", "k9", "test")


def test_nobodys_endpoint_is_not_found(scene: Scene) -> None:
    with pytest.raises(RemoteError) as caught:
        scene.placing.place(asked("copy") | {"name": "nobody"}, "default", "k6", "test")
    assert caught.value.code == "not_found"


@pytest.mark.parametrize("fields", [{"path": "none"}, {"endpoint": "UP"}, {"partition": None}, {"path": 3}])
def test_a_malformed_request_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as caught:
        path_request(Fields({"partition": "store", "endpoint": "vda", "path": "copy", **fields}, "path"))
    assert caught.value.code == "invalid"
    if fields == {"path": 3}:
        with pytest.raises(Refusal):
            checked_request({"name": "x", "type": "guest", "endpoints": [endpoint() | fields]})


@pytest.mark.parametrize(
    ("paths", "kept"), [(["direct", "copy", "copy"], ["copy", "direct"]), ([], []), (None, None)]
)
def test_a_policy_keeps_its_paths_in_one_order(paths: list[str] | None, kept: list[str] | None) -> None:
    assert checked_policy({"name": "default", "paths": paths})[1]["paths"] == kept


@pytest.mark.parametrize("paths", [["sideways"], "direct", [1], ["none"], ["copy"] * 4])
def test_a_policy_with_other_paths_is_refused(paths: Any) -> None:
    with pytest.raises(Refusal):
        checked_policy({"name": "default", "paths": paths})

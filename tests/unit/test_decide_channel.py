"""Channels that are taken from a running guest: what is decided, recorded and wanted of the database (U5, U13)."""

from __future__ import annotations

from typing import Any

import pytest

from hostd.wire import RemoteError
from partitions.command.decide import decide
from partitions.messages import Refusal
from tests.unit.test_decide import POLICY
from tests.unit.test_decide_path import around, asked, scene, wanted
from tests.unit.test_placing import Scene

__all__ = ["scene"]
PAIR = {"op": "pair.revoke", "name": "store", "endpoint": "vda"}
CALLS = {"op": "calls.revoke", "name": "store"}

REFUSED = [
    ("endpoint", "not_found", {**PAIR, "endpoint": "vdb"}, around(path="direct"), "store has no endpoint vdb"),
    ("direct", "state", PAIR, around(), "store: vda is on redirect, so its queue pair is not in use"),
    ("running", "state", PAIR, around("stopped", path="direct"), "store is no running guest: it is guest, stopped"),
    ("running", "state", CALLS, around(kind="console"), "it is console, running"),
    ("running", "state", {**CALLS, "op": "calls.grant"}, around("stopped"), "it is guest, stopped"),
]


@pytest.mark.parametrize(("rule", "code", "request_", "there", "reason"), REFUSED)
def test_a_refusal_names_rule_and_code(
    rule: str, code: str, request_: dict[str, Any], there: dict[str, Any], reason: str
) -> None:
    decision = decide(request_, {**there, "revoked": []}, POLICY)
    assert (decision.accepted, decision.rule, decision.code) == (False, rule, code)
    assert reason in decision.reason


def test_no_policy_keeps_a_pair_with_its_guest() -> None:
    """It may allow the direct path alone: redirect is where the endpoint is put, not what the guest chose."""
    decision = decide(PAIR, around(path="direct"), POLICY | {"paths": ["direct"]})
    assert (decision.accepted, decision.rule, decision.reason) == (True, "revoke", "store: the queue pair of vda")


def test_a_pair_that_goes_is_on_record(scene: Scene) -> None:  # noqa: F811
    for operation in ("path", "path_settle"):
        scene.host.do({"op": f"endpoint.{operation}", "partition": "store", "name": "vda", "path": "direct"})
    first = scene.placing.place(PAIR, "default", "pair", "test")
    assert wanted(scene)[0] == "redirect"
    assert scene.placing.place(PAIR, "default", "pair", "test") == {**first, "replayed": True}
    with pytest.raises((Refusal, RemoteError), match="another request"):
        scene.placing.place(asked("direct"), "default", "pair", "test")


def test_calls_that_go_need_no_transaction(scene: Scene) -> None:  # noqa: F811
    first = scene.placing.use(CALLS, "default", "c", "test")
    assert first["replayed"] is False
    assert scene.placing.use(CALLS, "default", "c", "test") == {**first, "replayed": True}
    assert [one["answer"]["rule"] for one in scene.journal.find("store", 1)] == ["revoke"]

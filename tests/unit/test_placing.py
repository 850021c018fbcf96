"""From request to plan: what is recorded when, and that no interruption places anything twice (U13, rule 34)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hostd.wire import RemoteError, WireError
from partitions.command import journal as journal_module
from partitions.command import placing as placing_module
from partitions.command.journal import Journal
from partitions.command.placing import Placing, checked_request
from partitions.messages import Fields, Refusal
from partitions.operations.policies import Policies, checked_policy
from partitions.ultravisor import queries
from tests.framework.control_plane import MIB, Host, disk, furnish


class Ultravisor:
    """The real transactions behind the interface of a wire. `before` and `after` are called around each
    transaction, to interrupt it or to change the resources in between."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.before = self.after = lambda: None

    def request(self, message: dict[str, Any], fds: Any = (), timeout: float | None = None) -> Any:
        fields = Fields.of_request(message)
        try:
            if message["op"] == "query":
                return queries.run(self.host.database, fields), []
            self.before()
            answer = self.host.transactions.run(fields, "command")
        except Refusal as refusal:
            raise RemoteError(refusal.code, refusal.message, refusal.details) from refusal
        self.after()
        return answer, []


class Operations:
    def __init__(self, policies: Policies) -> None:
        self.policies = policies

    def request(self, message: dict[str, Any], fds: Any = (), timeout: float | None = None) -> Any:
        return {"reply": 1, "policy": self.policies.get(message["zone"])}, []


class Scene:
    def __init__(self, folder: Path) -> None:
        self.host = Host(folder / "resources.db")
        self.host.transaction(*furnish())
        self.policies = Policies(folder / "policies.db")
        self.journal = Journal(folder / "decisions.db")
        self.ultravisor = Ultravisor(self.host)
        self.placing = Placing(self.journal, self.ultravisor, Operations(self.policies), clock=lambda: 5.0)

    def place(self, name: str = "store", key: str = "k", memory: int = MIB, **fields: Any) -> dict[str, Any]:
        asked = checked_request({"name": name, "type": "guest", "memory": memory, **fields})
        return self.placing.place(asked, "default", key, "test")

    def policy(self, **fields: Any) -> None:
        self.policies.set(*checked_policy({"name": "default", **fields}), None, "test", 0.0)

    def guests(self) -> list[str]:
        return [row["name"] for row in self.host.query("partitions")["partitions"] if row["type"] == "guest"]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    assert scene.host.check() == []
    scene.host.close()
    scene.policies.close()
    scene.journal.close()


def test_a_placement_is_on_record_with_its_inputs(scene: Scene) -> None:
    scene.policy(memory_limit=8 * MIB)
    answer = scene.place(endpoints=[disk()])
    assert answer["plan"]["memory"][0]["hpa"] == 65536 * 4096 and answer["plan"]["processors"] == [0]
    record = scene.journal.get(answer["decision"])
    assert record is not None
    assert (record["partition"], record["actor"], record["time"]) == ("store", "test", 5.0)
    assert record["outcome"] == "committed"
    assert record["policy"]["memory_limit"] == 8 * MIB and record["policy"]["version"] == 1
    assert record["resources"]["free"] == [{"frame": 65536, "frames": 16384}]
    assert record["answer"]["rule"] == "first-fit" and record["detail"] == answer["plan"]


def test_a_refusal_is_on_record_too(scene: Scene) -> None:
    scene.policy(memory_limit=MIB - 4096)
    for _ in range(2):  # the second time from the record
        with pytest.raises(Refusal) as caught:
            scene.place()
        assert (caught.value.code, caught.value.details["rule"]) == ("not_placed", "memory_limit")
    [record] = scene.journal.find("store", 10)
    assert (record["outcome"], record["decision"]) == ("refused", caught.value.details["decision"])
    assert scene.guests() == []


def test_a_refusal_of_the_ultravisor_is_the_outcome(scene: Scene) -> None:
    scene.place(key="k1")
    for _ in range(2):
        with pytest.raises((Refusal, RemoteError)) as caught:
            scene.place(key="k2")
        assert (caught.value.code, caught.value.details["rule"]) == ("conflict", "partition.name")
    assert [record["outcome"] for record in scene.journal.find("store", 10)] == ["committed", "refused"]


def test_a_key_places_once(scene: Scene) -> None:
    first = scene.place()
    assert scene.place() == {**first, "replayed": True}
    with pytest.raises(Refusal, match="another request"):
        scene.place(name="other")
    assert scene.guests() == ["store"]


def test_an_answer_that_was_lost_is_asked_for_again(scene: Scene) -> None:
    """The command partition died, or the wire did, after the transaction and before its outcome was written."""

    def lost() -> None:
        raise WireError("gone")

    scene.ultravisor.after = lost
    with pytest.raises(Refusal, match="gone"):
        scene.place()
    scene.ultravisor.after = lambda: None
    scene.host.transaction({"op": "epoch.reserve", "partition": "io-a", "count": 1})  # the version moves on
    answer = scene.place()
    assert answer["replayed"] and scene.guests() == ["store"]
    assert [record["outcome"] for record in scene.journal.find(None, 10)] == ["committed"]


def test_a_decision_on_old_resources_is_made_anew(scene: Scene) -> None:
    changes = iter(range(2))

    def interfere() -> None:
        for number in changes:
            frame = {"frame": 65536 + number * 256, "frames": 256}
            other = {"op": "partition.create", "name": f"other{number}", "type": "guest", "memory": MIB}
            scene.host.transaction({**other, "extents": [frame]})
            return

    scene.ultravisor.before = interfere
    answer = scene.place()
    assert answer["plan"]["memory"][0]["hpa"] == (65536 + 512) * 4096
    outcomes = [record["outcome"] for record in scene.journal.find("store", 10)]
    assert outcomes == ["superseded", "superseded", "committed"]


def test_resources_that_never_rest_end_in_a_conflict(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing_module, "ATTEMPTS_MAX", 3)
    reserve = {"op": "epoch.reserve", "partition": "io-a", "count": 1}
    scene.ultravisor.before = lambda: scene.host.transaction(reserve) and None
    with pytest.raises(Refusal, match="changed 3 times"):
        scene.place()
    assert scene.guests() == []


def test_what_passes_is_no_outcome(scene: Scene) -> None:
    scene.host.keeper.fails = True
    with pytest.raises(RemoteError, match="told to fail"):
        scene.place()
    scene.host.keeper.fails = False
    assert scene.place()["replayed"] is False
    assert len(scene.journal.find("store", 10)) == 1


def test_a_rehearsal_records_nothing(scene: Scene) -> None:
    asked = checked_request({"name": "store", "type": "guest", "memory": MIB})
    answer = scene.placing.rehearse(asked, "default")
    assert answer["decision"] is None and answer["plan"]["memory"][0]["segment"] is None
    scene.policy(partitions_limit=0)
    with pytest.raises(Refusal) as caught:
        scene.placing.rehearse(asked, "default")
    assert caught.value.details["rule"] == "partitions_limit"
    assert scene.journal.find(None, 10) == [] and scene.guests() == []


def test_records_are_never_changed_and_old_ones_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "DECISIONS_MAX", 3)
    scene = Scene(tmp_path)
    for number in range(6):
        scene.place(name=f"p{number}", key=f"k{number}")
    assert [record["partition"] for record in scene.journal.find(None, 10)] == ["p3", "p4", "p5"]
    assert scene.journal.value("SELECT count(*) FROM outcome") == 3
    for attack in (
        "UPDATE decision SET answer = '{}'",
        "UPDATE outcome SET outcome = 'refused'",
        "DELETE FROM decision",
        "INSERT INTO outcome VALUES (6, 'refused', '{}')",
    ):
        with pytest.raises(sqlite3.IntegrityError):
            scene.journal.execute(attack)
    scene.host.close()
    scene.policies.close()
    scene.journal.close()


@pytest.mark.parametrize(
    "asked",
    [
        None,
        {},
        {"name": "store", "type": "spaceship"},
        {"name": "store", "type": "guest", "memory": -1},
        {"name": "store", "type": "guest", "memory": MIB, "extents": [{"frame": 65536, "frames": 256}]},
        {"name": "store", "type": "guest", "memory": MIB, "op": "device.use"},
        {"name": "store", "type": "guest", "memory": MIB, "op": ["device.use"]},
        {"name": "store", "type": "guest", "processors": "all"},
        {"name": "store", "type": "guest", "endpoints": [{"kind": "tape", "device": "disk0", "server": "io-a"}]},
        {"name": "store", "type": "guest", "endpoints": [{"kind": "disk", "server": "io-a"}]},
        {"name": "store", "type": "guest", "endpoints": [{"kind": "disk", "device": "disk0"}]},
    ],
)
def test_a_malformed_request_is_refused(asked: Any) -> None:
    with pytest.raises(Refusal) as caught:
        checked_request(asked)
    assert caught.value.code == "invalid"

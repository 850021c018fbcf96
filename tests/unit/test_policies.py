"""Versions of policies: never changed, one per change, keys, limits (U13)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from partitions.messages import Refusal
from partitions.operations import policies as module
from partitions.operations.policies import DEFAULT, Policies, checked_policy


@pytest.fixture
def policies(tmp_path: Path) -> Iterator[Policies]:
    policies = Policies(tmp_path / "policies.db")
    yield policies
    policies.close()


def put(policies: Policies, key: str | None = None, **fields: Any) -> dict[str, Any]:
    zone, body = checked_policy({"name": "default", **fields})
    return policies.set(zone, body, key, "test", 1.0)


def test_a_zone_without_a_policy_follows_the_default(policies: Policies) -> None:
    assert policies.get("default") == {"name": "default", **DEFAULT, "version": 0}
    assert policies.zones() == []


def test_each_change_is_a_version(policies: Policies) -> None:
    assert put(policies, memory_limit=1000)["policy"]["version"] == 1
    assert put(policies, memory_limit=2000)["policy"]["version"] == 2
    assert policies.get("default")["memory_limit"] == 2000
    assert policies.get("default", 1)["memory_limit"] == 1000
    with pytest.raises(Refusal, match="no policy of version 3"):
        policies.get("default", 3)


def test_the_same_policy_again_is_no_change(policies: Policies) -> None:
    assert put(policies, partitions_limit=0)["changed"]
    assert not put(policies, partitions_limit=0)["changed"]
    assert put(policies)["policy"]["version"] == 2
    assert put(policies, partitions_limit=0)["policy"]["version"] == 3


def test_setting_the_default_makes_it_a_version(policies: Policies) -> None:
    assert put(policies)["policy"]["version"] == 1


def test_a_key_acts_once(policies: Policies) -> None:
    first = put(policies, key="k", memory_limit=1)
    put(policies, memory_limit=2)
    again = put(policies, key="k", memory_limit=1)
    assert again["replayed"] and again["policy"] == first["policy"]
    assert policies.get("default")["memory_limit"] == 2
    with pytest.raises(Refusal, match="another change"):
        put(policies, key="k", memory_limit=3)


def test_versions_survive_a_restart_and_are_never_changed(policies: Policies, tmp_path: Path) -> None:
    put(policies, memory_limit=1)
    policies.close()
    reopened = Policies(tmp_path / "policies.db")
    assert reopened.get("default")["memory_limit"] == 1
    for attack in (
        "UPDATE policy SET body = '{}'",
        "DELETE FROM policy",
        "INSERT INTO policy VALUES ('default', 9, '{}', NULL, 'x', 0)",
        "INSERT INTO policy VALUES ('default', 1, '{}', NULL, 'x', 0)",
    ):
        with pytest.raises(sqlite3.IntegrityError):
            reopened.execute(attack)
    reopened.close()


def test_what_a_caller_can_grow_has_an_end(policies: Policies, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ZONES_MAX", 3)
    for number in range(3):
        put(policies, name=f"zone{number}")
    with pytest.raises(Refusal, match="3 zones already"):
        put(policies, name="zone3")
    put(policies, name="zone2", memory_limit=5)


def test_old_versions_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "VERSIONS_MAX", 4)
    policies = Policies(tmp_path / "few.db")
    for limit in range(10):
        put(policies, memory_limit=limit)
    assert [row["version"] for row in policies.rows("SELECT version FROM policy")] == [7, 8, 9, 10]
    policies.close()


@pytest.mark.parametrize(
    "policy",
    [
        None,
        [],
        {},
        {"name": "Zone"},
        {"name": "default", "placement": "best-guess"},
        {"name": "default", "memory_limit": -1},
        {"name": "default", "memory_limit": "1GiB"},
        {"name": "default", "partitions_limit": True},
        {"name": "default", "partitions_limit": 1.0},
        {"name": "default", "colour": "red"},
    ],
)
def test_a_malformed_policy_is_refused(policy: Any) -> None:
    with pytest.raises(Refusal) as caught:
        checked_policy(policy)
    assert caught.value.code == "invalid"

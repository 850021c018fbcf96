"""Hardware views through real processes: what a guest finds, what traps, what is counted (H1 to H3, H5)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.framework.host import Host, running

DISKS = [{"name": "vda", "size": "1MiB"}]


@pytest.fixture(scope="module")
def shared() -> Iterator[Host]:
    with running() as host:
        yield host


@pytest.fixture
def host(shared: Host) -> Iterator[Host]:
    yield shared
    shared.remove_guests()


def faults(host: Host, name: str, outcome: str) -> float:
    return host.metrics().value("configuration_faults_total", partition=name, outcome=outcome)


def granted(host: Host, name: str) -> set[tuple[str, str]]:
    return {(end["kind"], end["name"]) for end in host.view(name)["true"]["endpoints"]}


def names(found: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(function["kind"], function["name"]) for function in found}


def test_enumeration_is_the_granted_set(host: Host) -> None:
    guest = host.guest("store", disks=DISKS, nics=["eth0", "eth1"])
    answer = guest.call("hardware:enumerate_all")
    assert names(answer["found"]) == granted(host, "store") == names(answer["table"]["functions"])
    assert {tuple(one["address"]) for one in answer["found"]} == {
        tuple(one["address"]) for one in answer["table"]["functions"]
    }

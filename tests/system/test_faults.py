"""The fault plane: what a guest sees of each kind of fault, and what the host makes of it (rules.md 40).

Armed by the same call as `hostctl faults arm`. Off is off: nothing strikes before, or after `clear`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from hostd.errors import HostError
from tests.framework.host import Host
from tests.framework.puppet import Puppet

OK, NOTHING = ["ok", "none"], ["none", "none"]
PATHS = ("redirect", "direct")
EVERY = ("copy", *PATHS)
SECONDS = 0.3  # that something is late
GUEST = "one"
BESIDE = ("direct", "monitor")  # who has no part in requests of that path


@pytest.fixture
def faults(host: Host) -> Iterator[Faults]:
    plane = Faults(host)
    try:
        yield plane
    finally:
        plane.clear()


class Faults:
    def __init__(self, host: Host) -> None:
        self.host = host
        self.before = self._counted()

    def _counted(self) -> dict[str, float]:
        return self.host.metrics().by("kind", "injected_faults_total")

    def arm(self, *lines: dict[str, Any], seed: int = 1) -> dict[str, Any]:
        ends = {"partition": GUEST, "endpoint": "vda"}
        faults = [line if line["kind"] == "hung" else {**ends, **line} for line in lines]
        return self.host.client.request("PUT", "/v1/faults", {"seed": seed, "faults": faults})

    def show(self) -> dict[str, Any]:
        return self.host.client.get("/v1/faults")

    def clear(self) -> None:
        self.host.client.request("DELETE", "/v1/faults")

    def counted(self) -> dict[str, float]:
        """Faults by kind since the begin of the test, as the metrics tell."""
        now = self._counted()
        return {kind: now[kind] - self.before.get(kind, 0) for kind in now if now[kind] != self.before.get(kind, 0)}


def made(host: Host, path: str) -> Puppet:
    guest = host.guest(GUEST, disks=[{"name": "vda", "size": "1MiB", "path": path}])
    guest.call("faulty:requests", disk="vda", operation="write", count=2)  # a driver at work follows its path
    host.until(lambda: host.path(GUEST, "vda") == path)
    return guest


def ask(guest: Puppet, operation: str = "write", count: int = 4, **more: Any) -> dict[str, Any]:
    return guest.call("faulty:requests", disk="vda", operation=operation, count=count, **more)


@pytest.mark.parametrize("path", PATHS)
def test_an_error_fails_one_request_and_no_other(host: Host, faults: Faults, path: str) -> None:
    guest = made(host, path)
    faults.arm({"kind": "error", "operation": "write", "after": 2})
    assert ask(guest)["answers"] == [OK, OK, ["failed", "medium_error"], OK]
    assert ask(guest, "read")["answers"] == [OK] * 4
    assert faults.counted() == {"error": 1}
    assert host.metrics().by("partition", "io_failed_total")[GUEST] == 1
    (line,) = faults.show()["log"]
    assert (line["number"], line["operation"], line["kind"]) == (2, "write", "error")


@pytest.mark.parametrize("path", PATHS)
def test_a_delay_costs_its_time(host: Host, faults: Faults, path: str) -> None:
    guest = made(host, path)
    faults.arm({"kind": "delay", "after": 1, "seconds": SECONDS})
    found = ask(guest, count=3)
    assert found["answers"] == [OK] * 3
    assert found["seconds"][1] >= SECONDS > found["seconds"][2]


@pytest.mark.parametrize("path", PATHS)
def test_a_second_completion_is_nobodys(host: Host, faults: Faults, path: str) -> None:
    """On the direct path the guest's driver drops it, otherwise the I/O partition; either counts it as foreign."""
    guest = made(host, path)
    before = sum(host.metrics().by("process", "thread_foreign_completions_total").values())
    faults.arm({"kind": "duplicate", "count": 3})
    found = ask(guest, count=6)
    assert found["answers"] == [OK] * 6 and found["in_flight"] == 0
    known = sum(host.metrics().by("process", "thread_foreign_completions_total").values()) - before
    assert (found["foreign"], known) == ((3, 0) if path == "direct" else (0, 3))


def test_a_lost_completion_comes_with_the_next_server(host: Host, faults: Faults) -> None:
    """By a server the request stands in its ledger: whoever takes over sends it again."""
    guest = made(host, "redirect")
    faults.arm({"kind": "lost", "after": 1})
    found = ask(guest, count=3, wait=0.2)
    assert found["answers"] == [OK, NOTHING, OK] and found["in_flight"] == 1
    host.client.request("PUT", "/v1/offices/io-a", {})
    host.client.request("PUT", "/v1/offices/io-b", {})
    assert guest.call("faulty:rest", endpoint="vda") == [OK]
    assert faults.counted() == {"lost": 1}


def test_a_completion_lost_on_the_direct_path_stays_lost(host: Host, faults: Faults) -> None:
    """Nobody but the guest knows of it: others go on, and the endpoint can be taken away."""
    guest = made(host, "direct")
    faults.arm({"kind": "lost", "after": 1})
    found = ask(guest, count=4, wait=0.2)
    assert found["answers"] == [OK, NOTHING, OK, OK] and found["in_flight"] == 1
    assert guest.call("faulty:rest", endpoint="vda", wait=0.1) == []
    host.detach(GUEST, "vda")


@pytest.mark.parametrize("path", PATHS)
def test_a_late_completion_is_overtaken(host: Host, faults: Faults, path: str) -> None:
    guest = made(host, path)
    faults.arm({"kind": "late", "after": 1, "seconds": SECONDS})
    found = ask(guest, count=3, wait=SECONDS / 3)
    assert found["answers"] == [OK, NOTHING, OK] and found["in_flight"] == 1
    assert guest.call("faulty:rest", endpoint="vda") == [OK]


def test_a_late_completion_is_given_when_faults_are_cleared(host: Host, faults: Faults) -> None:
    guest = made(host, "direct")
    faults.arm({"kind": "late", "seconds": 5.0})
    assert ask(guest, count=1, wait=0.1)["in_flight"] == 1
    faults.clear()
    assert guest.call("faulty:rest", endpoint="vda", wait=1.0) == [OK]


def test_what_is_struck_on_the_path_copy(host: Host, faults: Faults) -> None:
    """It lies in the I/O partition's memory meanwhile, and has two steps more; the guest sees the same."""
    guest = made(host, "copy")
    before = sum(host.metrics().by("process", "thread_foreign_completions_total").values())
    faults.arm({"kind": "error", "after": 2})
    assert ask(guest)["answers"] == [OK, OK, ["failed", "medium_error"], OK]
    faults.arm({"kind": "duplicate", "after": 1, "operation": "read"})
    assert ask(guest, "read")["answers"] == [OK] * 4
    assert sum(host.metrics().by("process", "thread_foreign_completions_total").values()) == before + 1
    faults.arm({"kind": "delay", "after": 1, "seconds": SECONDS})
    found = ask(guest, count=2, fill=1)
    assert found["answers"] == [OK] * 2 and found["seconds"][1] >= SECONDS
    faults.arm({"kind": "torn", "operation": "write"})
    assert ask(guest, count=1, fill=2)["answers"] == [["failed", "medium_short"]]
    found = ask(guest, "read", count=1)
    assert (found["first"], found["last"]) == (2, 1)
    faults.arm({"kind": "late", "after": 1, "seconds": SECONDS})
    assert ask(guest, "read", count=3, wait=SECONDS / 3)["answers"] == [OK, NOTHING, OK]
    assert guest.call("faulty:rest", endpoint="vda") == [OK]
    faults.arm({"kind": "lost", "after": 1})
    assert ask(guest, "read", count=3, wait=0.2)["answers"] == [OK, NOTHING, OK]
    for office in ("io-a", "io-b"):
        host.client.request("PUT", f"/v1/offices/{office}", {})
    assert guest.call("faulty:rest", endpoint="vda") == [OK]
    assert faults.counted() == dict.fromkeys(("error", "duplicate", "delay", "torn", "late", "lost"), 1)


@pytest.mark.parametrize("path", PATHS)
def test_a_torn_write_fails_and_leaves_half(host: Host, faults: Faults, path: str) -> None:
    guest = made(host, path)
    assert ask(guest, count=1, fill=1)["answers"] == [OK]
    faults.arm({"kind": "torn", "operation": "write"})
    assert ask(guest, count=1, fill=2)["answers"] == [["failed", "medium_short"]]
    found = ask(guest, "read", count=1)
    assert (found["first"], found["last"]) == (2, 1)
    assert ask(guest, count=1, fill=2)["answers"] == [OK]
    found = ask(guest, "read", count=1)
    assert (found["first"], found["last"]) == (2, 2)


def test_a_corrupt_ring_is_told_and_the_endpoint_comes_back(host: Host, faults: Faults) -> None:
    guest = made(host, "direct")
    faults.arm({"kind": "corrupt"})
    assert "out of bounds" in guest.call("faulty:broken", disk="vda")
    host.detach(GUEST, "vda")
    host.attach(GUEST, disk={"name": "vdb", "size": "1MiB", "path": "direct"})
    guest.call("hardware:wait_for_change", timeout=5.0)
    assert guest.call("faulty:requests", disk="vdb", operation="write", count=2)["answers"] == [OK] * 2


@pytest.mark.parametrize("path", ["copy", "redirect"])
def test_a_hung_server_is_taken_over(host: Host, faults: Faults, path: str) -> None:
    guest = made(host, path)
    (served,) = {row["served_by"] for row in host.status()["host"]["offices"] if row["name"] == "io-a"}
    since = len(host.events())
    armed = faults.arm({"kind": "hung", "role": served, "seconds": 2.0})
    assert (armed["faults"], armed["hung"]) == ([], [{"role": served, "seconds": 2.0}])
    host.until(lambda: [event for event in host.events()[since:] if event["kind"] == "takeover"])
    assert {event["cause"] for event in host.events()[since:] if event["kind"] == "takeover"} == {"hang"}
    assert ask(guest)["answers"] == [OK] * 4
    host.until(lambda: all(host.row(name)["state"] == "running" and host.row(name)["pid"] for name in ("io-a", "io-b")))


@pytest.mark.parametrize(
    ("path", "role"), [(path, role) for path in EVERY for role in ("disk0", "monitor") if (path, role) != BESIDE]
)
def test_a_hung_role_that_goes_on_costs_its_time(host: Host, faults: Faults, path: str, role: str) -> None:
    guest = made(host, path)
    faults.arm({"kind": "hung", "role": role, "seconds": SECONDS})
    found = ask(guest, count=2)
    assert found["answers"] == [OK] * 2 and sum(found["seconds"]) >= SECONDS / 2
    assert faults.counted() == {"hung": 1}


def test_the_same_seed_gives_the_same_log(host: Host, faults: Faults) -> None:
    guest = made(host, "direct")
    logs = []
    for seed in (5, 5, 6):
        errors, duplicates = ({"kind": kind, "chance": 0.3, "count": 0} for kind in ("error", "duplicate"))
        faults.arm(errors, duplicates, seed=seed)
        ask(guest, count=60)
        logs.append(faults.show()["log"])
    assert logs[0] == logs[1] != logs[2]
    assert len(logs[0]) > 10 and {line["kind"] for line in logs[0]} == {"error", "duplicate"}


def test_nothing_strikes_unless_armed(host: Host, faults: Faults) -> None:
    guest = made(host, "redirect")
    assert faults.show() == {"seed": None, "faults": [], "log": []}
    faults.arm({"kind": "error", "count": 0})
    assert ask(guest, count=2)["answers"] == [["failed", "medium_error"]] * 2
    faults.clear()
    assert ask(guest)["answers"] == [OK] * 4
    with pytest.raises(HostError) as caught:
        faults.arm({"kind": "error", "endpoint": "vdz"})
    assert caught.value.code == "not_found" and "vda" in str(caught.value)
    with pytest.raises(HostError) as caught:
        faults.arm({"kind": "late"})
    assert "how many seconds" in str(caught.value)
    with pytest.raises(HostError) as caught:
        faults.arm({"kind": "error", "operation": "receive"})
    assert "can only lose its interrupt" in str(caught.value)

"""Endpoints that come and go while their guest runs: view, interrupt, data, and nothing left behind (H1, H4, H6)."""

from __future__ import annotations

import pytest

from hostd.errors import HostError
from tests.framework.footprint import Footprint
from tests.framework.host import Host
from tests.framework.puppet import Puppet
from tools.verbs.explain import lines

DISK = {"name": "vdb", "size": "1MiB"}
CYCLES, CYCLES_LONG = 8, 1000


def round_trip(guest: Puppet, disk: str, seed: int) -> None:
    """Data of `seed` through the disk and back."""
    for function in ("disk:write", "disk:read"):
        guest.call(function, disk=disk, length=4096, seed=seed)


def test_an_attached_disk_is_found_and_works(host: Host) -> None:
    guest = host.guest("store", nics=["eth0"])
    assert [one["name"] for one in guest.call("hardware:enumerate_all")["found"]] == ["eth0"]
    waiting = guest.begin("hardware:wait_for_change", timeout=20.0)
    host.attach("store", disk=DISK)
    change = waiting.result()
    assert change["seconds"] < 20
    assert {one["name"] for one in change["table"]["functions"]} == {"eth0", "vdb"}
    found = {one["name"]: one["address"] for one in guest.call("hardware:enumerate_all")["found"]}
    assert set(found) == {"eth0", "vdb"}
    round_trip(guest, "vdb", seed=1)
    assert host.failed_checks() == []
    assert {end["name"] for end in host.row("store")["endpoints"]} == {"eth0", "vdb"}

    waiting = guest.begin("hardware:wait_for_change", timeout=20.0)
    host.detach("store", "vdb")
    assert {one["name"] for one in waiting.result()["table"]["functions"]} == {"eth0"}
    assert guest.call("hardware:read", address=found["vdb"]) == "ff" * 4096
    assert [one["name"] for one in guest.call("hardware:enumerate_all")["found"]] == ["eth0"]
    assert host.failed_checks() == []


def test_the_interrupt_wakes_a_sleeping_guest(host: Host) -> None:
    """It sleeps for a second at a time, and without an interrupt would hear of a change after that."""
    guest = host.guest("store", nics=["eth0"])
    sleeping = guest.begin("hardware:sleep_until_interrupt", timeout=5.0)
    host.until(lambda: not sleeping_on_processor(guest.pid))
    host.attach("store", nic={"name": "eth1"})
    woken = sleeping.result()
    assert woken["pending"] == 1 << 2  # first vector of endpoint 1: two vectors for each endpoint
    assert woken["seconds"] < 5.0


def sleeping_on_processor(pid: int) -> bool:
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "R"


def test_a_detached_endpoint_on_each_path(host: Host) -> None:
    guest = host.guest("store", disks=[{"name": "vda", "size": "1MiB"}])
    for path in ("redirect", "direct"):
        host.attach("store", disk={**DISK, "path": path})
        guest.call("hardware:take_changes")
        round_trip(guest, "vdb", seed=2)
        host.detach("store", "vdb")
        guest.call("hardware:take_changes")
        round_trip(guest, "vda", seed=3)
    assert host.failed_checks() == []


def test_a_guest_that_ignores_it_loses_the_endpoint_all_the_same(host: Host) -> None:
    guest = host.guest("store", disks=[DISK], nics=["eth0"])
    place = next(one["address"] for one in guest.call("hardware:enumerate_all")["found"] if one["name"] == "vdb")
    round_trip(guest, "vdb", seed=4)
    host.detach("store", "vdb")
    assert guest.call("hardware:read", address=place) == "ff" * 4096
    assert host.kill("store")["state"] == "failed"
    host.remove("store")
    assert host.failed_checks() == []


def test_refusals(host: Host) -> None:
    host.guest("store", nics=["eth0"])
    for wrong, code in (
        (lambda: host.attach("store", nic={"name": "eth0"}), "conflict"),
        (lambda: host.attach("store", nic={"name": "eth1", "device": "nic9"}), "invalid"),
        (lambda: host.attach("nobody", nic={"name": "eth1"}), "not_found"),
        (lambda: host.attach("monitor", nic={"name": "eth1"}), "state"),
        (lambda: host.attach("store"), "invalid"),
        (lambda: host.detach("store", "eth7"), "not_found"),
    ):
        with pytest.raises(HostError) as refused:
            wrong()
        assert refused.value.code == code
    assert [end["name"] for end in host.row("store")["endpoints"]] == ["eth0"]
    assert host.failed_checks() == []


def test_apply_plugs_into_a_running_guest(host: Host) -> None:
    """A manifest whose partition gained and lost endpoints: the guest that runs gets and gives them (H1, H4)."""
    guest = host.guest("store", disks=[{"name": "vda", "size": "1MiB"}], nics=["eth0"])
    round_trip(guest, "vda", seed=6)
    wanted = host.client.get("/v1/export")
    (spec,) = wanted["partitions"]
    spec["nics"] = [{"name": "eth1"}]
    spec["disks"].insert(0, DISK)
    changes = [(one["action"], one["name"]) for one in host.client.post("/v1/plan", wanted)["changes"]]
    assert changes == [("detach", "store.eth0"), ("attach", "store.vdb"), ("attach", "store.eth1")]
    assert {end["name"] for end in host.row("store")["endpoints"]} == {"vda", "eth0"}  # a plan changes nothing
    assert host.client.post("/v1/apply", wanted)["applied"] == 3
    guest.call("hardware:take_changes")
    assert {one["name"] for one in guest.call("hardware:enumerate_all")["found"]} == {"vda", "vdb", "eth1"}
    for disk in ("vda", "vdb"):
        round_trip(guest, disk, seed=7)
    assert host.row("store")["pid"] == guest.pid
    for found in (wanted, host.client.get("/v1/export")):
        assert host.client.post("/v1/plan", found)["changes"] == []
    records = host.client.get("/v1/explain", partition="store")["decisions"][-3:]
    assert [one["answer"]["rule"] for one in records] == ["detach", "attach", "attach"]
    spec["memory"] = "8MiB"
    (change,) = host.client.post("/v1/plan", wanted)["changes"]
    assert (change["action"], change["name"], list(change["fields"])) == ("replace", "store", ["memory"])
    assert host.failed_checks() == []


def test_decisions_are_on_record(host: Host) -> None:
    """What came, what went and what was refused, with rule and policy; a replay gives the same answers (U13)."""
    host.guest("store", nics=["eth0"])
    attached = host.attach("store", disk=DISK)
    with pytest.raises(HostError) as refused:
        host.attach("store", disk=DISK)
    detached = host.detach("store", "vdb")
    with pytest.raises(HostError, match="store has no endpoint vdb; known: eth0"):
        host.detach("store", "vdb")
    records = host.client.get("/v1/explain", partition="store", replay=True)["decisions"][-5:]
    assert [(one["answer"]["rule"], one["outcome"]) for one in records] == [
        ("first-fit", "committed"), ("attach", "committed"), ("endpoint", "refused"), ("detach", "committed"),
        ("endpoint", "refused"),
    ]  # fmt: skip
    assert all(one["replay"]["same"] for one in records)
    numbers = [attached["decision"], refused.value.details["decision"], detached["decision"]]
    assert [one["decision"] for one in records[1:4]] == numbers
    shown = "\n".join(lines(records))
    for text in (
        "vdb@disk0",
        "store gets vdb at disk0, on redirect",
        "store has an endpoint vdb already",
        "detach vdb",
    ):
        assert text in shown, shown


def test_cycles_leave_nothing(host: Host, long: bool) -> None:
    """Attach and detach, again and again: descriptors, memory and series are what they were."""
    guest = host.guest("store", nics=["eth0"])

    def cycle() -> None:
        host.attach("store", disk=DISK)
        guest.call("hardware:take_changes")
        round_trip(guest, "vdb", seed=5)
        host.detach("store", "vdb")
        guest.call("hardware:take_changes")

    cycle()
    before = Footprint.of(host).lasting()
    for _ in range(CYCLES_LONG if long else CYCLES):
        cycle()
    host.until(lambda: Footprint.of(host).lasting() == before, explain=lambda: (before, Footprint.of(host).lasting()))
    assert host.failed_checks() == []

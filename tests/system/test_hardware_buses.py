"""Buses, whole devices, and views that are built in advance (H3, H4)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from hostd.errors import HostError
from tests.framework.host import MANIFEST, Host, running

DISK = {"name": "vda", "size": "1MiB"}
DEVICES = [
    {"name": "nic0", "kind": "nic"}, {"name": "disk0", "kind": "disk"},
    {"name": "nic1", "kind": "nic"}, {"name": "disk1", "kind": "disk"},
]  # fmt: skip
BUSES = [{"name": "front", "devices": ["disk0", "nic0"]}, {"name": "back", "number": 16, "devices": ["disk1", "nic1"]}]


@pytest.fixture(scope="module")
def shared() -> Iterator[Host]:
    with running({**MANIFEST, "devices": DEVICES, "buses": BUSES}) as host:
        yield host


@pytest.fixture
def host(shared: Host) -> Iterator[Host]:
    yield shared
    shared.remove_guests()


def places(found: list[dict[str, Any]]) -> dict[str, list[int]]:
    return {one["name"]: one["address"] for one in found}


def test_functions_lie_on_the_buses_of_the_manifest(host: Host) -> None:
    guest = host.guest("store", disks=[DISK, {**DISK, "name": "vdb", "device": "disk1"}], nics=["eth0"])
    found = guest.call("hardware:enumerate_all")["found"]
    assert places(found) == {"vda": [0, 0, 0], "eth0": [0, 1, 0], "vdb": [16, 0, 0]}
    assert places(guest.call("hardware:probe")) == places(found)


def test_more_than_eight_endpoints_of_one_device(host: Host) -> None:
    """The device's own eight functions, then those of numbers that are free on its bus."""
    guest = host.guest("store", nics=[f"eth{number}" for number in range(10)])
    found = guest.call("hardware:enumerate_all")["found"]
    assert places(found) == {
        **{f"eth{number}": [0, 1, number] for number in range(8)}, "eth8": [0, 31, 0], "eth9": [0, 31, 1],
    }  # fmt: skip
    assert places(guest.call("hardware:probe")) == places(found)


def test_a_whole_bus_belongs_to_one_guest(host: Host) -> None:
    owner = host.guest("owner", buses=["back"], disks=[{**DISK, "device": "disk1"}])
    found = {one["name"]: one for one in owner.call("hardware:enumerate_all")["found"]}
    # The NIC is there although no endpoint uses it; a whole device is shown as it is, a share is not.
    assert places(list(found.values())) == {"vda": [16, 0, 0], "nic1": [16, 1, 0]}
    other = host.guest("other", disks=[DISK], nics=["eth0"])
    share = {one["name"]: one for one in other.call("hardware:probe")}
    assert set(share) == {"vda", "eth0"}
    assert found["vda"]["device"] != share["vda"]["device"]
    for wanted in ({"disks": [{**DISK, "device": "disk1"}]}, {"devices": ["nic1"]}, {"buses": ["back"]}):
        with pytest.raises(HostError) as refused:
            host.guest("third", **wanted)  # type: ignore[arg-type]
        assert refused.value.code == "conflict"
        assert refused.value.details["rule"] == "assigned" and "owner" in refused.value.message
    assigned = {"partition": "owner", "bus": "back"}
    found = host.client.get("/v1/resources")["assignments"]
    assert found == [{**assigned, "device": "disk1"}, {**assigned, "device": "nic1"}]
    owners = {device["device"]: device["owner"] for device in host.hardware("owner")["true"]}
    assert owners == {"disk0": None, "nic0": None, "disk1": "owner", "nic1": "owner"}
    host.remove("owner")
    host.guest("third", devices=["nic1"])


def test_a_device_in_use_is_not_assigned(host: Host) -> None:
    host.guest("user", nics=["eth0"])
    with pytest.raises(HostError, match="nic0 is used by user"):
        host.guest("greedy", devices=["nic0"])


def test_an_unmodified_program_finds_its_hardware_in_files(host: Host) -> None:
    """The same functions and pages as a Python guest's, nothing of the rest of the machine, and nobody changes them."""
    wanted: dict[str, Any] = {"disks": [DISK, {**DISK, "name": "vdb", "device": "disk1", "read_only": True}]}
    nics = [{"name": "eth0", "mac": "02:00:00:00:00:77"}]
    script = (
        "cd /run/partition; cat devices.json; for f in devices/*/config; do echo $f; od -An -v -tx1 $f | tr -d ' \\n'; "
        "echo; done; (echo x > devices.json) 2>&1; (rm -r devices) 2>&1 | tail -1; ls"
    )
    host.spawn("program", ["/bin/sh", "-c", script], **wanted, nics=nics)
    assert host.wait_for_end("program")["state"] == "stopped"
    text, _, rest = host.log("program").partition("\n}\n")
    document, lines = json.loads(text + "}"), rest.splitlines()
    host.remove("program")
    guest = host.guest("store", **wanted, nics=nics)
    table, region = guest.call("hardware:enumerate_all")["table"], guest.call("hardware:enumerate_all")["found"]
    assert (document["memory"], document["processors"]) == (table["memory"], table["processors"])
    own = ("generation",)  # of an endpoint: it never repeats
    for said, found in zip(document["functions"], region, strict=True):
        assert {key: said[key] for key in found if key not in (*own, "address")} == {
            key: found[key] for key in found if key not in (*own, "address")
        }
        bus, device, function = found["address"]
        assert said["address"] == f"{bus:02x}:{device:02x}.{function}"
        page = lines[lines.index(said["config"]) + 1]
        true = guest.call("hardware:read", address=found["address"])
        assert len(page) == 8192
        differ = [place for place in range(0, 8192, 2) if page[place : place + 2] != true[place : place + 2]]
        assert len(differ) <= 8, "more than the generation of the endpoint differs"
    assert [line for line in lines if line.endswith("config")] == [said["config"] for said in document["functions"]]
    assert sum("Read-only file system" in line for line in lines) == 2
    assert lines[-2:] == ["devices", "devices.json"]
    assert host.hardware("store")["region"]["traps"]


def test_a_view_that_is_built_in_advance() -> None:
    """As on a kernel without userfaultfd: the same functions, all ones elsewhere, no trap and no count."""
    manifest = {**MANIFEST, "host": {**MANIFEST["host"], "hardware": "built"}}
    with running(manifest) as host:
        guest = host.guest("store", disks=[DISK], nics=["eth0"])
        answer = guest.call("hardware:enumerate_all")
        granted = {end["name"] for end in host.view("store")["true"]["endpoints"]}
        assert set(places(answer["found"])) == {one["name"] for one in answer["table"]["functions"]} == granted
        assert places(guest.call("hardware:probe")) == places(answer["found"])
        assert guest.call("hardware:read", address=[255, 31, 7]) == "ff" * 4096
        for outcome in ("changed", "hidden"):
            assert host.metrics().value("configuration_faults_total", partition="store", outcome=outcome) == 0
        hardware = host.hardware("store")
        assert hardware["region"]["built"]
        assert hardware["believed"] is None
        assert host.failed_checks() == []

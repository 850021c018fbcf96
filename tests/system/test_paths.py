"""Endpoints of running guests change their path: who follows, who does not, who may, and who maps what (A1, U13).

Data is compared by the guest while it moves, so a request that is lost, doubled or mixed up ends its work.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from hostd.errors import HostError
from tests.framework.host import MANIFEST, Host, running
from tests.framework.puppet import Puppet

DISK = {"name": "vda", "size": "1MiB"}
# Every change from one path to another, each once.
TOUR = ["direct", "copy", "redirect", "copy", "direct", "redirect"]


def change(host: Host, name: str, path: str, endpoint: str = "vda", timeout: float = 5.0) -> dict[str, Any]:
    body = {"path": path, "timeout": timeout}
    return host.client.request("PUT", f"/v1/partitions/{name}/endpoints/{endpoint}/path", body)


def shown(host: Host, name: str) -> dict[str, tuple[str, str]]:
    """(in force, wanted) of each endpoint as `hostctl list` has it."""
    return {end["name"]: (end["path"], end["wanted"]) for end in host.row(name)["endpoints"]}


def recorded(host: Host, name: str) -> dict[str, tuple[str, str]]:
    """The same as the resource database has it."""
    return {end["name"]: (end["path"], end["wanted"]) for end in host.view(name)["true"]["endpoints"]}


def in_force(host: Host, name: str) -> dict[str, float]:
    """Paths that the metrics show as 1; the others are there as 0."""
    return host.metrics().by("path", "endpoint_path", partition=name, endpoint="vda")


def mapped_by_monitor(host: Host, name: str) -> bool:
    """Is memory of the guest in the monitor's map? The label of a memory object names its owner."""
    with open(f"/proc/{host.row('monitor')['pid']}/maps") as lines:
        return any(f":{name}:" in line for line in lines)


def copied(host: Host, name: str) -> float:
    return host.metrics().value("host_copied_bytes_total", partition=name, process="monitor")


@contextmanager
def working(host: Host, **spec: Any) -> Iterator[Puppet]:
    """A guest that writes, reads and compares all the while."""
    guest = host.guest("worker", disks=[{**DISK, **spec}])
    work = guest.begin("work:blocks", seed=5)
    host.await_progress("worker")
    yield guest
    host.await_progress("worker")
    assert work.finish()["rounds"] > 0
    assert all(queue["foreign"] == 0 for queue in guest.counts().values())
    assert host.metrics().by("reason", "io_refused_total", partition="worker") == {}


def test_a_disk_changes_between_all_paths_while_it_works(host: Host) -> None:
    with working(host):
        before = "redirect"
        for path in TOUR:
            answer = change(host, "worker", path)
            assert (answer["before"], answer["path"]) == (before, path) and answer["seconds"] < 5
            assert shown(host, "worker") == recorded(host, "worker") == {"vda": (path, path)}
            assert in_force(host, "worker") == {path: 1}
            assert mapped_by_monitor(host, "worker") == (path == "copy"), path
            assert host.failed_checks() == []
            bytes_before = copied(host, "worker")
            host.await_progress("worker")
            assert (copied(host, "worker") > bytes_before) == (path == "copy"), path
            before = path
        changes = [event for event in host.events() if event["kind"] == "path" and event["partition"] == "worker"]
        assert [event["path"] for event in changes] == TOUR


def test_the_path_in_force_is_answered_at_once(host: Host) -> None:
    with working(host):
        answer = change(host, "worker", "redirect")
        assert (answer["before"], answer["path"]) == ("redirect", "redirect")


@pytest.mark.parametrize("path", ["direct", "copy"])
def test_a_guest_that_does_not_follow_stays_and_may_be_asked_again(host: Host, path: str) -> None:
    with working(host) as guest:
        os.kill(guest.pid, signal.SIGSTOP)
        try:
            begin = time.monotonic()
            with pytest.raises(HostError, match=f"did not follow to {path} with vda within 0.3 s") as caught:
                change(host, "worker", path, timeout=0.3)
            assert caught.value.code == "timeout" and 0.3 <= time.monotonic() - begin < 3
            assert "it stays on redirect" in caught.value.message
            assert shown(host, "worker") == recorded(host, "worker") == {"vda": ("redirect", "redirect")}
            assert not mapped_by_monitor(host, "worker") and host.failed_checks() == []
        finally:
            os.kill(guest.pid, signal.SIGCONT)
        host.await_progress("worker")
        assert change(host, "worker", path)["path"] == path


def test_two_changes_of_one_endpoint_exclude_each_other(host: Host) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with working(host) as guest, ThreadPoolExecutor() as pool:
        os.kill(guest.pid, signal.SIGSTOP)
        try:
            first = pool.submit(change, host, "worker", "direct")
            host.until(lambda: recorded(host, "worker")["vda"][1] == "direct")
            assert shown(host, "worker") == {"vda": ("redirect", "direct")}
            with pytest.raises(HostError, match="is being changed") as caught:
                change(host, "worker", "copy")
            assert caught.value.code == "conflict"
        finally:
            os.kill(guest.pid, signal.SIGCONT)
        assert first.result()["path"] == "direct"


def test_a_guest_that_dies_meanwhile_ends_its_change(host: Host) -> None:
    from concurrent.futures import ThreadPoolExecutor

    guest = host.guest("victim", disks=[DISK])
    with ThreadPoolExecutor() as pool:
        os.kill(guest.pid, signal.SIGSTOP)
        pending = pool.submit(change, host, "victim", "copy", timeout=20)
        host.until(lambda: recorded(host, "victim")["vda"][1] == "copy")
        host.kill("victim")
        with pytest.raises(HostError) as caught:
            pending.result(10)
    assert caught.value.code == "state" and "has ended" in caught.value.message
    assert recorded(host, "victim") == {"vda": ("redirect", "redirect")}
    with pytest.raises(HostError) as caught:
        change(host, "victim", "copy")
    assert caught.value.code == "state" and "while its guest runs" in caught.value.message
    assert not mapped_by_monitor(host, "victim") and host.failed_checks() == []


@pytest.mark.parametrize("path", ["direct", "copy"])
def test_a_path_that_is_wanted_from_the_start_is_taken_with_the_first_request(host: Host, path: str) -> None:
    guest = host.guest("early", disks=[{**DISK, "path": path}])
    assert recorded(host, "early") == {"vda": ("redirect", path)}, "until its driver begins to work"
    guest.call("disk:write", disk="vda", length=8192, seed=3)
    host.until(lambda: recorded(host, "early") == {"vda": (path, path)})
    assert shown(host, "early") == {"vda": (path, path)}
    guest.call("disk:read", disk="vda", length=8192, seed=3)
    assert (copied(host, "early") > 0) == (path == "copy") and host.failed_checks() == []


def test_a_policy_denies_a_path_and_says_so(host: Host) -> None:
    manifest = host.client.get("/v1/export")
    strict = {**manifest, "policies": [{**manifest["policies"][0], "paths": ["redirect", "copy"]}]}
    with working(host):
        running_guests = host.client.get("/v1/export")["partitions"]
        host.client.post("/v1/apply", {**strict, "partitions": running_guests})
        try:
            with pytest.raises(HostError, match="policy allows the paths copy, redirect, not direct") as caught:
                change(host, "worker", "direct")
            assert caught.value.code == "denied" and shown(host, "worker")["vda"] == ("redirect", "redirect")
            decision = host.client.get("/v1/explain", partition="worker", replay=True)["decisions"][-1]
            assert (decision["outcome"], decision["answer"]["rule"]) == ("refused", "paths")
            assert decision["request"]["path"] == "direct" and decision["replay"]["same"]
            assert change(host, "worker", "copy")["path"] == "copy"
            with pytest.raises(HostError, match="vdb is to use the path direct") as caught:
                host.guest("other", disks=[{**DISK, "name": "vdb", "path": "direct"}])
            assert caught.value.code == "not_placed"
        finally:
            host.client.post("/v1/apply", {**manifest, "partitions": host.client.get("/v1/export")["partitions"]})


def test_apply_changes_a_path_live(host: Host) -> None:
    with working(host) as guest:
        document = host.client.get("/v1/export")
        [worker] = [partition for partition in document["partitions"] if partition["name"] == "worker"]
        worker["disks"][0]["path"] = "direct"
        changes = host.client.post("/v1/apply", document)["changes"]
        assert [(step["action"], step["kind"], step["name"]) for step in changes] == [("set", "path", "worker.vda")]
        assert shown(host, "worker")["vda"] == ("direct", "direct") and host.row("worker")["pid"] == guest.pid
        assert host.client.post("/v1/plan", host.client.get("/v1/export"))["changes"] == []


def test_unknown_endpoints_and_partitions(host: Host) -> None:
    host.guest("worker", disks=[DISK])
    for name, endpoint in (("worker", "vdb"), ("nobody", "vda"), ("console", "vda")):
        with pytest.raises(HostError) as caught:
            change(host, name, "direct", endpoint)
        assert caught.value.code == "not_found"


def test_a_delay_shows_in_its_stage_alone(host: Host) -> None:
    guest = host.guest("slow", disks=[DISK])

    def stages() -> dict[str, float]:
        page = host.metrics()
        return page.by("stage", "io_stage_duration_seconds_sum", partition="slow")

    guest.call("disk:write", disk="vda", length=4096, seed=1)
    host.client.post("/v1/chaos", {"role": "disk0", "stage": "device", "seconds": 0.02})
    try:
        before = stages()
        guest.call("disk:read", disk="vda", length=4096, seed=1)
        rise = {stage: value - before.get(stage, 0) for stage, value in stages().items()}
    finally:
        host.client.post("/v1/chaos", {"role": "disk0", "stage": "device", "seconds": 0})
    assert rise["device"] >= 0.02
    assert all(value < 0.01 for stage, value in rise.items() if stage not in ("device", "total")), rise
    for fault in ({"role": "disk9", "stage": "device"}, {"role": "disk0", "stage": "nothing"}):
        with pytest.raises(HostError) as caught:
            host.client.post("/v1/chaos", {**fault, "seconds": 0.001})
        assert caught.value.code in ("not_found", "invalid")


def test_stage_stamps_are_turned_off_and_on(host: Host) -> None:
    guest = host.guest("timed", disks=[DISK])

    def stamped() -> float:
        return host.metrics().value("io_stage_duration_seconds_count", partition="timed", stage="device")

    assert host.client.request("PUT", "/v1/host/attribution", {"on": False}) == {"on": False}
    try:
        guest.call("disk:write", disk="vda", length=4096, seed=1)
        quiet = host.metrics().value("io_stage_duration_seconds_sum", partition="timed", stage="device")
    finally:
        host.client.request("PUT", "/v1/host/attribution", {"on": True})
    assert quiet == 0
    before = stamped()
    guest.call("disk:read", disk="vda", length=4096, seed=1)
    host.until(lambda: stamped() > before)


def test_media_of_disks() -> None:
    media = ("direct", "null", "ram")
    devices = [{"name": f"disk-{medium}", "kind": "disk", "medium": medium} for medium in media]
    with running({**MANIFEST, "devices": [*MANIFEST["devices"], *devices]}) as host:
        disks = [{"name": medium, "device": f"disk-{medium}", "size": "64KiB"} for medium in media]
        guest = host.guest("user", disks=disks)
        for medium in ("direct", "ram"):
            guest.call("disk:write", disk=medium, length=8192, seed=4, offset=4096)
            guest.call("disk:read", disk=medium, length=8192, seed=4, offset=4096)
        assert guest.call("disk:attempt", disk="null", operation="write", offset=0, length=4096) == []
        assert guest.call("disk:attempt", disk="null", operation="read", offset=0, length=4096) == []
        files = sorted(path.name for path in host.paths.disks.iterdir())
        assert files == ["user-direct.img"], "neither of the others needs a file"
        flags = [
            int(line.split()[1], 8)
            for fd in os.listdir(f"/proc/{host.row('disk-direct')['pid']}/fdinfo")
            for line in open(f"/proc/{host.row('disk-direct')['pid']}/fdinfo/{fd}")
            if line.startswith("flags:")
        ]
        assert any(flag & os.O_DIRECT for flag in flags)
        host.remove("user")

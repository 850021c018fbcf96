"""A monitor that is killed is followed by another one, which adopts what runs: guests see a pause and nothing else.

The load checks itself: a sequenced stream of frames between two guests, both ways, and a disk each, every byte
compared. Nothing may be lost, repeated or changed, on any path, whenever the monitor dies.
"""

from __future__ import annotations

import os
import random
import select
import signal
import statistics
import time
from collections.abc import Iterator
from typing import Any

import pytest

from hostd.errors import HostError
from hostd.monitor_life import SHORT
from hostd.syscalls import numbers
from tests.framework import monitors
from tests.framework.host import MANIFEST, Host, running
from tests.framework.streams import NAMES, Pair
from tools.client import partition_path

KILLS, KILLS_LONG = 9, 200
PATHS = (("redirect", "copy"), ("copy", "redirect"), ("direct", "redirect"))  # of NIC and disk, in turn
OUTAGE = 0.4  # seconds without anybody who could start the next one
PAUSE_MAX = 2.0  # seconds: far more than a restart takes; what never came back would show here
DISK = {"name": "vda", "size": "1MiB"}
OWN = [{"name": f"{kind}1", "kind": kind, "class": "host-managed"} for kind in ("nic", "disk")]


@pytest.fixture(scope="module")
def module_host() -> Iterator[Host]:
    with running({**MANIFEST, "devices": [*MANIFEST["devices"], *OWN]}) as host:
        yield host


def pids(host: Host) -> dict[str, int]:
    return {name: pid for name, pid in host.pids().items() if name != "monitor"}


def totals(host: Host) -> dict[Any, float]:
    """Every counter of the metrics page."""
    samples = host.metrics().samples
    return {(name, key): value for name in samples if name.endswith("_total") for key, value in samples[name].items()}


def assert_none_went_back(before: dict[Any, float], after: dict[Any, float]) -> None:
    back = {str(key): (value, after.get(key)) for key, value in before.items() if after.get(key, 0) < value}
    assert back == {}


def test_killed_again_and_again_under_load(host: Host, seed: int, long: bool) -> None:
    """Kills at seeded moments, on every path; the console's own stream goes on, too."""
    moments = random.Random(seed)
    host.stream(True)
    pair = Pair(host)
    before, counters = pids(host), totals(host)
    first = monitors.life(host)["restarts"]
    pauses = []
    with pair.streaming():
        for number in range(KILLS_LONG if long else KILLS):
            if number % 3 == 0:
                nic, disk = PATHS[number // 3 % len(PATHS)]
                for name in NAMES:
                    host.set_path(name, "eth0", nic, timeout=PAUSE_MAX)
                    host.set_path(name, "vda", disk, timeout=PAUSE_MAX)
            time.sleep(SHORT + moments.uniform(0.0, 0.1))
            pauses.append(monitors.kill_and_wait(host))
            if number % 5 == 0:
                after = totals(host)
                assert_none_went_back(counters, after)
                counters = after
    assert monitors.life(host)["restarts"] - first == len(pauses)
    assert host.metrics().value("restarts_total", partition="monitor") == monitors.life(host)["restarts"]
    assert pids(host) == before, "no process but the monitor died"
    assert all(queue["foreign"] == 0 for guest in pair.guests.values() for queue in guest.counts().values())
    refused = host.metrics().by("reason", "io_refused_total")
    assert refused == {}
    stream = host.stream(False)
    assert stream["errors"] == 0 and stream["rounds"] > 0, stream["last_error"]
    assert host.failed_checks() == []
    news = [event for event in host.events() if event["kind"] == "monitor_restarted"]
    assert len(news) >= len(pauses) and all(0 < event["seconds"] < PAUSE_MAX for event in news)
    print(f"kill to first call of the next: median {statistics.median(pauses):.3f} s, most {max(pauses):.3f} s")
    assert statistics.median(pauses) < PAUSE_MAX


@pytest.mark.parametrize("mechanism", ["stop", "class"])
def test_no_world_stays_frozen(mechanism: str, seed: int) -> None:
    """Two guests with a stream, one that computes, and one that is over its cap, hence stopped nearly always: all of
    them run under the next monitor, and are scheduled again. Their memory traps, and they see hardware."""
    scheduling = {"mechanism": mechanism, "slice": 0.005}
    moments = random.Random(seed)
    with running({**MANIFEST, "host": {**MANIFEST["host"], "scheduling": scheduling}}) as host:
        capped = host.guest("capped", cap=0.05)
        capped.begin("compute:spin")
        pair = Pair(host, spec={"trap_memory": True})
        seen = {name: guest.call("hardware:enumerate_all")["found"] for name, guest in pair.guests.items()}
        before = pids(host)
        with pair.streaming():
            for _ in range(2):
                time.sleep(moments.uniform(SHORT, 0.5))
                used = world(host, "capped")["used"]
                monitors.kill_and_wait(host)
                host.until(lambda used=used: world(host, "capped")["used"] > used)  # type: ignore[misc]
                assert all(world(host, name)["weight"] > 0 for name in ("capped", "console")), "not scheduled again"
                host.until(lambda: world(host, "console")["running"])
            host.hold("console", True)
            monitors.kill_and_wait(host)
            assert not world(host, "console")["running"], "what was held by hand is held again"
            host.hold("console", False)
            host.until(lambda: world(host, "console")["running"])
        assert pids(host) == before
        faults = host.metrics()
        again = {name: guest.call("hardware:enumerate_all")["found"] for name, guest in pair.guests.items()}
        assert again == seen
        assert host.metrics().changes(faults, "configuration_faults_total") == {}, "what was installed traps no more"
        assert host.failed_checks() == []


def world(host: Host, name: str) -> dict[str, Any]:
    number = host.row(name)["id"]
    return next(row for row in host.status()["host"]["worlds"] if row["partition"] == number)


def test_while_there_is_no_monitor_nothing_new_is_translated(host: Host) -> None:
    """hostd is stopped, so nobody starts the next one. The direct path needs none; whoever needs one waits: a request,
    a refused call, a first look at hardware, a first touch of trapped memory. All come to their ends afterwards."""
    waiting = {
        "store": host.guest("store", disks=[DISK]),
        "caller": host.guest("caller"),
        "looker": host.guest("looker", nics=["eth0"]),
        "toucher": host.guest("toucher", trap_memory=True),
    }
    waiting["store"].call("disk:write", disk="vda", length=4096, seed=1)
    pair, results = Pair(host), {}
    with pair.streaming(results):
        pair.change("direct")
        before = pids(host)
        monitor = host.row("monitor")["pid"]
        host.signal(signal.SIGSTOP)
        try:
            os.kill(monitor, signal.SIGKILL)
            calls = [
                waiting["store"].begin("disk:write", disk="vda", length=4096, seed=2),
                waiting["caller"].begin("probes:call", number=numbers()["bpf"], arguments=[0, 0, 0]),
                waiting["looker"].begin("hardware:enumerate_all"),
                waiting["toucher"].begin("containment:touch", first=100, pages=1),
            ]
            wires = [guest.wire for guest in waiting.values()]
            assert select.select(wires, [], [], OUTAGE)[0] == [], "somebody went on without a monitor"
        finally:
            host.signal(signal.SIGCONT)
        _, refused, found, _ = [call.result() for call in calls]
    assert refused == "EPERM" and [one["name"] for one in found["found"]] == ["eth0"]
    assert max(result["longest"] for result in results.values()) < OUTAGE, "the direct path waited, too"
    waiting["store"].call("disk:read", disk="vda", length=4096, seed=2)
    assert pids(host) == before


def test_operations_meet_no_gap(host: Host) -> None:
    """What is asked of the host while the monitor is away is done by the next one: guests start, endpoints come and go,
    paths change."""
    store = host.guest("store", disks=[DISK], nics=["eth0"])
    for number in range(4):
        monitors.kill(host)
        host.guest(f"guest{number}", disks=[DISK]).call("disk:write", disk="vda", length=4096, seed=number)
        monitors.kill(host)
        host.attach("store", disk={"name": "vdb", "size": "1MiB"})
        store.call("hardware:take_changes")
        store.call("disk:write", disk="vdb", length=4096, seed=number)
        monitors.kill(host)
        host.detach("store", "vdb")
        store.call("hardware:take_changes")  # the driver lets go of it
        monitors.kill(host)
        host.remove(f"guest{number}")
        time.sleep(SHORT)  # no life may be the sixth short one in a row: that is given up
    assert host.failed_checks() == []


def test_masks_and_the_held_console_stay(host: Host) -> None:
    """What the dead monitor held is held by the next one, and delivered once (W3)."""
    guest = host.guest("guest", disks=[DISK])
    guest.call("disk:write", disk="vda", length=4096, seed=1)
    host.mask("guest", "vda", 0, True)
    host.mask("guest", "@hardware", 0, True)
    host.attach("guest", nic={"name": "eth1"})
    host.hold("console", True)
    before = host.vectors("guest")
    monitors.kill_and_wait(host, busy=False)
    assert guest.call("disk:poll", disk="vda", requests=1000) == 1000
    held, changed = host.vectors("guest")["vda", 0], host.vectors("guest")["@hardware", 0]
    assert held["mask"] and held["pending"] and held["delivered"] == before["vda", 0]["delivered"]
    assert held["raised"] > before["vda", 0]["raised"] and held["unrouted"] == 0
    assert changed == before["@hardware", 0] and changed["mask"] and changed["pending"]
    console = host.row("console")["id"]
    assert not next(row for row in host.status()["host"]["worlds"] if row["partition"] == console)["running"]
    host.hold("console", False)
    host.mask("guest", "vda", 0, False)
    host.mask("guest", "@hardware", 0, False)
    assert host.vectors("guest")["vda", 0]["delivered"] == held["delivered"] + 1
    assert host.vectors("guest")["@hardware", 0]["delivered"] == 1
    guest.call("hardware:take_changes")
    guest.call("disk:read", disk="vda", length=4096, seed=1)


def test_one_that_dies_again_and_again_is_given_up() -> None:
    """With a stated error; the console goes on, and another kernel can be loaded (W10)."""
    with running({**MANIFEST, "devices": [*MANIFEST["devices"], *OWN]}) as host:
        guest = host.guest("guest", disks=[DISK])
        host.stream(True)
        monitors.exhaust(host)
        host.until(lambda: host.row("monitor")["state"] == "failed")
        with pytest.raises(HostError, match="monitor does not answer"):
            host.guest("late")
        rounds = host.console()["stream"]["rounds"]
        host.until(lambda: host.console()["stream"]["rounds"] > rounds)
        assert guest.call("puppet:counts") is not None
        host.unload()
        host.load()
        host.guest("next", disks=[DISK]).call("disk:write", disk="vda", length=4096, seed=1)
        assert monitors.life(host)["restarts"] == 0
        assert host.failed_checks() == []


def test_paths_and_what_they_carry_stay(host: Host) -> None:
    """The path in force, its queue pair and the offloads that an endpoint may use on it are what they were (A1, A5)."""
    guest = host.guest("guest", nics=[{"name": "eth0", "path": "direct"}], disks=[{**DISK, "path": "copy"}])
    guest.call("stream:open", nic="eth0")
    guest.call("disk:write", disk="vda", length=4096, seed=1)
    host.until(lambda: (host.path("guest", "eth0"), host.path("guest", "vda")) == ("direct", "copy"))
    target = partition_path("guest", "/capabilities")
    before = host.client.get(target)
    assert before
    monitors.kill_and_wait(host, busy=False)
    assert host.client.get(target) == before
    enforced = {one["name"]: one["path"] for one in host.view("guest")["enforced"]["endpoints"]}
    assert enforced == {"eth0": "direct", "vda": "copy"}
    guest.call("disk:read", disk="vda", length=4096, seed=1)

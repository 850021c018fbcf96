"""A server that has lost its office goes on asking: device and monitor refuse every request of it, and count each
(rules.md 19 and test 18). The double is `tests/framework/zombie.py`; the rest is a whole host under load.

Both are held to it apart: what the monitor lets through the device would refuse, and it would be counted there.
"""

from __future__ import annotations

import itertools
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from pyx import abi
from tests.framework.host import Host
from tests.framework.monitor_rig import CALL
from tests.framework.puppet import Puppet
from tests.framework.zombie import DMA, REDIRECT, haunt

COUNT, COUNT_LONG = 300, 30_000  # requests of each epoch
BLOCK = 4096
OTHER = 1 << 20  # where in the guest's memory something else lies than on its disk
OFFICE = "io-a"


class Scene:
    """A guest of OFFICE that rests, and one of the other office that works and checks all the while."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.guest = host.guest("haunted", disks=[{"name": "vda", "size": "1MiB"}])
        self.guest.call("disk:write", disk="vda", length=BLOCK, seed=1)
        self.worker = host.guest("worker", disks=[{"name": "vda", "size": "1MiB"}], nics=["eth0", "eth1"])
        self.true = host.view("haunted")["true"]
        self.slot, self.endpoint = self.true["partition"]["slot"], self.true["endpoints"][0]
        assert self.endpoint["server"] == OFFICE
        self.epoch = self.hand_over()
        self.slots = itertools.count(1)

    def hand_over(self) -> int:
        """To the other seat; the epoch that is in force from then on."""
        assert self.host.switch_over(OFFICE)["changed"]
        return int(next(event for event in reversed(self.host.events()) if event["kind"] == "takeover")["epoch"])

    def epochs(self) -> list[int]:
        """All that are not in force: the last one, none, a later one, and one of the other office."""
        return [self.epoch - 1, 0, self.epoch + 1, 1 << 40]

    def refused(self) -> float:
        """By the monitor."""
        labels = {"partition": OFFICE, "call": "submit", "result": "epoch_stale"}  # no series before the first one
        return sum(self.host.metrics().series("system_calls_total", **labels).values())

    def fenced(self) -> float:
        """By the device."""
        return self.host.metrics().value("device_fenced_requests_total", partition="haunted", endpoint="vda")

    def submitted(self, epoch: int) -> bytes:
        """A write of other bytes over the guest's first block, as its server would pass it on to the monitor."""
        identity = abi.make_id(next(self.slots) % 256, 1 << 20)
        return CALL.pack(identity, OTHER, 0, self.endpoint["generation"], 1, epoch, BLOCK, self.endpoint["index"],
                         abi.OPERATIONS["write"], 0, abi.CALLS["submit"], self.slot, 0, 0)  # fmt: skip

    def posted(self, epoch: int) -> bytes:
        """The same as the monitor would pass it on to the device."""
        identity = abi.make_id(next(self.slots) % 256, 1 << 20)
        return DMA.pack(identity, self.true["memory"][0]["hpa"] + OTHER, 0, 1, epoch, BLOCK, 0,
                        self.endpoint["server_slot"], 0, self.endpoint["port"], 1, abi.OPERATIONS["write"], REDIRECT,
                        self.slot, self.endpoint["generation"])  # fmt: skip


@pytest.fixture
def scene(host: Host) -> Scene:
    return Scene(host)


def settled(scene: Scene, before: dict[str, Any]) -> None:
    """The disk is as it was, nobody else noticed, and the office works on, whoever takes it."""
    host, guest = scene.host, scene.guest
    for name in (OFFICE, OFFICE):
        host.switch_over(name)  # the next seat finds the ring where the double left it
        guest.call("disk:read", disk="vda", length=BLOCK, seed=1)
    guest.call("disk:write", disk="vda", length=BLOCK, seed=2)
    guest.call("disk:read", disk="vda", length=BLOCK, seed=2)
    assert {name: pid for name, pid in host.pids().items() if name in before} == before
    assert host.metrics().by("reason", "io_refused_total") == {}
    assert all(queue["foreign"] == 0 for one in (guest, scene.worker) for queue in one.counts().values())
    assert host.failed_checks() == []


def load(scene: Scene) -> Puppet:
    return scene.worker.begin("work:verified", seed=7, pause=0.002)  # type: ignore[return-value]


def test_the_monitor_refuses_and_counts_each(scene: Scene, tmp_path: Path, long: bool) -> None:
    host, count = scene.host, COUNT_LONG if long else COUNT
    pids, before = host.pids(), scene.refused()
    translated = host.metrics().value("translations_total", partition="haunted")
    work = load(scene)
    slots = [scene.submitted(epoch) for _ in range(count) for epoch in scene.epochs()]
    haunt(host, slots, _label(host, OFFICE, "call"), _label(host, OFFICE, "events"), 2 * abi.PAGE, 2, tmp_path)
    host.until(lambda: scene.refused() - before == len(slots), explain=scene.refused)
    assert scene.fenced() == 0, "the monitor let it through"
    assert host.metrics().value("translations_total", partition="haunted") == translated
    assert work.finish()["rounds"] > 0
    settled(scene, pids)


def test_the_device_refuses_and_counts_each(scene: Scene, tmp_path: Path, long: bool) -> None:
    """What stands on its ring already when the epoch is raised, and what comes later."""
    host, count = scene.host, COUNT_LONG if long else COUNT
    before = scene.fenced()
    work = load(scene)
    slots = [scene.posted(epoch) for _ in range(count) for epoch in scene.epochs()]
    haunt(host, slots, f"hostd:requests:{OFFICE}:disk0", "hostd:bell:disk0", 0, 1, tmp_path)
    host.until(lambda: scene.fenced() - before == len(slots), explain=scene.fenced)
    assert host.metrics().value("disk_writes_completed_total", partition="haunted") == 1
    # The monitor is the ring's producer: the next one goes on where the double left it.
    restarts = host.row("monitor")["restarts"]
    os.kill(host.row("monitor")["pid"], signal.SIGKILL)
    host.until(lambda: host.row("monitor")["restarts"] > restarts)
    assert work.finish()["rounds"] > 0
    settled(scene, {name: pid for name, pid in host.pids().items() if name != "monitor"})


def _label(host: Host, name: str, kind: str) -> str:
    return f"ultravisor:{name}:{host.row(name)['id']}:{kind}"

"""A guest dies at any moment: nobody else notices, its memory leaves every map, its slot can be used again."""

import random
import signal
import time

import pytest

from hostd.mapcheck import mapped
from pyx.abi import generation_of, slot_of
from tests.framework.host import INFRASTRUCTURE, Host
from tests.framework.puppet import Puppet

DEATHS, DEATHS_LONG = 12, 200
DISK = {"name": "vda", "size": "1MiB"}
KILLED = {"signalled": signal.SIGKILL}


def maps(host: Host) -> dict[str, dict]:
    """What each process of the host maps."""
    return {name: mapped(pid) for name, pid in host.pids().items() if name in ("hostd", "keeper", *INFRASTRUCTURE)}


def gone(host: Host, name: str) -> None:
    """Its end is seen, checked and counted; the rest of the host is as it should be."""
    row = host.wait_for_end(name)
    assert (row["state"], row["exit_status"], row["pid"]) == ("failed", KILLED, None)
    assert host.failed_checks() == []


@pytest.mark.parametrize("operation", ["read", "write"])
def test_in_the_middle_of_disk_transfers(host: Host, bystander: Puppet, operation: str) -> None:
    before = maps(host)
    victim = host.guest("victim", disks=[DISK], nics=["eth0"])
    victim.begin("load:disk", disk="vda", depth=128, seconds=60, operation=operation)
    host.await_progress("victim", 500)
    assert maps(host) != before
    host.kill("victim")
    gone(host, "victim")
    host.remove("victim")
    assert maps(host) == before


def test_with_receive_buffers_posted(host: Host, bystander: Puppet) -> None:
    """Frames to it find nobody any more; before, they went into its memory."""
    victim = host.guest("victim", nics=["eth0"])
    to = victim.call("nic:open", nic="eth0", buffers=256)
    sender = host.guest("sender", nics=["eth0"])
    assert sender.call("nic:send", nic="eth0", to=to, frames=[(64, 1)]) == {}
    host.kill("victim")
    gone(host, "victim")
    assert sender.call("nic:send", nic="eth0", to=to, frames=[(64, 1)] * 5) == {"no_destination": 5}


def test_while_it_sends(host: Host, bystander: Puppet) -> None:
    """In the middle of a stream of frames; its receiver goes on with others."""
    receiver = host.guest("receiver", nics=["eth0"])
    to = receiver.call("nic:open", nic="eth0", buffers=64)
    victim = host.guest("victim", nics=["eth0"])
    victim.begin("load:send", nic="eth0", to=to, seconds=60)
    assert len(receiver.call("nic:receive", nic="eth0", count=2000)) == 2000
    host.kill("victim")
    gone(host, "victim")
    while receiver.call("nic:receive", nic="eth0", count=64, timeout=0.1):
        pass  # what was on its way
    sender = host.guest("sender", nics=["eth0"])
    assert sender.call("nic:send", nic="eth0", to=to, frames=[(64, 1)] * 5) == {}
    assert len(receiver.call("nic:receive", nic="eth0", count=5)) == 5


def test_while_its_frames_wait_for_a_buffer(host: Host, bystander: Puppet) -> None:
    """Held frames of a dead sender are dropped with it."""
    receiver = host.guest("receiver", nics=["eth0"])
    to = receiver.call("nic:open", nic="eth0", buffers=1)
    victim = host.guest("victim", nics=["eth0"])
    victim.begin("load:send", nic="eth0", to=to, seconds=60)
    host.until(lambda: host.metrics().value("network_held_packets_total", partition="victim") >= 1)
    host.kill("victim")
    gone(host, "victim")
    assert len(receiver.call("nic:receive", nic="eth0", count=1)) == 1


def test_at_random_moments_of_its_life(host: Host, bystander: Puppet, seed: int, long: bool) -> None:
    generator = random.Random(seed)
    before = maps(host)
    for _ in range(DEATHS_LONG if long else DEATHS):
        victim = host.guest("victim", disks=[DISK], nics=["eth0", "eth1"])
        victim.begin("work:verified", seed=1)
        time.sleep(generator.random() * 0.02)
        host.kill("victim")
        gone(host, "victim")
        host.remove("victim")
    assert maps(host) == before


def test_its_metrics_stay_until_it_is_removed(host: Host) -> None:
    victim = host.guest("victim", disks=[DISK])
    victim.call("disk:write", disk="vda", length=8192, seed=1)
    host.kill("victim")
    metrics = host.metrics()
    assert metrics.value("io_bytes_total", partition="victim", op="write") == 8192
    states = metrics.by("state", "partition_state", partition="victim")
    assert states == {"failed": 1}
    host.remove("victim")
    metrics = host.metrics()
    assert [name for name, series in metrics.samples.items() for key in series if ("partition", "victim") in key] == []


def test_its_name_and_slot_can_be_used_again(host: Host) -> None:
    first = host.guest("victim", disks=[DISK]).spawned["id"]
    host.kill("victim")
    host.remove("victim")
    again = host.guest("victim", disks=[DISK])
    second = again.spawned["id"]
    assert slot_of(second) == slot_of(first) and generation_of(second) > generation_of(first)
    again.call("disk:write", disk="vda", length=8192, seed=2)
    again.call("disk:read", disk="vda", length=8192, seed=2)
    assert host.metrics().value("io_requests_total", partition="victim") == 3

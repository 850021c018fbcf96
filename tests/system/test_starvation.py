"""A guest that takes no answers or rings without a request harms itself alone (rules 15 to 17; rules.md tests 11, 13).

Processor time is the kernel's count for the infrastructure processes.
"""

import time

import psutil
import pytest

from pyx.abi import CALLS
from tests.framework.host import INFRASTRUCTURE, Host
from tests.framework.puppet import Puppet
from tests.framework.slots import Target, call_slot, slot

CAPACITY = 256  # of a disk's queue and of a call ring
SECONDS = 0.6
SHARE_MAX = 0.25  # of one processor, all infrastructure together; a loop without a bound takes a whole one
DISK = {"name": "vda", "size": "1MiB"}


def share(host: Host, seconds: float = SECONDS) -> float:
    """Processor time that the infrastructure takes, as a fraction of one processor."""
    pids = host.pids()

    def spent() -> float:
        times = [psutil.Process(pids[name]).cpu_times() for name in INFRASTRUCTURE]
        return sum(each.user + each.system for each in times)

    before, begin = spent(), time.monotonic()
    time.sleep(seconds)
    return (spent() - before) / (time.monotonic() - begin)


def sound(host: Host, count: int) -> list[str]:
    target = Target(host.view("deaf"), "vda")
    return [slot(target.sound(id=number << 16)) for number in range(1, count + 1)]


def test_answers_that_nobody_takes(host: Host) -> None:
    """The queue stands when its completion ring is full, costs nothing, and goes on once answers are taken."""
    guest = host.guest("deaf", disks=[DISK])
    slots = sound(host, 2 * CAPACITY)
    assert guest.call("raw:silence", endpoint="vda", slots=slots, seconds=0.2) == 2 * CAPACITY
    host.until(lambda: host.completions("deaf") == CAPACITY)
    memory = psutil.Process(host.pids()["io-a"]).memory_info().rss
    assert share(host) < SHARE_MAX / 5
    assert host.completions("deaf") == CAPACITY
    assert psutil.Process(host.pids()["io-a"]).memory_info().rss - memory < 64 << 10
    answers = guest.call("raw:drain", endpoint="vda", count=2 * CAPACITY)
    assert [answer[0] for answer in answers] == [number << 16 for number in range(1, 2 * CAPACITY + 1)]
    assert {answer[1] for answer in answers} == {1}


def test_a_deaf_guest_beside_a_bystander(host: Host, bystander: Puppet) -> None:
    guest = host.guest("deaf", disks=[DISK])
    slots = sound(host, CAPACITY)
    silence = guest.begin("raw:silence", endpoint="vda", slots=slots, seconds=60)
    host.until(lambda: host.completions("deaf") == CAPACITY)
    host.await_progress("bystander", 300)
    silence.finish()


def test_calls_whose_answers_nobody_takes(host: Host) -> None:
    """The same at the monitor: a full ring of answers, and calls behind it that must not keep its worker awake."""
    guest = host.guest("deaf")
    guest.call("calls:silence", slot=call_slot(CALLS["null"]), count=2 * CAPACITY)
    labels = {"partition": "deaf", "call": "null", "result": "done"}
    host.until(lambda: host.metrics().value("system_calls_total", **labels) == CAPACITY)
    assert share(host) < SHARE_MAX / 5
    assert host.metrics().value("system_calls_total", **labels) == CAPACITY


@pytest.mark.parametrize("action", ["wake", "word", "both"])
@pytest.mark.parametrize("page", [1, 2], ids=["server", "monitor"])
def test_rings_without_a_request(host: Host, page: int, action: str) -> None:
    """A million futex wake-ups a second, or a word that changes all the time: muted after a few."""
    guest = host.guest("ringer", disks=[DISK])
    flood = guest.begin("doorbell:flood", page=page, action=action)
    time.sleep(0.05)
    assert share(host) < SHARE_MAX
    assert flood.finish() > 10_000
    # Muted or not, its own requests are served.
    guest.call("disk:write", disk="vda", length=8192, seed=1)
    guest.call("disk:read", disk="vda", length=8192, seed=1)
    assert guest.call("calls:null") == 0


@pytest.mark.parametrize("page", [1, 2], ids=["server", "monitor"])
def test_a_ringer_beside_a_bystander(host: Host, bystander: Puppet, page: int) -> None:
    guest = host.guest("ringer", disks=[DISK])
    flood = guest.begin("doorbell:flood", page=page, action="both")
    host.await_progress("bystander", 300)
    flood.finish()


def test_a_glutton_beside_a_bystander(host: Host, bystander: Puppet) -> None:
    """As much sound work as one guest can ask for; the bystander gets its turn all the while."""
    guest = host.guest("glutton", disks=[DISK], memory="4MiB")
    load = guest.begin("load:disk", disk="vda", depth=256, seconds=1.0, operation="write")
    host.await_progress("bystander", 300)
    assert load.result()["errors"] == 0

"""Interrupts that are lost on purpose: a driver that sleeps finds by itself what came, and counts it (rules.md 15, 40).

A sleep is a second long at most. So what nobody tells of costs less than `BOUND`, where nothing else would end the wait
before `WAIT`; and it comes once, like what follows it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hostd.syscalls import numbers
from tests.framework.host import Host
from tests.framework.puppet import Puppet
from tests.system.test_faults import OK, Faults, ask, faults, made
from tests.system.test_faults_nic import PATHS, Two
from tests.system.test_program_network import needs, nic, run

BOUND, WAIT = 10.0, 40.0  # seconds
BUSY = 0.05  # that a device is busy with a request: its driver sleeps by the time that it goes on
__all__ = ["faults"]


@contextmanager
def busy(host: Host, device: str) -> Iterator[None]:
    host.delay(device, "device", BUSY)
    try:
        yield
    finally:
        host.delay(device, "device", 0)


def sleeps(guest: Puppet) -> bool:
    return Path(f"/proc/{guest.pid}/syscall").read_text().startswith(f"{numbers()['futex']} ")


@pytest.mark.parametrize(
    ("path", "operation"), [("copy", "read"), ("redirect", "write"), ("direct", "read")]
)
def test_a_completion_of_a_disk(host: Host, faults: Faults, path: str, operation: str) -> None:  # noqa: F811
    guest = made(host, path)
    faults.arm({"kind": "interrupt"})
    with busy(host, "disk0"):
        found = ask(guest, operation, count=2, wait=WAIT)
    assert found["answers"] == [OK] * 2 and found["in_flight"] == found["foreign"] == 0
    assert found["missed"] == 1 and found["seconds"][0] < BOUND
    assert faults.counted() == {"interrupt": 1}


@pytest.mark.parametrize("path", PATHS)
def test_frames_of_a_nic(host: Host, faults: Faults, path: str) -> None:  # noqa: F811
    """The answer to one that was sent, then one that arrives at a receiver that sleeps."""
    two = Two(host, path)
    faults.arm({"kind": "interrupt", "endpoint": "eth0", "operation": "send"})
    with busy(host, "nic0"):
        found = two.send([1, 2], wait=WAIT)
    assert found["answers"] == [OK] * 2 and found["missed"] == 1 and found["seconds"][0] < BOUND
    assert two.arrived(2) == two.digests([1, 2])
    armed = faults.arm({"kind": "interrupt", "partition": "two", "endpoint": "eth0"})
    assert armed["log"] == []
    waiting = two.receiver.begin("faulty:arrival", nic="eth0", wait=WAIT)
    host.until(lambda: sleeps(two.receiver))
    assert two.send([3])["answers"] == [OK]
    arrived = waiting.result()
    assert arrived["digests"] == two.digests([3]) and arrived["missed"] == 1 and arrived["seconds"] < BOUND
    assert two.send([4])["answers"] == [OK] and two.arrived(1) == two.digests([4])
    assert [line["operation"] for line in faults.show()["log"]] == ["receive"]
    assert faults.counted() == {"interrupt": 2}


@needs("ping")
def test_all_of_an_unmodified_program(host: Host, faults: Faults) -> None:  # noqa: F811
    host.spawn("there", ["sleep", "60"], nics=nic("10.0.0.2/24", path="direct"), memory="16MiB")
    faults.arm({"kind": "interrupt", "partition": "there", "endpoint": "eth0", "count": 0})
    output = run(host, "here", ["ping", "-c", "2", "-W", str(int(BOUND)), "10.0.0.2"])
    assert "2 received" in output and "DUP" not in output
    assert faults.counted()["interrupt"] >= 2

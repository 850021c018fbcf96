"""The fault plane at a NIC: what sender and receiver see of each kind of fault (rules.md 40).

Rules strike frames that are sent. What is done to a completion concerns the sender alone: the frame is out by then, so
a receiver gets it once, whatever becomes of the answer.
"""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from tests.framework.host import Host
from tests.system.guests.frames import frame
from tests.system.test_faults import BESIDE, NOTHING, OK, SECONDS, Faults, faults

PATHS = ("copy", "redirect", "direct")
SIZE = 1000
__all__ = ["faults"]


class Two:
    """A sender, whose frames are struck, and a receiver."""

    def __init__(self, host: Host, path: str) -> None:
        nic = {"name": "eth0", "path": path}
        self.receiver = host.guest("two", nics=[nic])
        self.sender = host.guest("one", nics=[nic])
        self.to = self.receiver.call("nic:open", nic="eth0")
        self.mac = self.sender.call("nic:open", nic="eth0", buffers=1)
        assert self.send([1])["answers"] == [OK] and self.arrived(1) == self.digests([1])
        host.until(lambda: host.path("one", "eth0") == host.path("two", "eth0") == path)

    def send(self, seeds: list[int], size: int = SIZE, **more: Any) -> dict[str, Any]:
        return self.sender.call("faulty:frames", nic="eth0", to=self.to, size=size, seeds=seeds, **more)

    def rest(self, wait: float = 5.0) -> list[list[str]]:
        return self.sender.call("faulty:rest", endpoint="eth0", wait=wait)

    def arrived(self, count: int) -> list[str]:
        """Digests of the next frames, and no other one behind them."""
        found = self.receiver.call("nic:receive", nic="eth0", count=count)
        assert self.receiver.call("nic:receive", nic="eth0", count=1, timeout=0.05) == []
        return found

    def frame(self, seed: int) -> bytes:
        return frame(bytes.fromhex(self.to), bytes.fromhex(self.mac), SIZE, seed)

    def digests(self, seeds: list[int]) -> list[str]:
        return [hashlib.sha256(self.frame(seed)).hexdigest() for seed in seeds]


def arm(plane: Faults, *lines: dict[str, Any]) -> None:
    plane.arm(*({"endpoint": "eth0", "operation": "send", **line} for line in lines))


@pytest.mark.parametrize("path", PATHS)
def test_what_becomes_of_frames_and_of_their_answers(host: Host, faults: Faults, path: str) -> None:  # noqa: F811
    """An error, half of a frame, two answers, a delay: the third of four frames each time."""
    two, device = Two(host, path), host.pids()["nic0"]
    foreign = sum(host.metrics().by("process", "thread_foreign_completions_total").values())
    arm(faults, {"kind": "error", "after": 2})
    assert two.send([1, 2, 3, 4])["answers"] == [OK, OK, ["failed", "medium_error"], OK]
    assert two.arrived(3) == two.digests([1, 2, 4])
    arm(faults, {"kind": "torn", "after": 2})
    assert two.send([1, 2, 3, 4])["answers"] == [OK, OK, ["failed", "medium_short"], OK]
    half = hashlib.sha256(two.frame(3)[: SIZE // 2]).hexdigest()
    assert two.arrived(4) == [*two.digests([1, 2]), half, *two.digests([4])]
    arm(faults, {"kind": "duplicate", "after": 2})
    found = two.send([1, 2, 3, 4])
    assert found["answers"] == [OK] * 4 and found["in_flight"] == 0
    assert two.arrived(4) == two.digests([1, 2, 3, 4])
    known = sum(host.metrics().by("process", "thread_foreign_completions_total").values()) - foreign
    assert (found["foreign"], known) == ((1, 0) if path == "direct" else (0, 1))
    arm(faults, {"kind": "delay", "after": 2, "seconds": SECONDS})
    found = two.send([1, 2, 3, 4])
    assert found["answers"] == [OK] * 4 and found["seconds"][2] >= SECONDS
    assert two.arrived(4) == two.digests([1, 2, 3, 4])
    arm(faults, {"kind": "torn", "count": 2})
    assert two.send([5, 6], size=20)["answers"] == [["failed", "medium_short"]] * 2  # headers are never torn
    assert len(two.arrived(2)) == 2
    assert faults.counted() == {"error": 1, "torn": 3, "duplicate": 1, "delay": 1}
    assert host.pids()["nic0"] == device


@pytest.mark.parametrize("path", PATHS)
def test_frames_whose_answer_is_late_or_lost_have_arrived(host: Host, faults: Faults, path: str) -> None:  # noqa: F811
    """Others overtake them; a lost one is known to nobody but the driver, and the endpoint can be taken away."""
    two = Two(host, path)
    arm(faults, {"kind": "late", "after": 1, "seconds": SECONDS})
    found = two.send([1, 2, 3], wait=SECONDS / 3)
    assert found["answers"] == [OK, NOTHING, OK] and found["in_flight"] == 1
    assert two.rest() == [OK]
    assert two.arrived(3) == two.digests([1, 2, 3])
    arm(faults, {"kind": "lost", "after": 1})
    found = two.send([1, 2, 3], wait=0.2)
    assert found["answers"] == [OK, NOTHING, OK] and found["in_flight"] == 1
    assert two.arrived(3) == two.digests([1, 2, 3])
    assert faults.counted() == {"late": 1, "lost": 1}
    assert host.take("one", endpoint="eth0", deadline=10.0)["state"] == "freed"  # a second for the lost one


@pytest.mark.parametrize(
    ("path", "role"), [(path, role) for path in PATHS for role in ("nic0", "monitor") if (path, role) != BESIDE]
)
def test_a_hung_role_costs_frames_their_time(host: Host, faults: Faults, path: str, role: str) -> None:  # noqa: F811
    """None is lost: they lie in their rings meanwhile."""
    two = Two(host, path)
    faults.arm({"kind": "hung", "role": role, "seconds": SECONDS})
    found = two.send([1, 2, 3])
    assert found["answers"] == [OK] * 3 and sum(found["seconds"]) >= SECONDS / 2
    assert two.arrived(3) == two.digests([1, 2, 3])
    assert faults.counted() == {"hung": 1}


def test_a_corrupt_ring_is_told_and_the_nic_comes_back(host: Host, faults: Faults) -> None:  # noqa: F811
    two = Two(host, "direct")
    arm(faults, {"kind": "corrupt"})
    assert "out of bounds" in two.sender.call("faulty:broken_nic", nic="eth0", to=two.to)
    host.detach("one", "eth0")
    host.attach("one", nic={"name": "eth1", "path": "direct"})
    two.sender.call("hardware:wait_for_change", timeout=5.0)
    assert two.sender.call("nic:send", nic="eth1", to=two.to, frames=[(SIZE, 7)]) == {}
    two.receiver.call("nic:receive", nic="eth0", count=2)

"""VLANs of endpoints: large frames with offloads between a port without tags and a trunk, and who sees what (U9)."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from pyx import offload
from tests.framework.host import Host
from tests.framework.packets import drawn, objections
from tests.system.test_offloads import headed

VLAN = 42  # of tests/framework/packets.py, priority 3
TAG, PRIORITY_TAG = b"\x81\x00\x00\x2a", b"\x81\x00\x60\x2a"


@pytest.mark.parametrize("path", ["redirect", "direct"])
def test_frames_are_finished_for_the_form_that_they_leave_in(host: Host, tmp_path: Path, path: str) -> None:
    """Checksums and pieces are right with the tag put in, and with it taken away; other VLANs get nothing."""
    ends = {
        "access": {"vlan": VLAN}, "trunk": {"trunk": [VLAN, 7]}, "stranger": {"vlan": 7}, "spy": {"promiscuous": True},
    }  # fmt: skip
    guests = {
        name: host.guest(name, nics=[{"name": "eth0", "path": path, **facts}], memory="8MiB")
        for name, facts in ends.items()
    }
    addresses = {name: one.call("offloads:open", nic="eth0", buffers=96, size=1600) for name, one in guests.items()}
    generator = random.Random(11)
    everything: list[bytes] = []
    for number in range(12):
        sender, receiver = ("access", "trunk") if number % 2 else ("trunk", "access")
        source, to, tags = addresses[sender], addresses[receiver], number % 2 == 0
        packet = drawn(generator, most=1300 if number % 3 else 30000, source=source, to=to, tags=int(tags))
        whole = headed(packet, 1300)
        frames = offload.Judged(bytearray.fromhex(whole)).frames()
        if tags:
            wanted, seen = [one[:12] + one[16:] for one in frames], frames
        else:
            wanted = seen = [one[:12] + TAG + one[12:] for one in frames]
        assert guests[sender].call("offloads:send", nic="eth0", frames=[whole]) == {}
        for name, expected in ((receiver, wanted), ("spy", seen)):
            got = guests[name].call("offloads:receive", nic="eth0", count=len(expected))
            assert [bytes.fromhex(one) for one in got] == expected, (number, name)
        everything += wanted
    assert objections(tmp_path, everything) in ([], None)
    assert guests["stranger"].call("offloads:receive", nic="eth0", count=1, timeout=0.1) == []
    to_stranger = headed(drawn(generator, most=900, source=addresses["access"], to=addresses["stranger"], tags=0))
    assert guests["access"].call("offloads:send", nic="eth0", frames=[to_stranger]) == {"no_destination": 1}
    tagged = headed(drawn(generator, most=900, source=addresses["access"], to=addresses["trunk"], tags=1))
    dropped = guests["access"].call("offloads:send", nic="eth0", frames=[tagged])
    assert dropped == {"no_destination": 1, "vlan_denied": 1}

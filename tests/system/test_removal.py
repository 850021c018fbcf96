"""Removal always completes: an endpoint of a guest that lives, stands still or dies; its ids can be used again at
once, and what a new tenant gets holds nothing of the old one's (H1, U5; rules 6, 24 and 26)."""

from __future__ import annotations

import os
import signal

import pytest

from hostd.errors import HostError
from pyx.abi import slot_of
from tests.framework.canary import PATTERN, memory_of, put
from tests.framework.host import Host

DISK = {"name": "vdb", "size": "1MiB"}
ROUNDS, ROUNDS_LONG = 5, 100
TENANTS, TENANTS_LONG = 20, 10_000
MIB = 1 << 20


@pytest.mark.parametrize("condition", ["alive", "stopped"])
def test_an_endpoint_goes_and_comes_again(host: Host, condition: str, long: bool) -> None:
    guest = host.guest("store", nics=["eth0"])
    host.attach("store", disk=DISK)
    guest.call("hardware:take_changes")
    guest.begin("load:disk", disk="vdb", depth=32, seconds=3600)
    host.await_progress("store", 100)
    places = set()
    try:
        if condition == "stopped":
            os.kill(guest.pid, signal.SIGSTOP)
        for _ in range(ROUNDS_LONG if long else ROUNDS):
            host.detach("store", "vdb")
            with pytest.raises(HostError, match="store has no endpoint vdb") as refused:
                host.detach("store", "vdb")
            assert refused.value.code == "not_found"
            places.add(host.attach("store", disk=DISK)["index"])
    finally:
        os.kill(guest.pid, signal.SIGCONT)
    assert len(places) == 1
    # It has not looked for changes, so it still maps rings of endpoints that went; nobody else does.
    assert [one for one in host.failed_checks() if one["name"] != "memory map of store"] == []


def test_a_guest_that_dies_while_its_endpoint_goes(host: Host, long: bool) -> None:
    """Either end comes first; then the guest, its name and its slot."""
    slots = set()
    for _ in range(ROUNDS_LONG if long else ROUNDS):
        guest = host.guest("store", disks=[{"name": "vda", "size": "1MiB"}], nics=["eth0"])
        slots.add(slot_of(guest.spawned["id"]))
        guest.begin("load:disk", disk="vda", depth=32, seconds=3600)
        host.await_progress("store", 100)
        os.kill(guest.pid, signal.SIGKILL)
        try:
            host.detach("store", "vda")
        except HostError as error:
            assert error.code in ("state", "conflict"), error
        host.wait_for_end("store")
        host.remove("store")
    assert len(slots) == 1
    assert host.failed_checks() == []


def test_no_byte_of_an_earlier_tenant(host: Host, long: bool) -> None:
    """All of a guest's memory is full of a pattern when it goes; the next one's is full of zeroes, to the last byte,
    and what its device tells it holds nothing of the pattern either."""
    for number in range(TENANTS_LONG if long else TENANTS):
        guest = host.guest("tenant", disks=[{"name": "vda", "size": "1MiB", "file": f"{number & 1}.img"}])
        with memory_of(host, "tenant") as fd:
            found = os.pread(fd, 2 * MIB, 0)
            assert found == bytes(2 * MIB), f"tenant {number} found {found.count(PATTERN)} patterns of an earlier one"
            guest.call("disk:write", disk="vda", length=4096, seed=number)
            guest.call("disk:read", disk="vda", length=4096, seed=number)
            assert PATTERN not in os.pread(fd, 2 * MIB, 0)
            put(fd, 0, 2 * MIB)
        host.remove("tenant")

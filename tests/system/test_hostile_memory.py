"""A guest turns against the memory that it shares with the host: no page can be taken from others, and what it does to
its own mappings hurts nobody else (rules.md test 8, rules 1 to 5)."""

import signal

import pytest

from tests.framework.host import Host
from tests.framework.puppet import Puppet

TRIES, TRIES_LONG = 300, 100_000
LIVES, LIVES_LONG = 2, 1000
DISK = {"name": "vda", "size": "1MiB"}


def hostile(host: Host) -> Puppet:
    return host.guest("hostile", disks=[DISK], nics=["eth0"])


def test_no_page_can_be_taken_away(host: Host, bystander: Puppet, long: bool) -> None:
    """By mapping, by name, through /proc: each way ends with the error that the sandbox has for it."""
    tries = TRIES_LONG if long else TRIES
    guest = hostile(host)
    outcomes = guest.call("memory:shrink", deadline=600, tries=tries)
    forgotten = outcomes.pop("forget")  # its own view of the pages, which stay; of partition memory not even that
    assert set(forgotten) == {"done", "EPERM"} and sum(forgotten.values()) == tries
    assert outcomes == {
        "madvise remove": {"EPERM": tries},
        "madvise poison": {"EPERM": tries},
        "open by map_files": {"EPERM": tries},
        "truncate by name": {"EPERM": tries},
        "open by name": {"ENOENT": tries},
    }
    guest.call("disk:write", disk="vda", length=65536, seed=5)
    guest.call("disk:read", disk="vda", length=65536, seed=5)


def test_no_descriptor_can_truncate(host: Host, bystander: Puppet, long: bool) -> None:
    """A guest holds no descriptor of a segment, and could not use one."""
    guest = hostile(host)
    assert set(guest.call("memory:descriptors")) == {"/dev/null", "pipe", "socket"}
    tries = TRIES_LONG if long else 20
    assert guest.call("memory:truncate", deadline=600, tries=tries) == {"EPERM": tries * 3 * 64}


@pytest.mark.parametrize("which", ["memfd", ""], ids=["memory", "everything"])
@pytest.mark.parametrize("action", ["unmap", "move", "protect", "replace"])
def test_own_mappings_in_the_middle_of_transfers(
    host: Host, bystander: Puppet, long: bool, action: str, which: str
) -> None:
    for _ in range(LIVES_LONG if long else LIVES):
        assert hostile(host).call("memory:under_load", action=action, which=which) == action
        host.remove("hostile")
    assert host.failed_checks() == []


def test_a_guest_dies_of_its_own_attack(host: Host, bystander: Puppet) -> None:
    """Its partition memory stays where it is, but its rings are its own to lose."""
    guest = hostile(host)
    with pytest.raises(EOFError):
        guest.call("memory:under_load", action="unmap", which="/dev/shm", touch=True)
    row = host.wait_for_end("hostile")
    assert (row["state"], row["exit_status"]) == ("failed", {"signalled": signal.SIGSEGV})
    assert host.failed_checks() == []

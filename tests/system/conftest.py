"""Hosts for the tests of this folder: one per module, cleared of guests after each test; and a guest that watches."""

import random
from collections.abc import Iterator

import pytest

from tests.framework.host import Host, running
from tests.framework.puppet import Puppet

BYSTANDER = "bystander"
PAUSE = 0.002  # seconds between its rounds: without, it alone would keep both processors of a small machine busy


@pytest.fixture(scope="module")
def module_host() -> Iterator[Host]:
    with running() as host:
        yield host


@pytest.fixture
def host(module_host: Host) -> Iterator[Host]:
    """A host without guests; what the test leaves in it is removed."""
    try:
        yield module_host
    finally:
        module_host.remove_guests()


@pytest.fixture
def own() -> Iterator[Host]:
    """A host that is not started yet; whatever becomes of it, nothing of it outlives the test."""
    host = Host()
    try:
        yield host
    finally:
        host.close()


@pytest.fixture
def bystander(host: Host) -> Iterator[Puppet]:
    """A guest that does I/O from before the test to its end and checks every byte. No process of the host may have
    died by then but hostile guests, and nothing of the bystander may be lost, refused or mixed up."""
    guest = host.guest(BYSTANDER, disks=[{"name": "vda", "size": "1MiB"}], nics=["eth0", "eth1"])
    pids = host.pids()
    work = guest.begin("work:verified", seed=1, pause=PAUSE)
    yield guest
    host.await_progress(BYSTANDER)
    result = work.finish()
    assert result["rounds"] > 0 and result["dropped"] == {}
    assert all(queue["foreign"] == 0 for queue in guest.counts().values())
    assert host.metrics().by("reason", "io_refused_total", partition=BYSTANDER) == {}
    now = host.pids()
    assert {name: now.get(name) for name in pids} == pids


@pytest.fixture
def seed() -> int:
    """For a test's own generator; printed, so that a failure can be had again."""
    value = random.SystemRandom().getrandbits(32)
    print(f"seed {value}")
    return value

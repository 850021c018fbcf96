"""Revocation while the kernel itself works on the memory: for a device that waits for it, and for one that is dead."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostd.errors import HostError
from tests.framework.canary import memory_of, put, stands
from tests.framework.host import MANIFEST, Host, running
from tests.framework.puppet import Puppet
from tests.framework.slow_files import SlowFiles

PAGE = 4096
LENGTH = 16 * PAGE
BYTE = 0x77  # all that the disk ever reads as

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="mounts over /dev/fuse, as root"
)


@pytest.fixture
def slow() -> Iterator[SlowFiles]:
    with tempfile.TemporaryDirectory(prefix="partvisor-test-", dir="/tmp") as folder:
        files = SlowFiles(Path(folder), BYTE)
        try:
            yield files
        finally:
            files.close()


@pytest.fixture
def host(slow: SlowFiles) -> Iterator[Host]:
    disk = {"name": "disk0", "kind": "disk", "medium": "direct", "folder": str(slow.folder)}
    with running({**MANIFEST, "devices": [MANIFEST["devices"][0], disk]}) as host:
        yield host


def reading(host: Host, slow: SlowFiles) -> Puppet:
    """A guest with a read in the kernel, into its first pages."""
    guest = host.guest("store", disks=[{"name": "vda", "size": "1MiB", "file": "a.img"}])
    slow.hold()
    guest.begin("load:disk", disk="vda", depth=1, seconds=0.001, block=LENGTH)
    host.until(lambda: slow.waiting > 0)
    return guest


def freed(host: Host) -> bool:
    (row,) = host.view("store")["true"]["revoked"]
    return bool(row["state"] == "freed")


def test_what_the_kernel_works_on_for_a_living_device_is_quarantined(host: Host, slow: SlowFiles) -> None:
    reading(host, slow)
    with memory_of(host, "store") as fd:
        receipt = host.revoke("store", 0, LENGTH, deadline=1.0)
        assert receipt["state"] == "quarantine" and slow.waiting
        assert [one["name"] for one in receipt["holders"] if one["released"] is None] == ["disk0"]
        assert slow.let_go() >= 1
        host.until(lambda: freed(host))
        assert os.pread(fd, LENGTH, 0) == bytes(LENGTH)


def test_what_the_kernel_works_on_for_a_dead_device_reaches_nobody(host: Host, slow: SlowFiles) -> None:
    """The device is gone, its read is not; the receipt comes first, then the data."""
    reading(host, slow)
    with memory_of(host, "store") as fd:
        pid = host.pids()["disk0"]
        os.kill(pid, signal.SIGKILL)
        host.until(lambda: host.pids().get("disk0") != pid)
        receipt = host.revoke("store", 0, LENGTH, deadline=10.0)
        assert receipt["state"] == "freed", receipt
        put(fd, 0, LENGTH)
        assert slow.waiting, "the read ended with its process, so nothing was shown"
        assert slow.let_go() >= 1, "the kernel did not take the data, so nothing was shown"
        assert stands(fd, 0, LENGTH), "data of a dead device's read has reached revoked memory"


def test_an_endpoint_that_the_kernel_works_for_is_quarantined(host: Host, slow: SlowFiles) -> None:
    """Its data may still come: nothing of the guest's memory is given up before, nor the endpoint's name or port."""
    reading(host, slow)
    with memory_of(host, "store") as fd:
        receipt = host.take("store", endpoint="vda", deadline=0.5)
        assert receipt["state"] == "quarantine" and slow.waiting
        assert {one["name"] for one in receipt["holders"] if one["released"] is None} >= {"disk0"}
        assert [end["name"] for end in host.view("store")["true"]["endpoints"]] == ["vda"]
        assert slow.let_go() >= 1
        host.until(lambda: host.view("store")["receipts"][0]["state"] == "freed")
        assert os.pread(fd, LENGTH, 0) == bytes([BYTE]) * LENGTH  # it came before
        put(fd, 0, LENGTH)
        host.attach("store", disk={"name": "vda", "size": "1MiB"})
        assert stands(fd, 0, LENGTH)


@pytest.mark.long
def test_a_detach_that_failed_once_does_not_succeed_while_the_kernel_goes_on(host: Host, slow: SlowFiles) -> None:
    """The device gives the kernel 10 s, says so, and is asked again."""
    reading(host, slow)
    for _ in range(2):
        with pytest.raises(HostError, match="still at the medium") as refused:
            host.detach("store", "vda")
        assert refused.value.code == "timeout" and slow.waiting
    assert slow.let_go() >= 1
    host.detach("store", "vda")
    assert host.view("store")["true"]["endpoints"] == []

"""Live changes of path under load: nothing lost, repeated, reordered or changed, and a guest that does not follow
stays where it was (A1)."""

import itertools
import os
import signal
import time
from typing import Any

import pytest

from hostd.errors import HostError
from tests.framework.host import Host
from tests.framework.streams import CHANGES, NAMES, Pair

SECONDS, SECONDS_LONG = 2.5, 60.0
INTERVAL = 0.1
ENDPOINTS = [(name, endpoint) for name in NAMES for endpoint in ("eth0", "vda")]
DISK = {"name": "vda", "size": "1MiB"}


def test_changes_under_load(host: Host, long: bool) -> None:
    """One endpoint after the other, every 100 ms, each over every change between two paths."""
    pair = Pair(host)
    results: dict[str, dict[str, Any]] = {}
    seconds = SECONDS_LONG if long else SECONDS
    changes = 0
    with pair.streaming(results):
        end = time.monotonic() + seconds
        turns = ((name, endpoint, path) for path in itertools.cycle(CHANGES) for name, endpoint in ENDPOINTS)
        while (begin := time.monotonic()) < end:
            host.set_path(*next(turns))
            changes += 1
            time.sleep(max(0.0, begin + INTERVAL - time.monotonic()))
    assert changes > seconds / INTERVAL / 3, changes  # a busy machine may take more than the interval for one
    for name, result in results.items():
        assert result["received"] > 50 * changes and result["blocks"] > changes, (name, result)
        assert result["longest"] < 0.5, (name, result)  # the stream's own pause
    metrics = host.metrics()
    assert metrics.by("reason", "network_transmit_drops_total") == {}
    assert metrics.by("reason", "network_receive_drops_total") == {}
    assert metrics.by("reason", "io_refused_total") == {}
    assert metrics.value("thread_foreign_completions_total") == 0
    assert all(queue["foreign"] == 0 for guest in pair.guests.values() for queue in guest.counts().values())
    assert host.failed_checks() == []


def test_changes_under_deep_queues(host: Host) -> None:
    """A driver without the interpreter, 32 requests in flight: each is answered once, wherever it was when the path
    changed."""
    guest = host.guest("deep", disks=[DISK], memory="4MiB")
    load = guest.begin("load:disk", disk="vda", depth=32, seconds=5)  # longer than all the changes
    host.await_progress("deep", 1)
    for path in CHANGES * 2:
        host.set_path("deep", "vda", path)
    result = load.result()
    assert (result["errors"], result["unanswered"]) == (0, 0)
    (counts,) = guest.counts().values()
    assert counts["foreign"] == 0
    metrics = host.metrics()
    assert metrics.value("disk_reads_completed_total", partition="deep") == result["requests"]


@pytest.mark.parametrize("path", ["copy", "direct"])
def test_a_guest_that_does_not_follow(host: Host, path: str) -> None:
    """It does no I/O, so its driver does not look: the change fails in time, and nothing has changed."""
    guest = host.guest("idle", disks=[DISK])
    guest.call("disk:write", disk="vda", length=4096, seed=1)
    before = host.metrics().by("path", "endpoint_path", partition="idle")
    begin = time.monotonic()
    with pytest.raises(HostError) as refused:
        host.set_path("idle", "vda", path, timeout=0.3)
    assert refused.value.code == "timeout" and "stays on redirect" in refused.value.message
    assert 0.3 <= time.monotonic() - begin < 1.0
    assert host.path("idle", "vda") == "redirect"
    guest.call("disk:read", disk="vda", length=4096, seed=1)  # late, and it does not go over now
    assert host.path("idle", "vda") == "redirect"
    assert host.metrics().by("path", "endpoint_path", partition="idle") == before
    assert host.metrics().value("host_copied_bytes_total", partition="idle") == 0
    assert host.failed_checks() == []


def test_a_stopped_guest_does_not_follow_and_goes_on(host: Host) -> None:
    """SIGSTOP in the middle of its stream; afterwards the stream goes on as if nothing had been asked."""
    pair = Pair(host)
    with pair.streaming():
        host.await_progress("left", 20)
        pid = host.row("left")["pid"]
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(HostError) as refused:
                host.set_path("left", "eth0", "direct", timeout=0.3)
            assert refused.value.code == "timeout"
        finally:
            os.kill(pid, signal.SIGCONT)
        host.await_progress("left", 20)
        assert host.path("left", "eth0") == "redirect"
        pair.change("direct")  # and is able to follow
    assert {host.path(name, "eth0") for name in NAMES} == {"direct"}

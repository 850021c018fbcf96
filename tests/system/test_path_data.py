"""The three paths of NIC and disk behind one driver: every byte arrives on each, and the host copies exactly the
payload, once for each endpoint, on `copy`, and nothing on the others (A1, A3, U10)."""

from typing import Any

import pytest

from tests.framework.host import Host
from tests.framework.streams import PATHS, Pair

REQUESTS = 500  # of each guest at least
BLOCK = 16384


@pytest.mark.parametrize("path", PATHS)
def test_data_both_ways_and_what_was_copied(host: Host, path: str) -> None:
    pair = Pair(host, path=path)
    results: dict[str, dict[str, Any]] = {}
    with pair.streaming(results):
        host.await_progress("left", REQUESTS)
        host.await_progress("right", REQUESTS)
    metrics = host.metrics()
    for name, result in results.items():
        for endpoint in ("eth0", "vda"):
            host.until(lambda name=name, endpoint=endpoint: host.path(name, endpoint) == path)
        assert result["blocks"] > 0
        payload = result["sent_bytes"] + result["received_bytes"] + 2 * BLOCK * result["blocks"]
        assert metrics.value("host_copied_bytes_total", partition=name) == (payload if path == "copy" else 0)
        if path == "direct":
            assert metrics.value("translations_total", partition=name) <= 2  # the changes of path at most
    assert host.failed_checks() == []


@pytest.mark.parametrize("receiver", PATHS)
@pytest.mark.parametrize("sender", PATHS)
def test_each_endpoint_has_a_path_of_its_own(host: Host, sender: str, receiver: str) -> None:
    """Frames from one path to another; each endpoint on `copy` costs one copy of what it moves."""
    left = host.guest("left", nics=[{"name": "eth0", "path": sender}], memory="4MiB")
    right = host.guest("right", nics=[{"name": "eth0", "path": receiver}], memory="4MiB")
    addresses = [guest.call("nic:open", nic="eth0", buffers=64, size=9014) for guest in (left, right)]
    frames = [(size, size) for size in (60, 64, 1514, 4096, 4097, 9014)]
    assert left.call("nic:send", nic="eth0", to=addresses[1], frames=frames) == {}
    assert len(right.call("nic:receive", nic="eth0", count=len(frames))) == len(frames)
    moved = sum(size for size, _seed in frames)
    copied = host.metrics().by("partition", "host_copied_bytes_total")
    assert copied == {name: moved for name, path in (("left", sender), ("right", receiver)) if path == "copy"}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("length", [512, 4096, 65536, 1 << 20, 3 << 20])
def test_disk_data_of_every_length(host: Host, path: str, length: int) -> None:
    """Over page borders, and in several transfers, more than the copy path holds at once."""
    guest = host.guest("store", disks=[{"name": "vda", "size": "4MiB", "path": path}], memory="16MiB")
    guest.call("disk:write", disk="vda", length=length, seed=length, offset=512, shift=17)
    guest.call("disk:read", disk="vda", length=length, seed=length, offset=512, shift=4095)
    host.until(lambda: host.path("store", "vda") == path)  # told by the monitor, behind the first request
    assert host.metrics().value("host_copied_bytes_total") == (2 * length if path == "copy" else 0)

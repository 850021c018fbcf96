"""A device shared by its guests: byte shares, asked rates, who is blocked, and a guest that stops draining (A4, U11).

The disk is one without a medium, so that the shares are the device's own doing and not that of a file system.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from tests.framework.host import MANIFEST, Host, running
from tests.framework.puppet import Puppet
from tests.framework.streams import PATHS, Pair

#: bytes a second of the whole device, by path: what 512 B requests of two processors can fill half of beside everything
#: else; the figure of the product is that of `direct`
DEVICE_RATES = {"copy": 20_000_000, "redirect": 60_000_000, "direct": 400_000_000}
LARGE, SMALL = 65536, 512
WITHIN, WITHIN_RATE = 0.05, 0.02
RATE = 40_000_000
WARM, SECONDS, SECONDS_LONG, SPARE = 0.3, 1.0, 10.0, 0.8
ATTEMPTS = 5
KEPT = 0.1  # seconds' worth of its rate that a bucket may keep (bucket.h)
USED = 0.4  # of the rate at least, also beside other work: how exactly a rate is met, other tests say
DEVICES = [
    *MANIFEST["devices"], {"name": "free", "kind": "disk", "medium": "null"},
    *({"name": f"slow-{path}", "kind": "disk", "medium": "null", "limits": {"bytes": {"rate": rate}}}
      for path, rate in DEVICE_RATES.items()),
]  # fmt: skip


@pytest.fixture(scope="module")
def module_host() -> Iterator[Host]:
    with running({**MANIFEST, "devices": DEVICES}) as host:
        yield host


def writer(host: Host, name: str, device: str, **disk: Any) -> Puppet:
    return host.guest(name, disks=[{"name": "vda", "size": "1MiB", "device": device, **disk}], memory="8MiB")


def load(guest: Puppet, block: int, seconds: float, depth: int) -> Any:
    return guest.begin("load:disk", disk="vda", depth=depth, seconds=seconds, operation="write", block=block)


def written(host: Host, *names: str) -> tuple[float, float, list[float]]:
    """The earliest and the latest moment at which it may have been so, and the bytes of each by then."""
    begin = time.monotonic()
    metrics = host.metrics()
    return begin, time.monotonic(), [metrics.value("disk_written_bytes_total", partition=name) for name in names]


def shares(host: Host, device: str, path: str, loads: dict[str, tuple[int, int, int]], seconds: float) -> list[float]:
    """Bytes a second, at least, that writers of (block, depth, weight) got from `device` while all had a backlog: over
    the longest time that it may have been."""
    guests = {name: writer(host, name, device, path=path, weight=weight) for name, (_, _, weight) in loads.items()}
    started = time.monotonic()
    calls = [load(guests[name], block, WARM + seconds + SPARE, depth) for name, (block, depth, _) in loads.items()]
    time.sleep(WARM)
    begin, _, before = written(host, *loads)
    time.sleep(seconds)
    _, end, after = written(host, *loads)
    late = end - started >= WARM + seconds + SPARE
    assert all(call.result()["errors"] == 0 for call in calls)
    if late:  # the scrapes took longer than the load
        return [0.0] * len(loads)
    return [(last - first) / (end - begin) for first, last in zip(before, after, strict=True)]


def fair(host: Host, measured: Callable[[], list[float]], parts: Sequence[float], rate: int, seconds: float) -> None:
    """Bytes a second that stand to each other as `parts`, within 5 %, and use most of a device's `rate`. Measured again
    where they do not: a client whose processor was taken by something outside of the host had no backlog all the while.
    The device never does more than its rate and what it may keep while it waits for a processor."""
    for _ in range(ATTEMPTS):
        found = measured()
        assert sum(found) <= rate * (1 + KEPT / seconds + WITHIN_RATE), found
        per_part = [value / part for value, part in zip(found, parts, strict=True)]
        if max(per_part) - min(per_part) <= WITHIN * sum(per_part) / len(per_part) and sum(found) >= USED * rate:
            return
        host.remove_guests()
    raise AssertionError(f"{found} do not stand to each other as {parts}, or use too little of {rate}")


@pytest.mark.parametrize("path", PATHS)
def test_bytes_are_shared_not_requests(host: Host, path: str, long: bool) -> None:
    """Equal weights: 64 KiB and 512 B requests get the same number of bytes; the device is used to the full."""
    loads = {"large": (LARGE, 32, 100), "small": (SMALL, 256, 100)}
    seconds = SECONDS_LONG if long else SECONDS
    fair(host, lambda: shares(host, f"slow-{path}", path, loads, seconds), (1, 1), DEVICE_RATES[path], seconds)


def test_weights(host: Host, long: bool) -> None:
    loads = {"one": (4096, 64, 50), "two": (4096, 64, 100), "four": (16384, 64, 200)}
    seconds = SECONDS_LONG if long else SECONDS
    fair(host, lambda: shares(host, "slow-direct", "direct", loads, seconds), (1, 2, 4),
         DEVICE_RATES["direct"], seconds)  # fmt: skip


@pytest.mark.parametrize("period", ["1ms", "10ms", "100ms", "1s"])
@pytest.mark.parametrize("path", PATHS)
def test_an_asked_rate_is_met(host: Host, path: str, period: str, long: bool) -> None:
    """Within 2 %, whatever the refill period, by requests larger than what accrues in one."""
    guest = writer(host, "limited", "free", path=path, limits={"bytes": {"rate": RATE, "period": period}})
    load(guest, LARGE, 0.05, 8).result()  # uses up what accrued before
    result = load(guest, LARGE, SECONDS_LONG if long else 0.6, 8).result()
    assert result["bytes"] / result["seconds"] == pytest.approx(RATE, rel=WITHIN_RATE), result


def test_an_asked_rate_of_requests_is_met(host: Host) -> None:
    guest = writer(host, "limited", "free", limits={"operations": {"rate": 5000, "period": "10ms"}})
    load(guest, SMALL, 0.05, 8).result()
    result = load(guest, SMALL, 0.6, 8).result()
    assert result["requests"] / result["seconds"] == pytest.approx(5000, rel=WITHIN_RATE), result


def test_a_burst_is_had_once(host: Host) -> None:
    burst = 8_000_000
    guest = writer(host, "limited", "free", limits={"bytes": {"rate": RATE, "period": "1ms", "burst": burst}})
    first, second = (load(guest, LARGE, 0.5, 8).result() for _ in range(2))
    assert first["bytes"] - RATE * first["seconds"] == pytest.approx(burst, rel=0.1), first
    assert second["bytes"] / second["seconds"] == pytest.approx(RATE, rel=WITHIN_RATE), second


@pytest.mark.parametrize(("path", "limit"), [*((path, "bytes") for path in PATHS), ("direct", "operations")])
def test_a_rate_of_0_blocks(host: Host, path: str, limit: str) -> None:
    """Nothing of it is done, and its neighbour has the device."""
    blocked = writer(host, "blocked", "free", path=path, limits={limit: {"rate": 0}})
    neighbour = writer(host, "neighbour", "free", path=path)
    load(blocked, SMALL, 30.0, 8)
    result = load(neighbour, SMALL, 0.2, 8).result()
    assert result["requests"] > 100 and result["errors"] == 0
    assert written(host, "blocked")[2] == [0]
    host.remove("blocked")


@pytest.mark.parametrize("path", PATHS)
def test_a_guest_that_stops_draining_loses_its_own_frames(host: Host, path: str) -> None:
    """A stream between two guests goes on, complete and in order, while a third takes nothing of a fourth."""
    pair = Pair(host, path=path)
    deaf, sender = (host.guest(name, nics=[{"name": "eth0", "path": path}]) for name in ("deaf", "sender"))
    to = deaf.call("nic:open", nic="eth0", buffers=4)
    results: dict[str, dict[str, Any]] = {}
    with pair.streaming(results):
        host.await_progress("left", 100)
        call = sender.begin("nic:send", nic="eth0", to=to, frames=[(1514, 1)] * 500)
        host.await_progress("left", 2000)
        dropped = call.result()
    assert dropped == {"no_buffer": 496}
    assert min(result["received"] for result in results.values()) > 200
    assert max(result["longest"] for result in results.values()) < 0.5
    metrics = host.metrics()
    assert metrics.by("partition", "network_receive_drops_total") == {"deaf": 496}
    assert metrics.by("partition", "network_transmit_drops_total") == {"sender": 496}

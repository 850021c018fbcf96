"""pyx/pace.h from the outside: when a load generator sends, what it counts as late, and what a slowdown costs."""

from collections.abc import Iterator

import pytest

from tools.bench.crew import Crew, crew
from tools.bench.host import bench_host
from tools.bench.loads import DiskLoads, NetLoads


@pytest.fixture(scope="module")
def guests() -> Iterator[Crew]:
    with bench_host(medium="null") as host, crew(host) as found:
        yield found


@pytest.fixture(scope="module")
def disk(guests: Crew) -> DiskLoads:
    return DiskLoads(guests, "redirect", 1 << 20, 256 * 4096)


@pytest.fixture(scope="module")
def net(guests: Crew) -> NetLoads:
    return NetLoads(guests, "redirect", 64)


def test_open_loop_sends_what_is_due(disk: DiskLoads) -> None:
    found = disk.window(0.2, op="read", block=4096, depth=256, rate=2000)
    assert found.requests == 400
    assert found.latency is not None and found.latency.count == 400


def test_a_rate_that_cannot_be_kept_shows_as_latency(disk: DiskLoads) -> None:
    """Far more than the host carries: requests are late from their intended time on, and those behind are counted."""
    found = disk.window(0.1, op="read", block=4096, depth=4, rate=50e6)
    assert found.behind > 0
    assert found.latency is not None and found.latency.quantile(1.0) > 0.05


def test_open_loop_of_frames(net: NetLoads) -> None:
    found = net.window(0.2, size=64, depth=512, batch=64, rate=2000)
    assert found.requests == 400 and found.dropped == 0
    assert found.latency is not None and found.latency.count == 400, "every arrival is timed"
    assert found.completion is not None and found.completion.count == 400


def test_windows_follow_each_other_exactly(net: NetLoads) -> None:
    """Every frame of a window arrives in it: the receiver would call a late one lost or reordered."""
    for _ in range(5):
        assert net.window(0.01, size=64, depth=512, batch=64).requests > 0


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5])
def test_slowdown_burns_its_share(disk: DiskLoads, share: float) -> None:
    """Of the time of the work itself, whatever that was; more only where the machine took the processor away."""
    found = disk.window(0.1, op="read", block=4096, depth=8, slowdown=share)
    worked = found.requests / found.rate - found.burned
    assert share * worked * 0.99 <= found.burned <= share * worked * 2 + 0.02


def test_no_slowdown_burns_nothing(net: NetLoads) -> None:
    assert net.window(0.02, size=64, depth=64, batch=8).burned == 0


def test_sizes_that_do_not_fit_are_refused(net: NetLoads, disk: DiskLoads) -> None:
    from hostd.errors import HostError

    with pytest.raises(HostError, match="39 bytes"):
        net.senders[0].call("send", size=39, depth=1, batch=1, seconds=0.01)
    with pytest.raises(HostError, match="depth 0"):
        disk.guests[0].call("disk", op="read", block=512, depth=0, seconds=0.01)

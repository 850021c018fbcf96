"""An I/O partition that dies, hangs or hands over: guests see a pause and nothing else (U12, rules.md 18 to 23).

The load checks itself: a sequenced stream of frames between two guests, both ways, and a disk each, every byte
compared. Each guest is served by another I/O partition.
"""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from typing import Any

import pytest

from hostd.errors import HostError
from tests.framework.host import Host
from tests.framework.streams import NAMES, Pair

KILLS, KILLS_LONG = 8, 500  # of each I/O partition
PLANNED, PLANNED_LONG = 50, 1000  # of each, there and back
LIFE = 0.31  # seconds: less is a short life, and too many of those are given up
# Seconds of a stop: none is taken for a hang, each is (whoever of the two serves then), about half of them are.
BRIEF, NOTICED, EITHER = (0.0, 0.1), (0.5, 0.6), (0.2, 0.5)
IO = ("io-a", "io-b")


def offices(host: Host) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in host.status()["host"]["offices"]}


def seated(host: Host) -> bool:
    """Both processes live."""
    return all(host.row(name)["state"] == "running" and host.row(name)["pid"] for name in IO)


def end(host: Host, name: str, number: signal.Signals) -> None:
    """Signals the process; waits for the next one in its place."""
    restarts = host.row(name)["restarts"]
    os.kill(host.row(name)["pid"], number)
    host.until(lambda: host.row(name)["restarts"] > restarts)


def assert_whole(host: Host, pair: Pair) -> None:
    assert all(queue["foreign"] == 0 for guest in pair.guests.values() for queue in guest.counts().values())
    assert host.metrics().by("reason", "io_refused_total") == {}
    assert host.failed_checks() == []


def test_killed_under_load(host: Host, seed: int, long: bool) -> None:
    """Each in turn, at seeded moments: nothing is lost, repeated or changed, and each death is one takeover of whatever
    the dead process served."""
    moments = random.Random(seed)
    pair, results = Pair(host), {}
    with pair.streaming(results):
        for number in range(2 * (KILLS_LONG if long else KILLS)):
            time.sleep(LIFE + moments.uniform(0.0, 0.05))
            end(host, IO[number % 2], signal.SIGKILL)
    assert_whole(host, pair)
    news = [event for event in host.events() if event["kind"] == "takeover"]
    assert len(news) >= 2 * KILLS and all(event["cause"] in ("death", "hang") for event in news)
    assert sum(event["replayed"] + event["found"] for event in news) > 0, "nothing was ever in flight"
    assert all(row["takeovers"] for row in offices(host).values())
    print(f"noticed to served: most {max(event['served'] for event in news):.4f} s; longest silence "
          f"{max(result['longest'] for result in results.values()):.3f} s")  # fmt: skip


def test_stopped_and_going_on(host: Host, seed: int, long: bool) -> None:
    """SIGSTOP, and SIGCONT before or after the other one has taken over: one that is back in time goes on, one that is
    late never touches anything again."""
    moments = random.Random(seed)
    pair = Pair(host)
    with pair.streaming():
        for number in range(KILLS_LONG if long else 8):
            time.sleep(LIFE)
            name = IO[number % 2]
            before = host.row(name)
            os.kill(before["pid"], signal.SIGSTOP)
            time.sleep(moments.uniform(*BRIEF if number % 4 == 3 else NOTICED if number < 2 else EITHER))
            with suppress(ProcessLookupError):
                os.kill(before["pid"], signal.SIGCONT)
            time.sleep(0.1)
            host.until(lambda: seated(host))
    assert_whole(host, pair)
    hung = [event for event in host.events() if event["kind"] == "takeover" and event["cause"] == "hang"]
    assert hung, "no stop was taken for one"


def test_handed_over_there_and_back(host: Host, long: bool) -> None:
    """Planned, both ways, under load; and fail back after a death."""
    pair = Pair(host)
    before = host.pids()
    with pair.streaming():
        for number in range(PLANNED_LONG if long else PLANNED):
            assert host.switch_over(IO[number % 2])["changed"]
        for name in IO:
            host.switch_over(name, name)
        assert host.pids() == before, "nobody dies of a planned one"
        end(host, "io-a", signal.SIGKILL)
        assert offices(host)["io-a"]["served_by"] == "io-b"
        assert host.switch_over("io-a", "io-a")["changed"] and not host.switch_over("io-a", "io-a")["changed"]
        assert all(row["served_by"] == name for name, row in offices(host).items())
    assert_whole(host, pair)
    events = [event for event in host.events() if event["kind"] == "takeover" and event["cause"] == "planned"]
    assert len(events) >= PLANNED
    with pytest.raises(HostError, match="no I/O partition"):
        host.switch_over("nic0")


def test_on_every_path(host: Host) -> None:
    """Disks by copy, frames directly; then the other way round."""
    pair = Pair(host)
    for nic, disk in (("direct", "copy"), ("redirect", "direct")):
        with pair.streaming():
            for name in NAMES:
                host.set_path(name, "eth0", nic)
                host.set_path(name, "vda", disk)
            for name in IO:
                time.sleep(LIFE)
                end(host, name, signal.SIGKILL)
    assert_whole(host, pair)


def test_both_die_at_once(host: Host) -> None:
    """An outage that ends by itself (rules.md test 17)."""
    pair = Pair(host)
    with pair.streaming():
        for _ in range(3):
            time.sleep(LIFE)
            restarts = [host.row(name)["restarts"] for name in IO]
            for name in IO:
                os.kill(host.row(name)["pid"], signal.SIGKILL)
            host.until(lambda r=restarts: all(host.row(n)["restarts"] > k for n, k in zip(IO, r, strict=True)))  # type: ignore[misc]
    assert_whole(host, pair)


def test_the_monitor_dies_in_the_middle_of_a_takeover(host: Host, seed: int, long: bool) -> None:
    """Killed within the milliseconds around the death of a server: the next monitor finds the terms where they were,
    and goes on. Wherever it was hit, one server serves each office, hostd knows which, and a handover works."""
    moments = random.Random(seed)
    pair = Pair(host)
    with pair.streaming():
        for number in range(100 if long else 6):
            time.sleep(LIFE)
            name = IO[number % 2]
            before = {one: host.row(one)["restarts"] for one in (name, "monitor")}
            victims = [host.row(name)["pid"], host.row("monitor")["pid"]]
            os.kill(victims[0], signal.SIGKILL)
            busy_wait(moments.uniform(0.0, 0.003))
            os.kill(victims[1], signal.SIGKILL)
            host.until(lambda b=before: all(host.row(one)["restarts"] > count for one, count in b.items()))  # type: ignore[misc]
            host.until(lambda: host.view("left")["connections"]["vda"]["state"] in ("connected", "failed_over"))
            for one in IO:
                host.switch_over(one, one)
            assert all(row["served_by"] == one for one, row in offices(host).items())
    assert_whole(host, pair)


def test_a_server_dies_while_there_is_no_monitor(host: Host) -> None:
    """Nobody can take over until the next monitor comes; that one finds the death by itself."""
    pair = Pair(host)
    with pair.streaming():
        for name in IO:
            time.sleep(LIFE)
            before = {one: host.row(one)["restarts"] for one in (name, "monitor")}
            victims = [host.row("monitor")["pid"], host.row(name)["pid"]]
            host.signal(signal.SIGSTOP)  # nobody starts the next monitor
            try:
                os.kill(victims[0], signal.SIGKILL)
                busy_wait(0.05)
                os.kill(victims[1], signal.SIGKILL)
                busy_wait(0.05)
            finally:
                host.signal(signal.SIGCONT)
            host.until(lambda b=before: all(host.row(one)["restarts"] > count for one, count in b.items()))  # type: ignore[misc]
            host.until(lambda: host.view("left")["connections"]["vda"]["state"] in ("connected", "failed_over"))
    assert_whole(host, pair)


def busy_wait(seconds: float) -> None:
    """Without sleep's granularity: the moment matters."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass

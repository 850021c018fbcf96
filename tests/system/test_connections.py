"""The state of each endpoint's connection: by events in their order, on the metrics page within one scrape, with cause
and age (U12, rules.md 23 and 38). Each change has a real cause: somebody is killed, stopped, or hands over."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from typing import Any

from hostd.connections import BY_SERVER, STATES
from tests.framework import monitors
from tests.framework.host import Host
from tests.framework.streams import NAMES, Pair

IO = ("io-a", "io-b")
LIFE = 0.31  # seconds: less is a short life, and too many of those are given up


def connection(host: Host, name: str = "left", endpoint: str = "vda") -> dict[str, Any]:
    return host.view(name)["connections"][endpoint]


def state(host: Host, name: str = "left", endpoint: str = "vda") -> str:
    """As the metrics page says it: one state alone."""
    (found,) = host.metrics().by("state", "endpoint_connection", partition=name, endpoint=endpoint)
    return found


def changes(host: Host, since: int, name: str, endpoint: str = "vda") -> list[tuple[str, str]]:
    """States and causes that an endpoint's connection came to, one after the other."""
    told = [event for event in host.events(since) if event["kind"] == "connection"]
    mine = [event for event in told if (event["partition"], event["endpoint"]) == (name, endpoint)]
    assert all(after["before"] == before["state"] for before, after in zip(mine, mine[1:], strict=False))
    assert all(event["seconds"] >= 0 for event in mine)
    return [(event["state"], event["cause"]) for event in mine]


def last(host: Host) -> int:
    return host.events()[-1]["sequence"]


def own(host: Host, name: str) -> str:
    """The I/O partition whose client a guest is."""
    return next(end["server"] for end in host.view(name)["true"]["endpoints"])


def all_connected(host: Host, endpoints: Sequence[str]) -> bool:
    return all(connection(host, name, end)["state"] == "connected" for name in NAMES for end in endpoints)


def bring_back(host: Host, endpoints: Sequence[str] = ("vda", "eth0")) -> None:
    """Each I/O partition serves its own clients."""
    host.until(lambda: all(host.row(name)["state"] == "running" and host.row(name)["pid"] for name in IO))
    for name in IO:
        host.switch_over(name, name)
    host.until(lambda: all_connected(host, endpoints))


def kill(host: Host, name: str, number: signal.Signals = signal.SIGKILL) -> int:
    """Its restarts so far."""
    row = host.row(name)
    os.kill(row["pid"], number)
    return row["restarts"]


def test_a_takeover_and_the_way_back(host: Host) -> None:
    """Its own clients: fenced, failed over, connected; those of the other one: degraded, connected. The scrape after
    the takeover has it all, and the pause is counted once."""
    pair = Pair(host)
    mine, other = sorted(NAMES, key=lambda name: own(host, name))
    assert [own(host, name) for name in (mine, other)] == ["io-a", "io-b"]
    assert connection(host, mine)["state"] == "connected" and connection(host, mine)["changes"]["connected"] == 1
    before, since = host.metrics(), last(host)
    with pair.streaming():
        time.sleep(LIFE)
        restarts = kill(host, "io-a")
        host.until(lambda: any(event["kind"] == "takeover" for event in host.events(since)))
        page = host.metrics()
        assert page.by("state", "endpoint_connection", partition=mine, endpoint="vda") == {"failed_over": 1}
        assert page.by("cause", "endpoint_connection_cause", partition=mine, endpoint="vda") == {"death": 1}
        assert page.value("endpoint_connection_age_seconds", partition=mine, endpoint="vda") < 10
        grown = {dict(key)["state"]: count for key, count in
                 page.changes(before, "endpoint_connection_changes_total").items()
                 if {("partition", mine), ("endpoint", "vda")} <= key}  # fmt: skip
        assert grown == {"fenced": 1, "failed_over": 1}
        assert page.value("failovers_total", partition=mine, endpoint="vda", path="redirect") == 1
        assert page.value("failovers_total", partition=other, endpoint="vda") == 0
        pause = {"office": "io-a", "cause": "death"}
        counted = [one.value("takeover_pause_seconds_count", **pause) for one in (before, page)]
        assert counted[1] == counted[0] + 1 and page.value("takeover_pause_seconds_sum", **pause) > 0
        host.until(lambda: host.row("io-a")["restarts"] > restarts and connection(host, other)["state"] == "connected")
        assert connection(host, mine)["state"] == "failed_over"
        bring_back(host)
    for endpoint in ("vda", "eth0"):
        assert changes(host, since, mine, endpoint) == [
            ("fenced", "death"), ("failed_over", "death"), ("fenced", "planned"), ("connected", "recovered")
        ]  # fmt: skip
        assert changes(host, since, other, endpoint) == [("degraded", "standby"), ("connected", "recovered")]
    series = host.metrics().series("endpoint_connection", partition=mine, endpoint="vda")
    assert {dict(key)["state"] for key in series} == set(STATES)


def test_one_that_hangs(host: Host) -> None:
    Pair(host)
    mine = min(NAMES, key=lambda name: own(host, name))
    time.sleep(LIFE)
    since = last(host)
    kill(host, "io-a", signal.SIGSTOP)
    host.until(lambda: connection(host, mine)["state"] == "failed_over")
    told = changes(host, since, mine)
    assert told[-2:] == [("fenced", "hang"), ("failed_over", "hang")]
    assert told[:-2] in ([], [("fenced", "death")]), "the end of its process may be seen before its reason"
    bring_back(host)


def test_both_down_and_back(host: Host) -> None:
    """Reconnecting while nobody could serve, and never degraded or failed over meanwhile."""
    pair = Pair(host)
    with pair.streaming():
        time.sleep(LIFE)
        since = last(host)
        restarts = [kill(host, name) for name in IO]
        host.until(lambda: all(host.row(n)["restarts"] > k for n, k in zip(IO, restarts, strict=True)))
        host.until(lambda: all(row["served_by"] for row in host.status()["host"]["offices"]))
        bring_back(host)
        for name in NAMES:
            told = [one for one, _ in changes(host, since, name)]
            assert "reconnecting" in told and told[-1] == "connected"
            assert told[told.index("reconnecting") + 1] == "fenced", "nobody serves before the epoch is raised"


def test_the_monitor_dies(host: Host) -> None:
    """What needs it reconnects; the direct path goes on connected."""
    pair = Pair(host)
    with pair.streaming():
        host.set_path("left", "eth0", "direct")
        since = last(host)
        time.sleep(LIFE)
        monitors.kill_and_wait(host)
        host.until(lambda: connection(host)["state"] == "connected")
    assert changes(host, since, "left") == [("reconnecting", "monitor"), ("connected", "recovered")]
    assert changes(host, since, "right") == [("reconnecting", "monitor"), ("connected", "recovered")]
    assert changes(host, since, "left", "eth0") == []
    assert connection(host, "left", "eth0")["failovers"] == dict.fromkeys(BY_SERVER, 0)


def test_a_guest_that_has_ended_has_no_connection(host: Host) -> None:
    host.guest("left", disks=[{"name": "vda", "size": "1MiB"}])
    assert state(host) == "connected"
    host.kill("left")
    assert host.metrics().by("state", "endpoint_connection", partition="left") == {}
    assert host.view("left")["connections"] == {}


def test_a_stopped_device_does_not_hold_up_a_takeover_for_good(host: Host) -> None:
    """A takeover waits until no device has anything earlier in flight (rules.md 20 and 24). One that is stopped never
    says so: it is noticed and killed, and the next one has nothing. Meanwhile the endpoints are fenced."""
    guests = {name: host.guest(name, disks=[{"name": "vda", "size": "1MiB"}]) for name in NAMES}
    mine = min(NAMES, key=lambda name: own(host, name))
    guests[mine].call("disk:write", disk="vda", length=4096, seed=1)
    time.sleep(LIFE)
    since, restarts = last(host), host.row("disk0")["restarts"]
    kill(host, "disk0", signal.SIGSTOP)
    waiting = guests[mine].begin("disk:write", disk="vda", length=4096, seed=2)
    kill(host, "io-a")
    host.until(lambda: connection(host, mine)["state"] == "fenced")
    waiting.result()
    told = [event["kind"] for event in host.events(since)]
    assert told.index("hung") < told.index("device_lost") < told.index("takeover")
    assert host.row("disk0")["restarts"] == restarts + 1
    host.until(lambda: connection(host, mine)["state"] == "failed_over")
    guests[mine].call("disk:read", disk="vda", length=4096, seed=2)
    states = [one for one, _ in changes(host, since, mine)]
    assert states[0] == "fenced" and states[-1] == "failed_over" and "connected" not in states
    bring_back(host, ["vda"])


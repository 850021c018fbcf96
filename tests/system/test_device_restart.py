"""A device that dies: the next one does what was in flight, and guests see a pause and nothing else (rules.md 21)."""

from __future__ import annotations

import os
import random
import signal
import statistics
import time
from contextlib import ExitStack

from tests.framework.host import Host
from tests.framework.streams import PATHS, Pair

DEVICES = ("disk0", "nic0")
KILLS, KILLS_LONG = 10, 300  # of each device
LIFE = 0.31  # seconds: less is a short life, and too many of those are given up


def kill(host: Host, name: str) -> None:
    """SIGKILL; returns when its next process serves."""
    row = host.row(name)
    os.kill(row["pid"], signal.SIGKILL)
    host.until(lambda: host.row(name)["restarts"] > row["restarts"])


def test_killed_under_load(host: Host, seed: int, long: bool) -> None:
    """Both devices in turn, at seeded moments, with verified load on every path: every request is answered once, no
    block and no frame is lost, and nothing is repeated or changed."""
    moments = random.Random(seed)
    pairs = [Pair(host, mark=f"-{path}", path=path) for path in PATHS]
    with ExitStack() as streams:
        for pair in pairs:
            streams.enter_context(pair.streaming())
        for _ in range(KILLS_LONG if long else KILLS):
            for name in DEVICES:
                time.sleep(LIFE / 2 + moments.uniform(0.0, 0.05))
                kill(host, name)
    for pair in pairs:
        assert all(queue["foreign"] == 0 for guest in pair.guests.values() for queue in guest.counts().values())
    assert host.failed_checks() == []
    seconds = [event["seconds"] for event in host.events() if event["kind"] == "device_restarted"]
    news = [event for event in host.events() if event["kind"] == "takeover"]
    assert sum(event["replayed"] + event["found"] for event in news) > 0, "nothing was ever in flight"
    print(f"restarts: median {statistics.median(seconds):.3f} s; sent again {sum(event['replayed'] for event in news)}")

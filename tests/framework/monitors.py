"""Killing the monitor of a test's host, and waiting for the one that follows."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from tests.framework.host import Host


def life(host: Host) -> dict[str, Any]:
    """{"restarts", "last_seconds", "given_up", "first_call": seconds of the monotonic clock}."""
    return host.status()["host"]["monitor"]


def kill(host: Host) -> float:
    """SIGKILL; the time of it, by the monotonic clock."""
    monitor = host.row("monitor")["pid"]
    begin = time.monotonic()
    os.kill(monitor, signal.SIGKILL)
    return begin


def kill_and_wait(host: Host, busy: bool = True) -> float:
    """Kills it and waits for the next one; where guests are `busy`, for its first call: seconds since the kill."""
    restarts = life(host)["restarts"]
    begin = kill(host)
    after = host.until(lambda: (now := life(host))["restarts"] > restarts and (now["first_call"] or not busy) and now)
    assert after["restarts"] == restarts + 1, "one death, one restart"
    return after["first_call"] - begin if busy else after["last_seconds"]


def exhaust(host: Host) -> None:
    """Kills every monitor at once until the host gives up."""
    killed = 0
    while not life(host)["given_up"]:
        monitor = host.row("monitor")["pid"]
        if monitor not in (None, killed):
            killed = monitor
            os.kill(monitor, signal.SIGKILL)
        time.sleep(0.01)

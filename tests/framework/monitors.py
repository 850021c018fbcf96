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
    restarts = host.row("monitor")["restarts"]
    begin = kill(host)
    host.until(lambda: host.row("monitor")["restarts"] > restarts)  # it costs hostd little to answer
    after = host.until(lambda: ((now := life(host))["first_call"] or not busy) and now)
    assert after["restarts"] == restarts + 1, "one death, one restart"
    return after["first_call"] - begin if busy else after["last_seconds"]


def exhaust(host: Host, name: str = "monitor") -> None:
    """Kills every process of a role at once until the host gives up. Asks nothing that a monitor would have to answer:
    waiting for it would give it a longer life."""
    killed, since = 0, host.events()[-1]["sequence"]
    while not any(news["kind"] == "failed" and news.get("partition") == name for news in host.events(since)):
        process = host.row(name)["pid"]
        if process not in (None, killed):
            killed = process
            os.kill(process, signal.SIGKILL)
        time.sleep(0.005)
    assert name != "monitor" or life(host)["given_up"]

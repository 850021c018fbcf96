"""Has a processor time to spare for all of its worlds (U6)? Then nobody has to take turns.

Told by the kernel's count of idle time, because worlds are not alone on a processor. It has steps of 10 ms, so it is
read over windows of 0.2 s, and by a thread of its own, because a machine with many processors has a long table.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Protocol

WINDOW = 0.2  # seconds
ENOUGH = 0.2  # part of a processor that is idle while worlds take turns: they need none
LEAST = 0.1  # part that is idle while they do not: less, and they have to
PAUSE, PAUSE_MAX = 1.0, 8.0  # seconds until turns are given up again, doubled each time that it was wrong


class Scheduled(Protocol):
    """A system world, as far as it is told."""

    contended: bool
    spare: bool


class Spare:
    """Whether worlds of one processor need turns. While they take turns a world that sleeps in its own leaves the
    processor idle for a moment, so idle time then is no proof: it is tried, and given up where it was wrong."""

    def __init__(self) -> None:
        self.spare = False
        self._pause = PAUSE
        self._next = 0.0

    def decide(self, idle: float, now: float) -> bool:
        """`idle`: part of the time since the last call in which the processor was; `now`: seconds of any clock."""
        if self.spare:
            self.spare = idle >= LEAST
            if self.spare:
                self._pause = PAUSE
            else:
                self._next = now + self._pause
                self._pause = min(self._pause * 2, PAUSE_MAX)
        else:
            self.spare = idle >= ENOUGH and now >= self._next
        return self.spare


def idle_seconds(text: str) -> dict[int, float]:
    """Processor -> seconds in which it was idle, since the machine started, from /proc/stat (proc(5): fields 4 and 5 of
    a processor's line)."""
    tick = os.sysconf("SC_CLK_TCK")
    found = {}
    for line in text.splitlines():
        name, *fields = line.split()
        if not name.startswith("cpu"):
            break
        if name != "cpu":
            found[int(name[3:])] = (int(fields[3]) + int(fields[4])) / tick
    return found


def watch(systems: dict[int, Scheduled], ended: threading.Event) -> None:
    """Tells each system world, while several of its worlds want to run, until `ended`."""
    judges = {number: Spare() for number in systems}
    since: dict[int, tuple[float, float]] = {}
    with open("/proc/stat") as file:
        while not ended.wait(WINDOW):
            contended = [number for number, system in systems.items() if system.contended]
            since = {number: then for number, then in since.items() if number in contended}
            if not contended:
                continue
            for number in contended:
                systems[number].contended = False  # until somebody waits again
            file.seek(0)
            idle, now = idle_seconds(file.read()), time.monotonic()
            for number in contended:
                if number in since and number in idle:
                    seconds, begin = since[number]
                    systems[number].spare = judges[number].decide((idle[number] - seconds) / (now - begin), now)
                since[number] = idle.get(number, 0.0), now

"""Threads of the kernel get their turn beside data threads (U10, A4).

The kernel ends a write past the page cache, a flush, a forced write and a discard by threads of its own. They are of
the normal class, and those of a disk's interrupt are bound to its processor: where data threads of a real-time class
poll on that one, nobody else gets in (on the path `redirect` 2,100 direct writes a second one by one, instead of
11,000). So while a disk has such requests, data threads are of the batch class (hostd.urgency). Writes past the page
cache that end on a processor of the others are none (hostd.disk_interrupts).

Each answer of a disk to a ping (hostd.pulse) tells how many it has had; HOLD seconds after the last one data threads
are what they were.
"""

from __future__ import annotations

import time
from typing import Any

from hostd.events import EventLog
from hostd.records import Record
from hostd.urgency import Urgency

HOLD = 2.0  # seconds: whoever writes now and then does not wait for a look each time
AGAIN = 1.0  # seconds: roles that have started meanwhile are lowered, too


class KernelWork:
    """What disks have told of it."""

    def __init__(self, urgency: Urgency, events: EventLog) -> None:
        self._urgency = urgency
        self._events = events
        self._ended: dict[str, tuple[int, int]] = {}  # disk -> its process, and requests so far
        self._last = self._lowered = 0.0
        self.disk = ""  # for which data threads are of the batch class; empty: for none
        self._told = False

    def heard(self, record: Record, heart: dict[str, Any]) -> None:
        """What a role has answered to a ping."""
        now = time.monotonic()
        told = heart.get("kernel")
        if told is not None:
            process, ended = self._ended.get(record.name, (None, 0))
            self._ended[record.name] = (record.process, told["ended"])
            if told["begun"] != told["ended"] or process == record.process and ended != told["ended"]:
                self._seen(record.name, now)
        if self.disk and now - self._last > HOLD:
            self.disk = ""
            self._urgency.raise_data()
            if self._told:
                self._told = False
                self._events.publish("data_threads", lowered=False)

    def _seen(self, disk: str, now: float) -> None:
        self._last = now
        if now - self._lowered < AGAIN:
            return
        self._lowered = now
        self.disk = self.disk or disk
        if self._urgency.lower_data() and not self._told:  # else nobody was above: the right is missing
            self._told = True
            self._events.publish("data_threads", lowered=True, partition=disk)

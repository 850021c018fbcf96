"""What is taken from guests is taken in time, although data threads are of a real-time class (U5; design.md section 3).

A data thread lets no thread of the normal class in on its processor. A control process that waits there goes on when
the kernel's balancing moves it elsewhere: with two processors, both with other work, up to 0.7 s later. So while
something is being revoked the control threads on the way to the receipt stand above the data threads, for the few ms
that they need.
Where the right is missing data threads are of the normal class, too, and nothing changes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from hostd import procfs
from hostd.boot import CONTROL_PLANE
from hostd.keeper import Keeper
from hostd.records import Record

PRIORITY = 20  # of SCHED_RR: above data threads (hostd.fabric), below system worlds
TYPES = (*CONTROL_PLANE, "monitor", "io", "device")


class Urgency:
    """Of hostd's own thread, the keeper, and the control threads of the roles in `records`."""

    def __init__(self, records: Mapping[str, Record], keeper: Keeper) -> None:
        self._records = records
        self._keeper = keeper
        self._holders = 0

    @contextmanager
    def raised(self) -> Iterator[None]:
        """Inside, they stand above the data threads. One that starts meanwhile does not."""
        if self._holders == 0:
            self._put(os.SCHED_RR, PRIORITY)
        self._holders += 1
        try:
            yield
        finally:
            self._holders -= 1
            if self._holders == 0:
                self.end()

    def end(self) -> None:
        """Nothing is urgent: also what a hostd that was killed had raised."""
        self._put(os.SCHED_OTHER, 0)

    def _put(self, policy: int, priority: int) -> None:
        roles = [one for one in self._records.values() if one.type in TYPES and one.exit_status is None]
        for thread in [threading.get_native_id(), self._keeper.pid, *(pid for one in roles for pid in _living(one))]:
            with suppress(ProcessLookupError, PermissionError):
                # What they start is of the normal class.
                os.sched_setscheduler(thread, policy | os.SCHED_RESET_ON_FORK, os.sched_param(priority))


def _living(role: Record) -> list[int]:
    """Its pid, unless the process has gone and the number may be another one's."""
    with suppress(OSError):
        if role.pid is not None and procfs.start_time(role.pid) == role.start_ticks:
            return [role.pid]
    return []

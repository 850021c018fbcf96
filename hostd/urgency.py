"""What is taken from guests is taken in time, although data threads are of a real-time class (U5; design.md section 3).

A data thread lets no thread of the normal class in on its processor, for up to a second where it has work: neither a
control process that waits there until the kernel's balancing moves it, nor workers of the kernel, which no balancing
moves and which a durable commit may wait for. So while something is being revoked or granted, control threads stand
above data threads, and data threads are of the batch class, above what else the machine does: for the few ms that it
takes.
Where the right is missing data threads are of the normal class all the time, and nothing changes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import chain

from hostd import fabric, families, procfs
from hostd.boot import CONTROL_PLANE
from hostd.drivers import Drivers
from hostd.keeper import Keeper
from hostd.records import Record

PRIORITY = 20  # of SCHED_RR, of control threads: above data threads (hostd.fabric), below system worlds
NICE = -10  # of data threads in the class SCHED_BATCH, in which nobody else of a role is: so they are found again
DATA_PLANE = ("monitor", "io", "device")


class Urgency:
    """Of hostd's own thread, the keeper, and the threads of the roles in `records`."""

    def __init__(self, records: Mapping[str, Record], keeper: Keeper, drivers: Drivers) -> None:
        self._records = records
        self._keeper = keeper
        self._drivers = drivers
        self._holders = 0
        self._lowered = False  # also while nobody holds it

    @contextmanager
    def raised(self) -> Iterator[None]:
        """Inside, control comes first. A role that starts meanwhile has no part in it."""
        if self._holders == 0:
            self._lower_data()
            self._put_control(os.SCHED_RR, PRIORITY)
        self._holders += 1
        try:
            yield
        finally:
            self._holders -= 1
            if self._holders == 0:
                self._end()

    @contextmanager
    def following(self) -> Iterator[None]:
        """Inside, a hostd that follows a killed one asks every role what it knows; itself it is in haste as long as it
        likes (hostd.haste). What that one had begun is over. Data threads stay as they are: nothing is durable here."""
        self._restore_data()
        self._put_roles(os.SCHED_RR, PRIORITY)
        try:
            yield
        finally:
            self._put_roles(os.SCHED_OTHER, 0)

    def lower_data(self) -> bool:
        """Until `raise_data` data threads are of the batch class, those of roles that have started since the last call,
        too (hostd.kernel_work). False: none was of a real-time class."""
        self._lowered = True
        return self._lower_data()

    def raise_data(self) -> None:
        self._lowered = False
        if self._holders == 0:
            self._restore_data()

    def _end(self) -> None:
        if not self._lowered:
            self._restore_data()
        self._put_control(os.SCHED_OTHER, 0)

    def _put_control(self, policy: int, priority: int) -> None:
        _put(threading.get_native_id(), policy, priority)
        self._put_roles(policy, priority)

    def _put_roles(self, policy: int, priority: int) -> None:
        for thread in [self._keeper.pid, *self._living((*CONTROL_PLANE, *DATA_PLANE))]:
            _put(thread, policy, priority)

    def _lower_data(self) -> bool:
        changed = False
        for thread in self._data_threads(os.SCHED_RR):
            with suppress(ProcessLookupError, PermissionError):
                if os.sched_getparam(thread).sched_priority == fabric.PRIORITY:
                    os.setpriority(os.PRIO_PROCESS, thread, NICE)
                    os.sched_setscheduler(thread, os.SCHED_BATCH, os.sched_param(0))
                    changed = True
        return changed

    def _restore_data(self) -> None:
        for thread in self._data_threads(os.SCHED_BATCH):
            with suppress(ProcessLookupError, PermissionError):
                os.sched_setscheduler(thread, os.SCHED_RR, os.sched_param(fabric.PRIORITY))

    def _data_threads(self, policy: int) -> Iterator[int]:
        """Threads of that class, of whoever has data threads, and those of guests that run beside them."""
        roles = (thread for pid in self._living(DATA_PLANE) for thread in families.threads_of(pid))
        for thread in chain(roles, self._drivers.threads()):
            with suppress(ProcessLookupError):
                if os.sched_getscheduler(thread) == policy:
                    yield thread

    def _living(self, types: tuple[str, ...]) -> Iterator[int]:
        """Pids of such roles, but for those that have gone: their numbers may be other processes' by now."""
        for role in [one for one in self._records.values() if one.type in types and one.exit_status is None]:
            with suppress(OSError):
                if role.pid is not None and procfs.start_time(role.pid) == role.start_ticks:
                    yield role.pid


def _put(thread: int, policy: int, priority: int) -> None:
    """What it starts is of the normal class."""
    with suppress(ProcessLookupError, PermissionError):
        os.sched_setscheduler(thread, policy | os.SCHED_RESET_ON_FORK, os.sched_param(priority))

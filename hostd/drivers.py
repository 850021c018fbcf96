"""The virtual drivers of unmodified programs run beside the data plane, as a virtual machine's I/O threads do (H7).

A program with network interfaces has a process above it, whose threads move frames between its TAPs and the rings of
its partition (partitions.program). On the guests' processors they take turns with the program, which fills its TAP
meanwhile until the kernel drops: of datagrams of 64 bytes eight of nine were lost so. On a data thread's processor
and in its class they and the data threads hand the processor to each other, after at most 32 frames each way.

So what a program sends costs time there, too: `host.drivers: guests` keeps drivers with their guests, which is the
choice where guests are not to slow each other down. They stay there, too, where worlds are scheduled, because a held
guest's driver stands with it; where the processors are the same; and where a real-time class is denied: in the normal
one they would wait for data threads that poll.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

from hostd import fabric, families, procfs
from hostd.boot import Boot
from hostd.records import Record, is_python


class Drivers:
    """Of all guests of a host."""

    def __init__(self, boot: Boot) -> None:
        self._boot = boot

    @property
    def _apart(self) -> bool:
        host, processors = self._boot.manifest.host, self._boot.processors
        shared = set(processors.infrastructure) & set(processors.guests)
        return host.drivers == "infrastructure" and host.scheduling.mechanism == "none" and not shared

    def place(self, record: Record) -> None:
        """Those of a guest that has just been started."""
        for thread in self._threads_of(record):
            with suppress(ProcessLookupError, PermissionError):
                os.sched_setscheduler(thread, os.SCHED_RR, os.sched_param(fabric.PRIORITY))
                os.sched_setaffinity(thread, self._boot.processors.infrastructure)

    def threads(self) -> Iterator[int]:
        """All that have been placed, or would have been, were there the right."""
        for record in self._boot.records.values():
            yield from self._threads_of(record)

    def _threads_of(self, record: Record) -> set[int]:
        """Without the first one, which waits for the program's end."""
        if not self._apart or not has_driver(record) or record.pid is None or record.exit_status is not None:
            return set()
        with suppress(OSError):
            if procfs.start_time(record.pid) == record.start_ticks:  # else the number may be another process's by now
                return families.threads_of(record.pid) - {record.pid}
        return set()


def has_driver(record: Record) -> bool:
    """Whether there is a process above its program that moves frames."""
    return record.type == "guest" and bool(record.spec.nics) and not is_python(record.spec.program[0])

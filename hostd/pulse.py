"""Does a role still answer? One that hangs is killed, and then it has died like any other (rules.md 22).

A role answers hostd's pings in the same loop that does its work. One that has not answered for SILENT seconds and does
not run (it is stopped, or sleeps although a ping lies before it) hangs; one that runs, or waits for a processor, for a
medium, or for a keeper that is busy with its memory, gets BUSY seconds. A false alarm costs only latency: what was
asked is asked again. No answer counts as many looks, so a hostd that itself stood still takes nobody for hung.

The answers of devices and monitor tell of their data threads, too: one begins a round every second at least. One that
does not and is stopped hangs after SILENT seconds; one that runs in circles, or waits for another thread or the time,
after BUSY seconds. One that waits for a medium does not hang: its next process would have to wait as well.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hostd import syscalls
from hostd.events import EventLog
from hostd.keeper import Keeper
from hostd.records import Record
from hostd.wire import RemoteError, WireError

PERIOD = 0.25  # seconds between two looks
SILENT, BUSY = 2.0, 20.0
LOOKS = 6
KEEPER_TIMEOUT = 1.0
STOPPED = ("T", "t")  # states of a process in /proc
ASLEEP = ("S", "D")
WAITS = ("futex", "futex_waitv", "clock_nanosleep", "nanosleep")  # calls in which nothing waits for a medium
SLEEPERS = ("monitor", "io", "device")  # types of roles that may wait for guests or a medium before they answer


class _Ping:
    """One that lies before a role."""

    def __init__(self, answer: asyncio.Task[dict[str, Any] | None], process: int) -> None:
        self.answer = answer
        self.process = process
        self.since = time.monotonic()
        self.looks = 0


@dataclass
class _Heart:
    """Of a data thread: its rounds by then."""

    process: int
    beats: int
    since: float
    looks: int = 0


class Pulse:
    """Of the roles that `watched()` names at each look. `kill(record)` ends one that hangs; `heard` is told what each
    has answered of its data thread."""

    def __init__(
        self,
        keeper: Keeper,
        watched: Callable[[], Iterable[Record]],
        kill: Callable[[Record], None],
        events: EventLog,
        heard: Callable[[Record, dict[str, Any]], None] = lambda _record, _heart: None,
    ) -> None:
        self._keeper = keeper
        self._watched = watched
        self._kill = kill
        self._events = events
        self._heard = heard
        self._pings: dict[str, _Ping] = {}
        self._hearts: dict[str, _Heart] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
        for ping in self._pings.values():
            ping.answer.cancel()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(PERIOD)
            for record in list(self._watched()):
                await self._look(record)

    async def _look(self, record: Record) -> None:
        ping = self._pings.get(record.name)
        if record.exit_status is not None or record.wire is None or record.absence is None or record.absence.absent:
            self._forget(record)
        elif ping is not None and ping.answer.done() and self._stands_still(record, ping):
            self._end(record, self._hearts.pop(record.name).since)
        elif ping is None or ping.answer.done() or ping.process != record.process:
            self._forget(record)
            self._pings[record.name] = _Ping(asyncio.create_task(_answer(record)), record.process)
        elif any(self._waits_for(one) for one in record.behind.values()):
            ping.since, ping.looks = time.monotonic(), 0  # whoever asks one that does not answer does not answer either
        else:
            ping.looks += 1
            if await self._hangs(record, ping):
                self._end(record, ping.since)

    def _end(self, record: Record, since: float) -> None:
        self._events.publish("hung", partition=record.name, seconds=time.monotonic() - since)
        self._forget(record)
        self._kill(record)

    def _stands_still(self, record: Record, ping: _Ping) -> bool:
        """Does its data thread hang, as the answer tells?"""
        told = None if ping.answer.cancelled() or ping.process != record.process else ping.answer.result()
        heart = told and told.get("heart")
        if not heart:
            return False
        self._heard(record, heart)
        before = self._hearts.get(record.name)
        if before is None or (before.process, before.beats) != (record.process, heart["beats"]):
            self._hearts[record.name] = _Heart(record.process, heart["beats"], time.monotonic())
            return False
        before.looks += 1
        silent = time.monotonic() - before.since
        if before.looks < LOOKS or silent < SILENT:
            return False
        state = _state(f"/proc/{record.pid}/task/{heart['thread']}")
        return state in STOPPED or (silent >= BUSY and (state == "R" or _idles(record.pid, heart["thread"])))

    async def _hangs(self, record: Record, ping: _Ping) -> bool:
        silent = time.monotonic() - ping.since
        if ping.looks < LOOKS or silent < SILENT:
            return False
        if silent >= BUSY:
            return True
        if not _still(record) or not await self._keeper_answers():
            return False
        return not ping.answer.done() and record.process == ping.process and _still(record)

    def _waits_for(self, role: Record) -> bool:
        """It is away, or does not answer now."""
        ping = self._pings.get(role.name)
        return role.absence is None or role.absence.absent or (ping is not None and ping.looks > 0)

    async def _keeper_answers(self) -> bool:
        """It serves one after the other: the ultravisor may be waiting for memory."""
        with suppress(TimeoutError):
            async with asyncio.timeout(KEEPER_TIMEOUT):
                await self._keeper.list()
                return True
        return False

    def _forget(self, record: Record) -> None:
        ping = self._pings.pop(record.name, None)
        if ping is not None:
            ping.answer.cancel()


async def _answer(record: Record) -> dict[str, Any] | None:
    """Asks this process, not the next one."""
    assert record.wire is not None
    with suppress(RemoteError, WireError, OSError, EOFError):
        return (await record.wire.request({"op": "ping"}, timeout=None))[0]
    return None


def _still(record: Record) -> bool:
    """Is it stopped, or does it sleep where nothing but a request can be waited for?"""
    state = _state(f"/proc/{record.pid}")
    return state in STOPPED or (state in ASLEEP and record.type not in SLEEPERS)


def _state(folder: str) -> str:
    """Letter of a process or thread; nothing where it has ended."""
    with suppress(OSError, IndexError):
        return Path(folder, "stat").read_text().rpartition(")")[2].split()[0]
    return ""


def _idles(pid: int | None, thread: int) -> bool:
    """Does it sleep, and neither for a medium nor for a page of memory?"""
    with suppress(OSError, ValueError, IndexError):
        found = int(Path(f"/proc/{pid}/task/{thread}/syscall").read_text().split()[0])
        return syscalls.call_name(found) in WAITS
    return False

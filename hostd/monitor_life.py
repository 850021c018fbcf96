"""The monitor's death, and the next monitor (design.md sections 6 and 11).

    killed -> the keeper's pidfd tells -> guests that it held go on -> a clone of the template adopts everything
           -> event `monitor_restarted`

Guests see a pause. A monitor that dies again and again is given up: I/O by it waits then until
`hostctl restart monitor`, or fails until unload and load.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from hostd.asking import Absence, ask, reviving
from hostd.boot import Boot
from hostd.errors import HostError
from hostd.events import EventLog
from hostd.records import Record
from hostd.wire import RemoteError, WireError

SHORT = 0.3  # seconds: a monitor that works less long than that has had a short life
SHORT_LIVES_MAX = 5  # in a row
RESTARTS_MAX, WINDOW = 60, 60.0  # restarts within so many seconds, however long it lived
FIRST_DELAY, LONGEST_DELAY = 0.05, 1.0  # seconds before a restart after a short life; doubles with each
PASSING = ("unreachable", "timeout")  # errors of a request that may succeed later
END_TIMEOUT = 5.0  # seconds for a killed process to be gone


class Budget:
    """How often a role is started again, and after which delay."""

    def __init__(self) -> None:
        self._short = 0
        self._starts: list[float] = []

    def delay(self, now: float, lived: float) -> float | None:
        """Seconds to wait before the next start, after a life of `lived` seconds; None: no more starts."""
        self._short = self._short + 1 if lived < SHORT else 0
        self._starts = [start for start in self._starts if now - start < WINDOW]
        if self._short > SHORT_LIVES_MAX or len(self._starts) >= RESTARTS_MAX:
            return None
        self._starts.append(now)
        return min(FIRST_DELAY * 2 ** (self._short - 1), LONGEST_DELAY) if self._short else 0.0


class RoleLife:
    """A role that is started again when it dies. `follow(record)` starts the next one and has it adopt everything;
    `lost(record)` is called where none follows."""

    NEWS: tuple[str, str]  # events: lost, restarted

    def __init__(
        self,
        boot: Boot,
        follow: Callable[[Record], Awaitable[dict[str, Any]]],
        events: EventLog,
        lost: Callable[[Record], Awaitable[None]],
    ) -> None:
        self._boot = boot
        self._children = boot.children
        self._follow = follow
        self._events = events
        self._lost = lost
        self._budget = Budget()
        self._task: asyncio.Task[None] | None = None
        self._recordings: set[asyncio.Task[None]] = set()
        self._dead = asyncio.Event()
        self._since = 0.0  # when it began its work
        self.last_seconds: float | None = None  # that the last one took

    def asks_first(self, record: Record) -> tuple[Record, ...]:
        """Whom the task that starts the next one asks without waiting until they are there."""
        return (record,)

    def watch(self, record: Record) -> None:
        """From now on it is started again when it dies; one that an earlier hostd has given up, not before `again`."""
        given_up = record.absence is not None and record.absence.given_up
        record.absence = Absence(given_up)
        self._since = time.monotonic()
        self.last_seconds, self._budget = None, Budget()
        if record.exit_status is not None and not given_up:  # while others were still being started
            self.died(record)

    async def rest(self, record: Record | None) -> None:
        """No more, for it is to end; returns when none is being started."""
        if self._task is not None:
            await asyncio.wait([self._task])
        if record is not None:
            record.absence = None

    def stop(self) -> None:
        """The host goes down."""
        for task in (self._task, *self._recordings):
            if task is not None:
                task.cancel()

    def died(self, record: Record) -> bool:
        """Its process has ended. False: it is not started again."""
        self._dead.set()
        if record.absence is None or record.absence.given_up or record.stop_asked:
            return False
        if self._task is None:
            record.absence.begin()
            self._task = asyncio.create_task(self._revive(record, time.monotonic()))
        return True

    def again(self, record: Record) -> None:
        """By hand: its process is ended, or begun where it was given up; all its deaths are forgotten."""
        self._budget = Budget()
        if record.absence.given_up:
            record.absence.begin()
            self._task = asyncio.create_task(self._revive(record, time.monotonic()))
        elif not record.absence.absent:
            self._children.signal(record, signal.SIGKILL)

    async def _revive(self, record: Record, noticed: float) -> None:
        reviving.set(self.asks_first(record))
        self._events.publish(self.NEWS[0], partition=record.name, status=record.exit_status)
        lived = noticed - self._since
        try:
            while (delay := self._budget.delay(time.monotonic(), lived)) is not None:
                self._let_go(record)
                record.state = "failed"
                await asyncio.sleep(delay)
                stages = await self._attempt(record)
                lived = 0.0
                if stages is not None and record.exit_status is None:
                    self._returned(record, noticed, stages)
                    return
        except BaseException:
            record.absence.end(given_up=True)
            raise
        finally:
            self._task = None  # in one step with what was looked at last: a death from now on begins another task
        record.absence.end(given_up=True)
        await self._lost(record)

    def _let_go(self, record: Record) -> None:
        """What the dead one held."""

    def _returned(self, record: Record, noticed: float, stages: dict[str, Any]) -> None:
        self._since = time.monotonic()
        record.restarts += 1
        self.last_seconds = self._since - noticed
        record.state = "running"
        record.absence.end()
        self._events.publish(
            self.NEWS[1], partition=record.name, pid=record.pid, restarts=record.restarts,
            seconds=self.last_seconds, stages=stages,
        )  # fmt: skip
        task = asyncio.create_task(self._record(record))
        self._recordings.add(task)
        task.add_done_callback(self._recordings.discard)

    async def _record(self, record: Record) -> None:
        """The database follows, however long nobody can be asked; nobody waits for it, and it waits for everybody."""
        reviving.set(())
        process, delay = record.process, FIRST_DELAY
        while record.process == process and self._boot.records.get(record.name) is record:
            try:
                return await self._boot.record_again(record)
            except (RemoteError, WireError, OSError, EOFError) as error:
                self._events.publish("error", partition=record.name, message=f"its process is not on record: {error}")
                if getattr(error, "code", "unreachable") not in PASSING:
                    return None
            await asyncio.sleep(delay)
            delay = min(2 * delay, LONGEST_DELAY)
        return None

    async def _attempt(self, record: Record) -> dict[str, Any] | None:
        """One start; None where it failed, and nothing of it lives then."""
        status = record.exit_status
        try:
            if record.process:  # 0: the last start had not come so far
                await self._children.forget(record)
            record.exit_status, record.pid, record.process, record.untold = None, None, 0, None
            self._dead.clear()
            return await self._follow(record)
        except (RemoteError, HostError, WireError, OSError, EOFError) as error:
            self._events.publish("error", partition=record.name, message=f"{record.name} again: {error}")
            if record.pid is None:
                record.exit_status = status  # there was no other process
            elif record.exit_status is None:
                self._children.signal(record, signal.SIGKILL)
                with suppress(TimeoutError):
                    async with asyncio.timeout(END_TIMEOUT):
                        await self._dead.wait()
            return None


class MonitorLife(RoleLife):
    """`follow` is hostd.adoption's; `freed(record)` lets guests go on that the dead monitor held."""

    NEWS = ("monitor_lost", "monitor_restarted")

    def __init__(self, *arguments: Any, freed: Callable[[Record], None]) -> None:
        super().__init__(*arguments)
        self._freed = freed

    def _let_go(self, record: Record) -> None:
        self._freed(record)

    async def row(self, record: Record | None) -> dict[str, Any]:
        """{"restarts", "last_seconds", "given_up", "first_call"}: monotonic time at which the present one took calls
        first; None: not yet, or there is none."""
        given_up = record is not None and record.absence is not None and record.absence.given_up
        first = None
        with suppress(RemoteError):
            first = (await ask(record, "first_call", {}))["ns"] / 1e9 or None if record is not None else None
        restarts = record.restarts if record is not None else 0
        return {"restarts": restarts, "last_seconds": self.last_seconds, "given_up": given_up, "first_call": first}

"""How the process of a partition is ended: asked first, killed after a while, out of the data plane at the return; and
how one that has ended is removed."""

from __future__ import annotations

import asyncio
import secrets
import signal
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from hostd import traps
from hostd.asking import ask, reviving
from hostd.boot import Boot
from hostd.children import Children
from hostd.errors import HostError
from hostd.fabric import Fabric
from hostd.keeper import Keeper
from hostd.monitor_life import FIRST_DELAY, LONGEST_DELAY, PASSING
from hostd.records import ENDED, Record
from hostd.refusals import Refusals
from hostd.wire import RemoteError, WireError


class Endings:
    """Part of the supervisor, which owns what is named here without a value."""

    keeper: Keeper
    fabric: Fabric
    records: dict[str, Record]
    _boot: Boot
    _children: Children
    _refusals: Refusals
    _changed: asyncio.Condition
    _telling: set[asyncio.Task[None]]
    note: Callable[[Record], Coroutine[Any, Any, None]]

    async def _transaction(self, operations: Sequence[dict[str, Any]]) -> Sequence[Any]:
        raise NotImplementedError

    async def _notify(self, kind: str, record: Record, **more: Any) -> None:
        raise NotImplementedError

    async def _until_ended(self, record: Record) -> None:
        raise NotImplementedError

    async def _terminate(self, record: Record, timeout: float) -> None:
        """SIGTERM, SIGKILL after `timeout` seconds; returns when the guest is out of the data plane."""
        if record.pid is None:
            raise HostError("state", f"{record.name} has no process yet: it is being started")
        if not record.stop_asked and record.exit_status is None:
            record.stop_asked = True
            try:
                await self._stopping(record)
            except BaseException:
                record.stop_asked = False
                raise
        await self._end_process(record, timeout)

    async def _end_process(self, record: Record, timeout: float) -> None:
        self._children.signal(record, signal.SIGTERM)
        try:
            async with asyncio.timeout(timeout):
                await self._until_ended(record)
        except TimeoutError:
            self._children.signal(record, signal.SIGKILL)
            await self._until_ended(record)
        async with self._changed:
            await self._changed.wait_for(lambda: record.state in ENDED)

    async def _stopping(self, record: Record) -> None:
        """The guest may end by itself meanwhile: then its end is its state."""
        try:
            await self._transaction([{"op": "partition.state", "partition": record.number, "state": "stopping"}])
        except RemoteError as error:
            # Without the database a guest can still be ended.
            if record.exit_status is None and error.code != "unreachable":
                raise
        if record.exit_status is None:
            record.state = "stopping"
            await self._notify("stopping", record)

    # ---- one that has ended ----

    def _tell_later(self, record: Record) -> None:
        task = asyncio.create_task(self._tell_end(record))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell_end(self, record: Record) -> None:
        """The database hears of an end that nobody could be told of at first, however long that takes: otherwise a
        partition that has ended runs in it until somebody compares."""
        reviving.set(())
        delay = FIRST_DELAY
        while record.untold is not None and self.records.get(record.name) is record:
            await asyncio.sleep(delay)
            delay = min(2 * delay, LONGEST_DELAY)
            with suppress(RemoteError, WireError, OSError, EOFError):
                await self._tell_untold(record)
                await self.note(record)

    async def _tell_untold(self, record: Record) -> None:
        """RemoteError where nobody can be told of the end."""
        if record.untold is not None:
            state = await self._record_end(record, record.untold)
            if record.state in ENDED:
                record.state = state
            record.untold = None

    async def _record_end(self, record: Record, state: str) -> str:
        """Tells the database in which state one has ended. Returns in which it has: the database may have found that
        out by itself, or heard it from an earlier hostd that did not note it. RemoteError where nobody can be told."""
        try:
            await self._boot.record_end(record, state)
        except RemoteError as error:
            if error.code in PASSING:
                raise
            rows = {"what": "partition", "partition": record.number}
            with suppress(RemoteError):  # it is not there any more
                found = (await ask(self.records["command"], "query", rows))["partition"]["partition"]["state"]
                return found if found in ENDED else state
        return state

    async def _discard(self, record: Record, key: str | None = None, actor: str = "hostd") -> None:
        """Its rows go first, then what hostd and keeper know of it, its note last: whoever dies in between has the next
        hostd find the note, and go on. Each step may have been done already."""
        await self._tell_untold(record)  # one with a process on record is not removed
        message = {"partition": record.number, "actor": actor, "key": key or secrets.token_hex(12)}
        try:
            await ask(self.records["command"], "remove", message)
        except RemoteError as error:
            if error.code != "not_found":
                raise
        await self.fabric.forget(record)
        if record.process:
            await self._children.forget(record)
            if record.type == "guest":
                await self.keeper.release(f"{record.name}:{record.process}:lifecycle")
            await traps.release(self.keeper, record)
            await self._refusals.forget(record)
        self.records.pop(record.name, None)
        await self._boot.notes.forget(record)
        async with self._changed:
            self._changed.notify_all()

"""Requests of hostd to the roles. One that is started again when it dies is waited for, and asked again.

Whoever asks the monitor need not know that there has been another one: what was asked of the dead one, and not
answered, is asked of the next. So the monitor's operations can all be asked twice: `open` of a partition that is open
is the only one that cannot, and hostd adopts no partition whose `open` was not answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, TypeVar

from hostd.records import Record
from hostd.wire import RemoteError, WireError, close_fds

Answer = TypeVar("Answer")

TIMEOUT = 30.0  # seconds for an answer
NOTICE = 5.0  # seconds in which a death is noticed: the end of the wire comes a little earlier

# In the task that starts the next process of a role: those whom the task asks before all others, without waiting.
reviving: ContextVar[tuple[Record, ...]] = ContextVar("reviving", default=())


class Absence:
    """Between the death of a role's process and the work of the next one. `given_up`: there will be no next one."""

    def __init__(self, given_up: bool = False) -> None:
        self._over = asyncio.Event()
        self._noticed = asyncio.Event()
        self.end(given_up)

    def begin(self) -> None:
        self.given_up = False
        self._over.clear()
        self._noticed.set()

    def end(self, given_up: bool = False) -> None:
        """Given up, also of one that lives or is about to die: nobody waits for its death to be noticed."""
        self.given_up = given_up
        if given_up:
            self._noticed.set()
        else:
            self._noticed.clear()
        self._over.set()

    @property
    def absent(self) -> bool:
        return not self._over.is_set()

    async def over(self) -> None:
        await self._over.wait()

    async def noticed(self) -> None:
        """Waits for a death that must have been, for at most NOTICE seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(NOTICE):
                await self._noticed.wait()

    async def followed(self, record: Record, wire: Any) -> bool:
        """After `wire` has ended: is there a next process?"""
        try:
            async with asyncio.timeout(NOTICE):
                while record.wire is wire and not self.given_up and not self._noticed.is_set():
                    await self._noticed.wait()
        except TimeoutError:
            return False
        await self.over()
        return record.wire is not wire and not self.given_up


async def ask(
    record: Record, op: str, message: dict[str, Any], fds: list[int] | None = None, timeout: float | None = TIMEOUT
) -> dict[str, Any]:
    """One request to a role; the reply's fields. RemoteError with its error, or `unreachable` where it has ended and is
    not started again. `timeout`: seconds for one answer; None: as long as it lives."""
    while True:
        absence = record.absence  # of a role that is to end there is none any more, also while it is being asked
        waits = absence is not None and all(one is not record for one in reviving.get() or ())
        if waits:
            await absence.over()
        if waits and record.wire is None and not absence.given_up:  # a hostd that adopts has not come to its end yet
            await absence.noticed()
            await absence.over()
        wire = record.wire
        if wire is None:
            raise RemoteError("unreachable", f"{record.name} has ended")
        seen = {name: one.restarts for name, one in record.behind.items()}
        try:
            reply, received = await wire.request({"op": op, **message}, fds or [], timeout=timeout)
        except RemoteError as error:
            behind = record.behind.get(error.details.get("role", "")) if error.code == "unreachable" else None
            if behind is None or not waits or not await _comes_back(behind, seen[behind.name]):
                raise
        except (EOFError, WireError) as error:
            if not waits or not await absence.followed(record, wire):
                raise RemoteError("unreachable", f"{record.name} does not answer: {error}") from error
        else:
            close_fds(received)
            return reply


async def _comes_back(role: Record, restarts: int) -> bool:
    """After somebody did not reach a role that had been started again so many times: is there a next process?"""
    absence = role.absence
    if absence is None:
        return False
    if role.restarts == restarts:
        await absence.noticed()
    await absence.over()
    return role.restarts != restarts and not absence.given_up


async def release(role: Record, op: str, message: dict[str, Any]) -> dict[str, Any]:
    """Has a role give something up; its reply. One that has ended holds nothing any more, and says nothing."""
    try:
        return await ask(role, op, message)
    except RemoteError as error:
        if error.code != "unreachable":
            raise
    return {}


async def persist(attempt: Callable[[], Awaitable[Answer]]) -> Answer:
    """`attempt`, again and again while a role says that its time was too short: the kernel has not let go yet."""
    while True:
        try:
            return await attempt()
        except RemoteError as error:
            if error.code != "timeout":
                raise
        await asyncio.sleep(0)

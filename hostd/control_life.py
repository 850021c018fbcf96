"""Ultravisor, command and operations partition: each may die or hang; the next one goes on from its file (design.md 9).

    dead or hung -> event `role_lost` -> next process, over boot wires to the others -> event `role_restarted`
    -> database and processes are compared both ways -> services by system calls again

No other process depends on them: guests and the data plane do not notice. What hostd asked for and was not answered is
asked again, under the same key, so it happens once (rule 34).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from socket import socket
from typing import Any

from hostd.asking import ask, reviving
from hostd.boot import CONTROL_PLANE, Boot
from hostd.errors import HostError
from hostd.events import EventLog
from hostd.loading import Loading
from hostd.monitor_life import RoleLife
from hostd.records import Record
from hostd.wire import RemoteError, WireError, pair

SERVICES = ("ultravisor", "operations")  # of the command partition
FIRST_RETRY, LONGEST_RETRY = 0.1, 5.0  # seconds before services are opened once more; doubles
FAILURES = (HostError, RemoteError, WireError, OSError, EOFError, TimeoutError)


class OneLife(RoleLife):
    """Of one of these roles; who revives one of them asks the others without waiting for them. `disturbed(record)`:
    called at once where one has died."""

    NEWS = ("role_lost", "role_restarted")

    def __init__(self, *arguments: Any, disturbed: Callable[[Record], None]) -> None:
        super().__init__(*arguments)
        self._disturbed = disturbed

    def died(self, record: Record) -> bool:
        self._disturbed(record)
        return super().died(record)

    def asks_first(self, record: Record) -> tuple[Record, ...]:
        return tuple(self._boot.records[name] for name in CONTROL_PLANE)


class ControlLife:
    """`spared()` names partitions that hostd knows, living or being started: nobody else's business. `lost(record)` is
    called where a role is given up, `note()` where the next hostd has to know of other channels."""

    def __init__(
        self,
        boot: Boot,
        loading: Loading,
        events: EventLog,
        spared: Callable[[], list[str]],
        lost: Callable[[Record], Awaitable[None]],
        note: Callable[[], Awaitable[None]],
    ) -> None:
        self._note = note
        self._boot = boot
        self._loading = loading
        self._events = events
        self._spared = spared
        self._wiring = asyncio.Lock()
        loading.rewire = self.rewire
        self._reopening: asyncio.Task[None] | None = None
        self._to_reopen = False  # there has been another process of one of them since services were opened
        self.reachable = asyncio.Event()  # all that live have their wires: a hostd that adopts takes over one by one
        self.adopted = asyncio.Event()  # what a dead hostd left in the database has been looked at
        self._to_compare = False  # there has been another ultravisor since database and processes were compared
        self.lives = {
            name: OneLife(boot, self._follow, events, lost, disturbed=loading.disturbed) for name in CONTROL_PLANE
        }

    def watch(self) -> None:
        """They run: from now on each is started again when it dies."""
        for name, life in self.lives.items():
            life.watch(self._boot.records[name])
        self._boot.records["command"].behind = {name: self._boot.records[name] for name in SERVICES}

    def stop(self) -> None:
        """The host goes down."""
        for life in self.lives.values():
            life.stop()
        if self._reopening is not None:
            self._reopening.cancel()

    async def rest(self) -> None:
        """Services are not opened any more, for the kernel goes."""
        if self._reopening is not None:
            self._reopening.cancel()
            await asyncio.wait([self._reopening])
            self._reopening = None

    # ---- the next process ----

    async def _follow(self, record: Record) -> dict[str, float]:
        """Starts the next one and connects it to those of the others that live; the rest will do so when they come."""
        await self.reachable.wait()
        async with self._wiring:
            if record.name == "command":
                with pairs() as (ultravisor, operations):
                    for name, ends in zip(SERVICES, (ultravisor, operations), strict=True):
                        await self._tell(name, "channel_closed", {"peer": "command"}, ends[0])
                        ends[0].close()  # with it open command would wait for an answer of one that died meanwhile
                    fds = {"ultravisor": ultravisor[1].fileno(), "operations": operations[1].fileno()}
                    await self._boot.start_control(record, fds)
            else:
                with pairs() as ((own, other), _):
                    await self._boot.start_control(record, {"command": own.fileno()})
                    own.close()
                    await self._tell("command", "boot_wire", {"service": record.name}, other)
            await ask(record, "ping", {})  # one that cannot use its file says so here
        self._to_compare |= record.name == "ultravisor"
        self.reopen()
        return {}

    def reopen(self) -> None:
        """Has services opened by system calls, and database and processes compared where that is due."""
        self._to_reopen = self._loading.reopening = True
        if self._reopening is None or self._reopening.done():
            self._reopening = asyncio.create_task(self._settle())
            self._reopening.add_done_callback(_told)

    async def mend_wires(self, patience: float) -> list[str]:
        """To be called before anything is asked of command by a hostd that follows one which was about to open services
        anew: command may have ends of boot wires whose other ends have gone with it, to roles that live and so are
        never given another one. What went wrong, in words."""
        task = asyncio.create_task(self._mend_wires())
        try:
            async with asyncio.timeout(patience):
                await task
        except FAILURES as error:
            if getattr(error, "code", None) != "unreachable":  # the next process of a dead one gets wires by itself
                return [f"boot wires of the control plane: {error}"]
        return []

    async def rewire(self) -> None:
        """The same for an unload, or a load that is undone, which can do nothing without command: returns when the
        wires are there. The next process of one that has died meanwhile waits for command, and command, with a wire
        whose other end nobody takes, for the dead one's answer: so nobody is waited for with such an end in hand."""
        roles = [self._boot.records[name] for name in CONTROL_PLANE]
        while True:
            try:
                return await asyncio.create_task(self._mend_wires())
            except RemoteError as error:
                given_up = any(role.absence is not None and role.absence.given_up for role in roles)
                if error.code != "unreachable" or given_up:
                    raise
            await asyncio.sleep(FIRST_RETRY)
            await asyncio.gather(*(role.absence.over() for role in roles if role.absence is not None))

    async def _mend_wires(self) -> None:
        reviving.set(tuple(self._boot.records[name] for name in CONTROL_PLANE))
        async with self._wiring:
            await self._loading.boot_wires()

    async def _tell(self, name: str, op: str, message: dict[str, str], end: socket) -> None:
        """Where that one lives."""
        role = self._boot.records[name]
        if role.exit_status is None and role.wire is not None and role.wire.error is None:
            try:
                await ask(role, op, message, [end.fileno()])
            except RemoteError as error:
                if error.code != "unreachable":
                    raise

    # ---- afterwards ----

    async def _settle(self) -> None:
        """Until it has worked, however long the outage lasts. It waits for no role that has died meanwhile: the next
        one of that role waits for this task to let go of the wires. Neither step keeps the other from its turn: what
        is compared is asked for over wires that only opening anew mends, where the end of one is lost; and so is what
        an adoption asks, which the comparison waits for."""
        reviving.set(tuple(self._boot.records[name] for name in CONTROL_PLANE))
        delay = FIRST_RETRY
        while self._to_compare or self._to_reopen:
            failed = False
            for step in (self._compare_where_due, self._reopen_where_due):
                try:
                    await step()
                except FAILURES as error:
                    failed = True
                    self._events.publish("error", message=f"services of the control plane: {error}")
            if failed:
                await asyncio.sleep(delay)
                delay = min(2 * delay, LONGEST_RETRY)
                continue
            delay = FIRST_RETRY
            if self._to_compare:
                await self.adopted.wait()
            elif not self._loading.complete:
                return  # the next load opens them

    async def _reopen_where_due(self) -> None:
        await self._note()
        async with self._wiring:
            if self._to_reopen and self._loading.complete:
                self._to_reopen = False
                try:
                    await self._loading.reopen_services()
                    await self._note()
                except FAILURES:
                    self._to_reopen = True
                    raise

    async def _compare_where_due(self) -> None:
        if self._to_compare and self.adopted.is_set():
            self._to_compare = False
            try:
                await self._compare()
            except FAILURES:
                self._to_compare = True
                raise

    async def _compare(self) -> None:
        """The resource database and the living processes, both ways (rule 32). What hostd knows it follows itself:
        every end of a process is a transaction that waits for the next ultravisor."""
        answer = await ask(self._boot.records["command"], "reconcile", {"spared": self._spared()})
        unknown = {(one["pid"], one["start_time"]) for one in answer["unknown"]}
        again = []
        for record in list(self._boot.records.values()):
            lives = record.exit_status is None and record.state == "running" and record.number
            if lives and (record.pid, record.start_ticks) in unknown and record.type != "guest":
                await self._boot.record_again(record)
                again.append(record.name)
        self._events.publish(
            "reconciled", removed=answer["removed"], failed=answer["failed"], dropped=len(answer["dropped"]),
            lost=len(answer["lost"]), recorded=again,
        )  # fmt: skip


@contextmanager
def pairs() -> Iterator[tuple[tuple[socket, socket], tuple[socket, socket]]]:
    """Two wires; what was handed over lives on in those who have it."""
    both = (pair(), pair())
    try:
        yield both
    finally:
        for end in (*both[0], *both[1]):
            end.close()


def _told(task: asyncio.Task[None]) -> None:
    with suppress(asyncio.CancelledError):
        task.exception()

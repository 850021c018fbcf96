"""hostd's process in the simulated world: it is killed at any step, and the next one takes over.

As SIGKILL leaves it: its tasks stand where they stood and are never resumed, closed or freed; its descriptors close;
what it has sent arrives; those who had asked it something see a connection that is lost.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any

from hostd import succession
from hostd.daemon import find_keeper
from hostd.manifest import Manifest
from hostd.paths import Paths
from hostd.records import Record
from hostd.supervisor import Supervisor
from tests.simulation import roles
from tests.simulation.clock import LIFE
from tests.simulation.world import World

ATTEMPTS = 5  # of which one must succeed: a role may die while hostd looks for it
PAUSE = 1.0  # seconds between two


class Host:
    """`manifest` is that of a host that is not there yet."""

    def __init__(self, world: World, manifest: Manifest, paths: Paths) -> None:
        self._world, self._manifest, self._paths = world, manifest, paths
        self.supervisor: Supervisor | None = None
        self.logs: list[Any] = []  # events of all lives
        self.deaths = 0
        self._life = self._failures = 0
        self._ready = asyncio.Event()
        self._open: set[asyncio.Future[Any]] = set()
        self._begun: Supervisor | None = None
        world.kill_hostd = self.die

    async def up(self) -> None:
        """The first one."""
        self.start()
        await self._ready.wait()

    def start(self) -> None:
        """The next one."""
        self._life += 1
        task = self._within(self._serve())
        task.add_done_callback(self._served, context=self._world.outside)

    async def _serve(self) -> None:
        """As hostd.daemon does."""
        client, notes = await find_keeper(self._paths)
        manifest = self._manifest if notes is None else succession.manifest_of(notes, self._paths)
        supervisor = self._begun = Supervisor(manifest, self._paths, client)
        self.logs.append(supervisor.events)
        await (supervisor.up() if notes is None else supervisor.adopt(notes))

    def _served(self, task: asyncio.Task[None]) -> None:
        if task.exception() is None:
            self.supervisor = self._begun
            self._check_adopted()
            self._failures = 0
            self._ready.set()
            return
        self._failures += 1
        self._world.note(f"hostd ends: {task.exception()!r}")
        self._end()
        if self._failures < ATTEMPTS:
            self._world.later(PAUSE, self.start)
        else:
            self._world.faults.append(f"hostd does not come up: {task.exception()!r}")

    def _check_adopted(self) -> None:
        """Guests that ran are the same processes."""
        assert self.supervisor is not None
        records, world = self.supervisor.records, self._world
        for process in world.processes(roles.Guest):
            name = world.spared.get(process.pid)
            if name is not None and (name not in records or records[name].pid != process.pid):
                world.faults.append(f"{name} runs as {process.pid}, and the next hostd does not know it")
        world.spared = {}

    # ---- death

    def die(self) -> None:
        """SIGKILL."""
        world = self._world
        world.note(f"hostd ({self._life}) is killed")
        self.deaths += 1
        if self.supervisor is not None:
            world.spared = {
                record.pid: record.name for record in self.supervisor.records.values() if self._runs(record)
            }
        self._end()
        world.later(world.chance.down(), self.start)

    def _runs(self, record: Record) -> bool:
        assert self.supervisor is not None
        return (
            record.type == "guest" and record.state == "running" and record.exit_status is None
            and not record.stop_asked and record.name not in self.supervisor._names
        )  # fmt: skip

    def _end(self) -> None:
        world = self._world
        self._ready.clear()
        world.loop.kill(self._life, self._begun)
        world.descriptors.end(self._life)
        self.supervisor = None
        for answer in self._open:
            if not answer.done():
                answer.set_exception(ConnectionResetError("the connection to hostd is lost"))
        self._open.clear()

    # ---- its API

    async def call(self, act: Callable[[Supervisor], Coroutine[Any, Any, Any]]) -> Any:
        """What it answers. ConnectionResetError where it dies before. Waits for it while there is none."""
        await self._ready.wait()
        assert self.supervisor is not None
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._open.add(answer)
        task = self._within(act(self.supervisor))
        task.add_done_callback(lambda done: _pass_on(done, answer), context=self._world.outside)
        try:
            return await answer
        finally:
            self._open.discard(answer)
            if not task.done() and not answer.done():
                task.cancel()

    def _within(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        context = contextvars.copy_context()
        context.run(LIFE.set, self._life)
        return self._world.loop.create_task(work, context=context)


def _pass_on(task: asyncio.Task[Any], answer: asyncio.Future[Any]) -> None:
    if answer.done():
        return
    if task.cancelled():
        answer.cancel()
    elif (error := task.exception()) is not None:
        answer.set_exception(error)
    else:
        answer.set_result(task.result())

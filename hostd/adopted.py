"""A host whose daemon was killed, as the next daemon shows it: partitions go on, `down` removes them.

Everything is read from the keeper. Changes are refused until the host has been taken down: the new daemon has no
wires to the roles of the old one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

import psutil

from hostd.errors import HostError
from hostd.events import EventLog
from hostd.fault_script import Script
from hostd.keeper import Keeper
from hostd.manifest import Manifest, PartitionSpec, Policy
from hostd.paths import Paths
from hostd.records import Record
from hostd.runtime import sweep_stale
from hostd.wire import Message, close_fds

Row = dict[str, Any]


class AdoptedSupervisor:
    """The interface of hostd.interface.Supervisor over a keeper that was found alive."""

    metrics_url: str | None = None
    lost = False  # the keeper has died

    def __init__(self, keeper: Keeper, paths: Paths, manifest: Manifest) -> None:
        self.events = EventLog()
        self.keeper = keeper
        self.paths = paths
        self._manifest = manifest
        self._records: dict[int, Record] = {}
        self._boot_time = psutil.boot_time()
        self.finished = asyncio.Event()
        self._going_down = False
        keeper.on_event = self._hear
        keeper.on_close = self._keeper_ended

    async def adopt(self) -> None:
        await self.keeper.watch()
        for row in (await self.keeper.list())["processes"]:
            record = Record(row["name"], row["type"], process=row["id"], pid=row["pid"], start_ticks=row["start_time"])
            record.exit_status = row["status"]
            record.state = "running" if row["status"] is None else "failed"
            self._records[record.process] = record
            self.events.publish("adopted", partition=record.name, pid=record.pid)

    def _hear(self, message: Message, fds: list[int]) -> None:
        close_fds(fds)
        record = self._records.get(message.get("process", 0))
        if message.get("event") == "exit" and record is not None:
            record.exit_status = message["status"]
            record.state = "stopped" if message["status"] == {"exited": 0} else "failed"
            self.events.publish(record.state, partition=record.name, status=record.exit_status)

    def list(self) -> list[Row]:
        return [record.row(self._boot_time) for record in self._records.values()]

    async def status(self) -> Row:
        detail = "the daemon that made these partitions was killed; `hostctl down` removes them, then start anew"
        host = {"runtime": str(self.paths.runtime), "state": str(self.paths.state), "adopted": True}
        return {"host": host, "processes": self.list(), "checks": [{"name": "daemon", "ok": False, "detail": detail}]}

    def manifest(self) -> Manifest:
        return self._manifest

    async def down(self) -> None:
        """Whoever calls while it is under way waits for its end."""
        if self._going_down:
            await self.finished.wait()
            return
        self._going_down = True
        try:
            self.events.close()
            with suppress(EOFError):
                await self.keeper.stop()
        finally:
            sweep_stale(self.paths.runtime)  # a keeper that was killed could not
            self.finished.set()

    def _keeper_ended(self) -> None:
        self.lost = not self._going_down
        if self.lost:
            self.finished.set()

    async def wait(self, name: str, state: str, timeout: float) -> Row:
        for row in self.list():
            if row["name"] == name and row["state"] == state:
                return row
        return self._refuse()

    def _refuse(self) -> NoReturn:
        raise HostError(
            "state",
            "this host was left by a daemon that was killed: only list, status and down work until `hostctl down`",
        )

    async def spawn(self, spec: PartitionSpec, *, key: str | None, actor: str) -> Row:
        self._refuse()

    async def stop(self, name: str, timeout: float, *, key: str | None, actor: str) -> Row:
        self._refuse()

    async def remove(self, name: str, force: bool, *, key: str | None, actor: str) -> Row:
        self._refuse()

    async def set_policies(self, policies: Sequence[Policy], *, key: str | None, actor: str) -> None:
        self._refuse()

    async def set_queues(self, name: str, nic: str, count: int, timeout: float) -> Row:
        self._refuse()

    async def set_path(
        self, name: str, endpoint: str, path: str, timeout: float, *, key: str | None, actor: str
    ) -> Row:
        self._refuse()

    async def attach(self, name: str, kind: str, entry: Any, *, key: str | None, actor: str) -> Row:
        self._refuse()

    async def detach(self, name: str, endpoint: str, *, key: str | None, actor: str) -> Row:
        self._refuse()

    async def add_wire(self, device: str, wire: Any) -> Row:
        self._refuse()

    async def remove_wire(self, device: str, name: str) -> Row:
        self._refuse()

    async def set_attribution(self, on: bool) -> Row:
        self._refuse()

    async def load(self) -> Row:
        self._refuse()

    async def unload(self, timeout: float) -> Row:
        self._refuse()

    async def resources(self) -> Row:
        self._refuse()

    async def console(self) -> Row:
        self._refuse()

    async def touch(self, device: str) -> Row:
        self._refuse()

    async def capabilities(self, name: str) -> Row:
        self._refuse()

    async def weaken(self, role: str, offloads: Sequence[str], lies: bool) -> Row:
        self._refuse()

    async def volumes(self) -> Row:
        self._refuse()

    async def change_volume(self, device: str, command: str, arguments: Row) -> Row:
        self._refuse()

    async def vectors(self, name: str) -> Row:
        self._refuse()

    async def registers(self, name: str) -> Row:
        self._refuse()

    async def set_register(self, name: str, thread: int, register: str, value: int) -> Row:
        self._refuse()

    async def mask_vector(self, name: str, endpoint: str, queue: int, on: bool) -> Row:
        self._refuse()

    async def hold(self, name: str, on: bool) -> Row:
        self._refuse()

    async def stream(self, on: bool, depth: int) -> Row:
        self._refuse()

    async def delay(self, role: str, stage: str, seconds: float) -> Row:
        self._refuse()

    async def arm_faults(self, script: Script) -> Row:
        self._refuse()

    async def show_faults(self) -> Row:
        self._refuse()

    async def clear_faults(self) -> Row:
        self._refuse()

    async def view(self, name: str) -> Row:
        self._refuse()

    async def hardware(self, name: str) -> Row:
        self._refuse()

    async def explain(self, partition: str | None, decision: int | None, replay: bool) -> Row:
        self._refuse()

    async def logs(self, name: str) -> str:
        self._refuse()

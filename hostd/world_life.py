"""The supervisor's part in worlds (U6, W5): a guest becomes one, its registers are looked at, and none stays held."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from hostd.boot import Boot
from hostd.errors import HostError
from hostd.events import EventLog
from hostd.fabric import Fabric, ask
from hostd.families import free, threads_of
from hostd.kernel_work import KernelWork
from hostd.manifest import Manifest, PartitionSpec
from hostd.media import media
from hostd.records import Record

Row = dict[str, Any]


class WorldLife:
    """Mixin of the supervisor, which owns everything that is named here without a value."""

    events: EventLog
    records: dict[str, Record]
    fabric: Fabric
    _boot: Boot
    _manifest: Manifest

    _going_down: bool
    _kernel_work: KernelWork

    def _record(self, name: str) -> Record:
        raise NotImplementedError

    @staticmethod
    async def _told(role: Record, op: str) -> Row:
        raise NotImplementedError

    async def registers(self, name: str) -> Row:
        return await ask(self._monitor(), "registers", {"partition": self._record(name).number})

    async def set_register(self, name: str, thread: int, register: str, value: int) -> Row:
        change = {"thread": thread, "register": register, "value": value}
        await ask(self._monitor(), "set_register", {"partition": self._record(name).number, **change})
        return change

    def _monitor(self) -> Record:
        if not self.fabric.loaded:
            raise HostError("state", "no kernel is loaded, so nobody keeps registers")
        return self.fabric.monitor

    async def schedule(self, record: Record) -> None:
        """Makes the process of a guest or the console a world; says so where it is not scheduled as asked."""
        scheduling, processors = self._manifest.host.scheduling, self._boot.processors.guests
        facts: Row = {"weight": scheduling.console, "cap": 0, "processors": processors}
        if record.type == "guest":
            spec: PartitionSpec = record.spec
            cap = round((spec.cap or 0) * 1e6)
            facts = {"weight": spec.weight, "cap": cap, "processors": spec.processors or processors}
        record.scheduled = True  # from now on also under the next monitor
        answer = await ask(self.fabric.monitor, "started", {"partition": record.number, "pid": record.pid, **facts})
        if answer.get("unscheduled") and scheduling.mechanism != "none":
            self.events.publish("unscheduled", partition=record.name, message=answer["unscheduled"])

    async def worlds(self) -> Row:
        """{"worlds": control blocks (W4), "turns": the system worlds}; empty while no kernel is loaded."""
        if not self.fabric.loaded:
            return {"worlds": [], "turns": {}}
        worlds = (await self._told(self.fabric.monitor, "worlds")).get("worlds", [])
        return {"worlds": worlds, "turns": await self._told(self.fabric.monitor, "turns")}

    def free_worlds(self, ended: Record) -> None:
        """Where the monitor has ended, no guest stays held, and the console is back on the processors of the others."""
        if ended.type != "monitor" or self._going_down:
            return
        living = [record for record in self.records.values() if record.pid and record.exit_status is None]
        if self._manifest.host.scheduling.mechanism == "class":
            held = [record for record in living if record.type in ("guest", "console")]
            free({record.pid: os.SCHED_BATCH if record.export else os.SCHED_OTHER for record in held if record.pid})
        consoles = [record.pid for record in living if record.type == "console" and record.pid]
        for thread in [thread for pid in consoles for thread in threads_of(pid)]:
            with contextlib.suppress(OSError):  # it has ended
                os.sched_setaffinity(thread, self._boot.processors.infrastructure)

    async def media(self) -> Row:
        return await media(self._manifest.devices, self.fabric.devices, self._told)

    async def data_threads(self) -> str:
        """Class of the data threads."""
        realtime = [(await self._told(role, "scheduling")).get("realtime", False) for role in self.fabric.roles()]
        if not all(realtime):
            return "normal: the right to real-time scheduling is missing"
        disk = self._kernel_work.disk
        return f"batch: threads of the kernel end what {disk} has begun" if disk else "real-time"

"""All roles that are started again when they die: who is told of which death, who looks for roles that hang, and the
way back of one that was given up (U12, rule 28)."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterable
from typing import Any

from hostd.boot import Boot
from hostd.control_life import ControlLife
from hostd.device_life import Devices
from hostd.errors import HostError
from hostd.events import EventLog
from hostd.io_life import Offices
from hostd.kernel_work import KernelWork
from hostd.monitor_life import MonitorLife, RoleLife
from hostd.pulse import Pulse
from hostd.records import Record

RESTART_TIMEOUT = 30.0  # seconds for the next process to be at work


class RoleLives:
    """Monitor, I/O partitions, devices, ultravisor, command and operations partition."""

    def __init__(
        self,
        boot: Boot,
        monitor: MonitorLife,
        offices: Offices,
        devices: Devices,
        control: ControlLife,
        events: EventLog,
        kernel_work: KernelWork,
    ) -> None:
        self._boot = boot
        self._monitor = monitor
        self._offices = offices
        self._devices = devices
        self._control = control
        self._pulse = Pulse(boot.keeper, self._watched, self._kill, events, kernel_work.heard)

    def begin(self) -> None:
        """The control plane runs."""
        self._control.watch()
        self._pulse.start()

    def stop(self) -> None:
        """The host goes down: no next process is started."""
        for one in (self._pulse, self._monitor, self._offices, self._devices, self._control):
            one.stop()

    def give_up(self) -> None:
        """All processes end: whoever asks one, or waits for the next, hears so at once."""
        self.stop()
        for record in self._watched():
            if record.absence is not None:
                record.absence.end(given_up=True)

    def died(self, record: Record) -> bool:
        """A process has ended. False: it is not started again."""
        if record.type == "io":
            return self._offices.died(record)  # offices are vacant by it
        life = self._life(record)
        return life is not None and life.died(record)

    async def restart(self, record: Record) -> dict[str, Any]:
        """`hostctl restart`: the next process of a role; of one that was given up, too, which then has a new budget.
        Guests go on. {"name", "pid", "restarts"}; HostError `state` where nobody starts it again."""
        life = self._life(record)
        if life is None or record.absence is None:
            raise HostError("state", f"{record.name} is {record.type}: hostd starts no next process of it")
        before = record.restarts
        life.again(record)
        try:
            async with asyncio.timeout(RESTART_TIMEOUT):
                while record.restarts == before and not record.absence.given_up:
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise HostError("timeout", f"{record.name} is not back after {RESTART_TIMEOUT:g} s") from None
        if record.absence.given_up:
            raise HostError("state", f"{record.name} died again and again: {record.log_text().strip()[-200:]}")
        return {"name": record.name, "pid": record.pid, "restarts": record.restarts}

    def _life(self, record: Record) -> RoleLife | None:
        if record.type == "monitor":
            return self._monitor
        known = (self._offices.lives, self._devices.lives, self._control.lives)
        return next((lives[record.name] for lives in known if record.name in lives), None)

    def _watched(self) -> Iterable[Record]:
        return [one for one in list(self._boot.records.values()) if self._life(one) is not None]

    def _kill(self, record: Record) -> None:
        self._boot.children.signal(record, signal.SIGKILL)

"""The supervisor's part in load and unload (W1, W2, W10): what is done in which order, and what stays the same.

    boot --load--> guests of the manifest --...--> unload: guests, kernel --> as after the boot
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hostd import vectors, volumes
from hostd.boot import Boot
from hostd.children import Children
from hostd.control_life import ControlLife
from hostd.device_life import Devices
from hostd.errors import HostError
from hostd.events import EventLog
from hostd.fabric import Fabric, ask
from hostd.fault_plane import FaultPlane
from hostd.fault_script import Script
from hostd.growth import Growing
from hostd.inventory import Inventory
from hostd.io_life import Offices
from hostd.keeper import Keeper
from hostd.kernel_work import KernelWork
from hostd.loading import Loading
from hostd.manifest import Manifest, PartitionSpec, Policy
from hostd.monitor_life import MonitorLife
from hostd.records import Record
from hostd.role_lives import RoleLives
from hostd.takeovers import Pauses
from hostd.wire import RemoteError

Row = dict[str, Any]

ROLE_STOP_TIMEOUT = 5.0  # seconds for the monitor or an I/O partition to end


class KernelLife(Growing):
    """Mixin of the supervisor, which owns everything that is named here without a value."""

    events: EventLog
    keeper: Keeper
    records: dict[str, Record]
    fabric: Fabric
    _boot: Boot
    _loading: Loading
    _monitor_life: MonitorLife
    _offices: Offices
    _control_life: ControlLife
    _lives: RoleLives
    _kernel_work: KernelWork
    _children: Children
    _manifest: Manifest
    _changed: asyncio.Condition
    _names: dict[str, Record]

    async def spawn(self, spec: PartitionSpec, *, key: str | None, actor: str) -> Row:
        raise NotImplementedError

    async def _remove_guest(self, record: Record, timeout: float, key: str | None, actor: str) -> None:
        raise NotImplementedError

    async def _discard(self, record: Record, key: str | None = None, actor: str = "hostd") -> None:
        raise NotImplementedError

    async def _end_process(self, record: Record, timeout: float) -> None:
        raise NotImplementedError

    def _record(self, name: str) -> Record:
        raise NotImplementedError

    @staticmethod
    async def _told(role: Record, op: str) -> Row:
        raise NotImplementedError

    async def schedule(self, record: Record) -> None:
        raise NotImplementedError

    async def _after_end(self, record: Record) -> None:
        raise NotImplementedError

    def _begin_unloaded(self) -> None:
        self._devices = Devices(self._boot, self.events, self._after_end)
        # Of roles that are started again when they die, by type.
        self._lives = RoleLives(
            self._boot, self._monitor_life, self._offices, self._devices, self._control_life, self.events,
            self._kernel_work,
        )
        self._moving = asyncio.Lock()  # load or unload under way
        self._inventory = Inventory(self.records, self.fabric, self.keeper)
        self._unloaded: Row | None = None  # the resources as they were before the first load
        self.device_refusals = self._class_refusals()
        self._faults = FaultPlane(self.fabric, self.records, self.events)

    def _followed(self) -> list[str]:
        """Names of all partitions whose ends hostd notices by itself."""
        return [*self.records, *self._names]

    def _tell_started(self, records: Sequence[Record]) -> None:
        for record in records:
            self.events.publish("started", partition=record.name, type=record.type, pid=record.pid)

    async def _start_devices(self) -> None:
        await self._boot.devices()
        self._devices.watch(self.fabric.devices.values())

    async def load(self) -> Row:
        """Brings in the kernel, then the guests of the manifest. HostError `state` where one is loaded. A load that
        fails is undone; where that fails, too, or an unload did, the next load or unload goes on with it."""
        begin = time.monotonic()
        async with self._moving:
            if self._loading.complete:
                raise HostError("state", "the kernel is loaded already")
            if self.fabric.loaded:  # an unload, or the undoing of a load, came to half of it
                await self._loading.unload()
            before = await self._inventory.take()
            if self._unloaded is None:
                self._unloaded = before
            known = set(self.records)
            await self.note_host(kernel="loading")
            try:
                await self._loading.load()
            except BaseException:
                if not self.fabric.loaded:  # otherwise it could not be undone: a hostd that follows begins anew
                    await self.note_host(kernel="none")
                raise
            self._monitor_life.watch(self.fabric.monitor)
            await self.schedule(self.records["console"])
            seconds = time.monotonic() - begin
            self._tell_started([record for name, record in self.records.items() if name not in known])
            self.events.publish("loaded", seconds=seconds)
        await self.note_host(kernel="loaded", pending=True)
        for spec in self._manifest.partitions:
            await self.spawn(spec, key=None, actor="manifest")
        await self.note_host(pending=False)
        return {"seconds": seconds, "before": before, "after": await self._inventory.take()}

    async def unload(self, timeout: float) -> Row:
        """Stops the guests, the last one first, each within `timeout` seconds, and removes them; then the kernel goes.
        `same`: the resources are what they were before the first load."""
        begin = time.monotonic()
        async with self._moving:
            if not self.fabric.loaded:
                raise self._not_loaded()
            if self.records["console"].held:
                await self.hold("console", False)
            before = await self._inventory.take()
            async with self._changed:
                await self._changed.wait_for(lambda: not self._names)
            for record in [one for one in reversed(self.records.values()) if one.type == "guest"]:
                await self._remove_guest(record, timeout, None, "unload")
            await self.note_host(kernel="unloading")
            await self._control_life.rest()
            await self._monitor_life.rest(self.fabric.monitor)
            await self._loading.unload()
            await self.note_host(kernel="none")
            after = await self._inventory.take()
            seconds = time.monotonic() - begin
            self.events.publish("unloaded", seconds=seconds)
        return {"seconds": seconds, "before": before, "after": after, "same": after == self._unloaded}

    @staticmethod
    def _not_loaded() -> HostError:
        return HostError("state", "no kernel is loaded; `hostctl load` loads it")

    async def _end_role(self, record: Record) -> None:
        """Stops the process of a role and removes its partition; also where neither came to life."""
        record.stop_asked = True
        if record.pid is not None:
            await self._end_process(record, ROLE_STOP_TIMEOUT)
        await self._discard(record)

    async def capabilities(self, name: str) -> Row:
        return await self.fabric.capabilities(self._record(name))

    async def weaken(self, role: str, offloads: Sequence[str], lies: bool, restart: bool) -> Row:
        known = [one.name for one in self._manifest.devices if one.kind == "nic"]
        if role not in known:
            raise HostError("not_found", f"{role!r} is no NIC device; known: {', '.join(known)}")
        await self.fabric.weaken(role, offloads, lies, later=restart)
        facts = {"role": role, "offloads": list(offloads), "lies": lies, "restart": restart}
        self.events.publish("weaken", **facts)
        if restart:
            await self.restart(role)
        return facts

    async def volumes(self) -> Row:
        return {"volumes": volumes.of(self._manifest.devices)}

    async def change_volume(self, device: str, command: str, arguments: Row) -> Row:
        answer = await volumes.change(self.fabric.devices, device, command, arguments)
        if command in volumes.CHANGES:
            self.events.publish("volume", device=device, command=command, disk=arguments["name"])
        if command == "resize":
            answer["grown"] = await self.follow_disk(device, arguments["name"], arguments["size"])
        return answer

    async def vectors(self, name: str) -> Row:
        return await vectors.of_partition(self._record(name), self.fabric.monitor)

    async def mask_vector(self, name: str, endpoint: str, queue: int, on: bool) -> Row:
        return await vectors.mask(self._record(name), self.fabric.monitor, endpoint, queue, on)

    async def hold(self, name: str, on: bool) -> Row:
        answer = await vectors.hold(self._record(name), self.fabric.monitor, self._children, on)
        await self.note(self._record(name))
        return answer

    async def resources(self) -> Row:
        """Who has what: the resource database, the keeper's segments and the processes, without their generations."""
        return await self._inventory.take()

    async def console(self) -> Row:
        """What the console drives by itself, and what its verified stream has seen."""
        return await ask(self.records["console"], "figures", {})

    async def touch(self, device: str) -> Row:
        """Has the console ask for a device: {"device", "decision"}, or the refusal with its rule, which is counted."""
        wanted = next((one for one in self._manifest.devices if one.name == device), None)
        if wanted is None:
            known = ", ".join(one.name for one in self._manifest.devices) or "none"
            raise HostError("not_found", f"no device {device!r}; known: {known}")
        with self._counted("console", [device]):
            return await ask(self.records["console"], "touch", {"device": device, "kind": wanted.kind})

    @contextmanager
    def _counted(self, kind: str, devices: Sequence[str | None]) -> Iterator[None]:
        """Counts a refusal that the class of a device is the reason of; `kind`: type of the partition that asked."""
        try:
            yield
        except RemoteError as error:
            if error.details.get("rule") == "device_class":
                for device in self._manifest.devices:
                    if device.name in devices and (kind, device.name, device.device_class) in self.device_refusals:
                        self.device_refusals[kind, device.name, device.device_class] += 1
            raise

    def _class_refusals(self) -> dict[tuple[str, ...], int]:
        """Type of partition, device, class: what its class may be the reason to refuse."""
        held = {"host-managed": "guest", "reserved": "console"}
        return {
            (held[device.device_class], device.name, device.device_class): 0
            for device in self._manifest.devices
            if device.device_class in held
        }

    async def set_attribution(self, on: bool) -> Row:
        await self.fabric.set_attribution(on)
        return {"on": on}

    async def delay(self, role: str, stage: str, seconds: float) -> Row:
        await self.fabric.delay(role, stage, round(seconds * 1e9))
        self.events.publish("delay", role=role, stage=stage, seconds=seconds)
        return {"role": role, "stage": stage, "seconds": seconds}

    async def arm_faults(self, script: Script) -> Row:
        return await self._faults.arm(script)

    async def show_faults(self) -> Row:
        return await self._faults.show()

    async def clear_faults(self) -> Row:
        return await self._faults.clear()

    async def kernel_facts(self) -> Row:
        """Is there a kernel, and how often its monitor was started again."""
        monitor = self.fabric.monitor if self.fabric.loaded else None
        return {
            "kernel": "loaded" if monitor else "not loaded",
            "monitor": await self._monitor_life.row(monitor),
            "offices": self._offices.rows(),
        }

    async def set_policies(self, policies: Sequence[Policy], *, key: str | None, actor: str) -> None:
        for policy in policies:
            more = {"key": f"{key}:{policy.name}"} if key else {}
            await ask(self.records["command"], "policy.set", {"policy": policy.model_dump(), "actor": actor, **more})
        self._manifest = self._manifest.model_copy(update={"policies": list(policies)})
        await self.note_host()

    async def restart(self, name: str) -> Row:
        return await self._lives.restart(self._record(name))

    def pauses(self) -> dict[tuple[str, str], Pauses]:
        """Of takeovers, by office and cause. Safe from any thread."""
        return dict(self._offices.takeovers.pauses)

    async def switch_over(self, name: str, target: str | None) -> Row:
        return await self._offices.switch_over(name, target)

    async def stream(self, on: bool, depth: int) -> Row:
        return await ask(self.records["console"], "stream", {"on": on, "depth": depth})


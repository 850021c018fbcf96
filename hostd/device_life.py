"""A device's death, and the next process of it (U12, rules.md 20, 21 and 23).

    killed -> the keeper's pidfd tells -> next process -> wires -> every endpoint that it had -> kernel region, hardware
    rings -> `go_on`: it serves -> event `device_restarted` -> every office sends again what it has in flight

What the dead one had shown to a server or a guest is done. What it had taken and not shown stands in the ledgers: a
server's for the paths `copy` and `redirect`, the device's own for the direct one (pyx/ledger.h). Until `go_on` the
next process serves nobody, so no frame finds its receiver missing. Files and volumes are opened under their locks, so
nothing is done again while the kernel works for a dead process. A hostd that dies before `go_on` has not noted the new
process: the next hostd ends it, and begins again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any

from hostd import tcp_networks
from hostd.asking import ask, reviving
from hostd.boot import Boot
from hostd.errors import HostError
from hostd.events import EventLog
from hostd.monitor_life import RoleLife
from hostd.records import ENDED, Record
from hostd.told import extents_of, of_port, revoked_of
from hostd.wire import RemoteError, WireError, close_fds

Row = dict[str, Any]


class DeviceLife(RoleLife):
    """Of one device's process."""

    NEWS = ("device_lost", "device_restarted")

    def __init__(self, *arguments: Any, after: Callable[[Record], Awaitable[None]]) -> None:
        super().__init__(*arguments)
        self._after = after

    async def _record(self, record: Record) -> None:
        """Others may ask it now; whoever is asked here may be away by itself."""
        reviving.set(())
        try:
            await self._after(record)
        except (RemoteError, HostError, WireError, OSError, EOFError) as error:
            self._events.publish("error", partition=record.name, message=f"what it had in flight: {error}")
        await super()._record(record)


class Devices:
    """All device processes. `lost(record)` is called where one is given up."""

    def __init__(self, boot: Boot, events: EventLog, lost: Callable[[Record], Awaitable[None]]) -> None:
        self._boot, self._fabric, self._events, self._lost = boot, boot.fabric, events, lost
        self.lives: dict[str, DeviceLife] = {}

    def watch(self, records: Iterable[Record]) -> None:
        """From now on they are started again when they die."""
        for record in records:
            life = self.lives[record.name] = DeviceLife(
                self._boot, self._follow, self._events, self._given_up, after=self._send_again
            )
            life.watch(record)

    def stop(self) -> None:
        """The host goes down."""
        for life in self.lives.values():
            life.stop()

    async def _given_up(self, record: Record) -> None:
        """Takeovers do not wait for it; requests at its endpoints do."""
        if self._fabric.loaded:
            with suppress(RemoteError):  # without a monitor there are no takeovers
                await self._tell_monitor(record, True)
        await self._lost(record)

    # ---- the next process ----

    async def _follow(self, record: Record) -> Row:
        """Starts it and gives it everything that the dead one had. Nobody but the keeper and the process is asked: the
        others may be waiting for it."""
        boot, fabric = self._boot, self._fabric
        await boot.start_device(record, successor=True)
        await fabric.wiring.place_again(record)
        for partition in list(boot.records.values()):
            ends = [one for one in partition.plan.get("endpoints", []) if _placed(partition, one, record.name)]
            if ends:
                await self._attach(record, partition, ends)
                await ask(record, "bar", {"memory": revoked_of(partition)})
        if fabric.loaded:
            kernel = await fabric.read_only("kernel")
            try:
                await ask(record, "connect_kernel", {}, [kernel])
            finally:
                close_fds([kernel])
            # One that is being unloaded needs no device, and its memory may be gone.
            servers = [server for server in fabric.servers.values() if not server.stop_asked]
            for server in servers:
                await self._lend(server, record)
            for server in servers:
                await fabric.connect_device(server, record)
        await ask(record, "go_on", {})
        return {}

    async def _lend(self, server: Record, device: Record) -> None:
        memory = await self._boot.keeper.get_segments([extent["segment"] for extent in server.plan["memory"]])
        try:
            message = {"partition": server.number, "memory": extents_of(server)}
            await ask(device, "attach_memory", message, memory)
        finally:
            close_fds(memory)

    async def _attach(self, device: Record, partition: Record, ends: list[Row]) -> None:
        keeper, plan = self._boot.keeper, partition.plan
        memory = await keeper.get_segments([extent["segment"] for extent in plan["memory"]])
        fds = await keeper.get_segments([plan["events"], *(end["pair"]["segment"] for end in ends)])
        try:
            for number, (end, pair) in enumerate(zip(ends, fds[1:], strict=True)):
                message = of_port(partition, end, [] if number else plan["memory"])
                await ask(device, "attach", message, [fds[0], pair, *([] if number else memory)])
                if end.get("away"):
                    await ask(device, "recall", {"port": end["port"], "path": end["away"]})
        finally:
            close_fds([*memory, *fds])
        if partition.type == "guest":
            only = {device.name: device}
            await self._fabric.wiring.simulate(partition, only)
            await tcp_networks.join(partition, only, self._fabric.wiring, ask)

    async def _send_again(self, device: Record) -> None:
        """What the dead one had taken off its hardware rings is in the ledgers of the offices."""
        fabric = self._fabric
        if not fabric.loaded:
            return
        monitor = fabric.monitor  # it and the offices may be unloaded meanwhile
        await self._tell_monitor(device, False)
        for server in list(fabric.servers.values()):
            await ask(monitor, "send_again", {"server": server.number})
        await fabric.negotiate(device.name, renewed=True)

    async def _tell_monitor(self, device: Record, gone: bool) -> None:
        await ask(self._fabric.monitor, "device_gone", {"device": self._boot.slots[device.name], "gone": gone})


def _placed(partition: Record, endpoint: Row, device: str) -> bool:
    """Did the dead process of `device` have this endpoint?"""
    if endpoint["device"] != device or partition.state in ENDED and not partition.attached:
        return False
    return endpoint.get("placed", False) or partition.attached and not endpoint.get("unplugged")

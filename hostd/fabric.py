"""The data plane as hostd builds it: connects the rings of its roles, attaches and detaches partitions.

Devices are there from the boot of the host; monitor and I/O partitions, with the segments that they share, come with
the load call and go with unload (hostd.loading).

hostd hands out descriptors and maps statistics read-only; it never maps rings or guest memory (design.md 2).
Order of attachment: the monitor knows a partition before its endpoints can be used, and the guest starts last.
Order of detachment: the monitor stops translating, the devices cancel and unmap, the server forgets, in this
order, so that no request can reach memory that was given up (rule 24).
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

from hostd import tcp_networks
from hostd.asking import ask, release
from hostd.errors import HostError
from hostd.hardware import Location
from hostd.keeper import Keeper
from hostd.offloads import Offloads
from hostd.queues import Queues
from hostd.records import Record
from hostd.role_segments import HARDWARE_CAPACITY, RoleSegments, statistics_size
from hostd.told import extents_of, of_port, segment_of
from hostd.wire import close_fds
from hostd.wiring import Wiring

PRIORITY = 10  # SCHED_RR of data threads: above all guests, below the system worlds to come


class Fabric(RoleSegments, Queues, Offloads):
    """The roles of the data plane by name, and the segments that only they share."""

    def __init__(self, keeper: Keeper, symmetric: bool, processors: list[int]) -> None:
        super().__init__()
        self.keeper = keeper
        self.processors = processors  # of the data threads
        self.symmetric = symmetric
        self._monitor: Record | None = None
        self.devices: dict[str, Record] = {}
        self.wiring = Wiring(ask, self.negotiate)
        self.locations: dict[str, Location] = {}  # of devices in the configuration space
        self.slots: dict[str, int] = {}  # of devices that a monitor knows
        self.weakness: dict[str, dict[str, list[str]]] = {}  # faults on purpose, by device (hostd.offloads)
        self.host_managed: list[str] = []  # devices that the console drives by itself
        self.charging = False  # the monitor reads what the roles spend for each partition
        self.expected: dict[str, dict[int, str]] = {}  # role -> segment id -> "r" or "rw"

    @property
    def loaded(self) -> bool:
        """Is there a kernel?"""
        return self._monitor is not None

    @property
    def monitored(self) -> bool:
        """Is there a monitor, or will there be the next one by itself?"""
        return self._monitor is not None and not (self._monitor.absence and self._monitor.absence.given_up)

    @property
    def monitor(self) -> Record:
        """HostError `state` where no kernel is loaded."""
        if self._monitor is None:
            raise HostError("state", "no kernel is loaded; `hostctl load` loads it")
        return self._monitor

    @monitor.setter
    def monitor(self, record: Record | None) -> None:
        self._monitor = record

    # ---- connecting ----

    def role_config(self, kind: str, **more: Any) -> dict[str, Any]:
        """What every role of the data plane is told. Only its data thread is pinned and real-time: its control
        thread must not starve behind those of others."""
        return {
            "statistics_size": statistics_size(kind),
            "symmetric": self.symmetric,
            "processors": self.processors,
            "priority": PRIORITY,
            **more,
        }

    async def connect(self, server: Record, device: Record, slot: int) -> None:
        """Connects the hardware rings of (I/O partition, device) at all three ends."""
        await self.connect_device(server, device)
        for seat in list(self.servers.values()):
            await self.connect_seat(seat, server, device.name, slot)
        await self.connect_monitor(server, device.name, slot)

    async def connect_device(self, server: Record, device: Record) -> None:
        """The device's ends of them."""
        rings = [self.fd(f"{ring}:{server.name}:{device.name}") for ring in ("requests", "completions")]
        message = {"server": server.number, "capacity": HARDWARE_CAPACITY}
        await ask(device, "connect", message, [*rings, self.fd(f"bell:{server.name}")])

    async def connect_seat(self, process: Record, server: Record, device: str, slot: int) -> None:
        """The completion ring of a device, for a seat of the office of `server`."""
        common = {"office": server.number, "device": slot, "capacity": HARDWARE_CAPACITY}
        await ask(process, "connect_hardware", common, [self.fd(f"completions:{server.name}:{device}")])

    async def connect_monitor(self, server: Record, device: str, slot: int) -> None:
        common = {"server": server.number, "device": slot, "capacity": HARDWARE_CAPACITY}
        fds = [self.fd(f"requests:{server.name}:{device}"), self.fd(f"bell:{device}")]
        await ask(self.monitor, "connect_hardware", common, fds)

    async def connect_translations(self, device: str, slot: int) -> None:
        """The monitor writes what the queue pairs of a device may touch; the device got them read-only. It is told
        where guests find the device, too, and routes its interrupts."""
        self.slots[device] = slot
        message = {"device": slot, "location": self.locations[device].document(), **await self.offered(device)}
        await ask(self.monitor, "connect_translations", message, [self.fd(f"translation:{device}")])
        forwarded = {"device": slot, "forwarded": device in self.host_managed}
        await ask(self.monitor, "connect_vectors", forwarded, [self.fd(f"vectors:{device}")])

    async def connect_server_vectors(self, server: Record) -> None:
        """The monitor routes the interrupts that an I/O partition posts."""
        message = {"server": server.plan["partition"]["slot"]}
        await ask(self.monitor, "connect_server_vectors", message, [self.fd(f"vectors:{server.name}")])

    async def route(self, record: Record, endpoint: dict[str, Any] | None = None) -> None:
        """Routes the interrupts of a partition to it: of all its endpoints, or of one that came while it runs."""
        ends = record.plan["endpoints"] if endpoint is None else [endpoint]
        queues = [
            (end["index"], queue["queue"], end["server_slot"], number)
            for end in ends
            for queue, number in zip(end["queues"], record.served.get(end["generation"], []), strict=False)
        ]
        only = {} if endpoint is None else {"endpoint": endpoint["index"]}
        await ask(self.monitor, "route", {"partition": record.number, "queues": queues, **only})

    async def lend_buffers(self, server: Record) -> None:
        """Memory of an I/O partition, for the copy path: monitor and devices map it; the server itself needs not."""
        await self.map_memory(server)
        memory = await self.keeper.get_segments([extent["segment"] for extent in server.plan["memory"]])
        try:
            extents = extents_of(server)
            for device in list(self.devices.values()):
                await ask(device, "attach_memory", {"partition": server.number, "memory": extents}, memory)
        finally:
            close_fds(memory)

    # ---- partitions ----

    async def open(self, record: Record) -> None:
        """Makes a partition known to the monitor: view, map, call ring."""
        plan = record.plan
        if plan["view"] is None:
            return
        segments = {name: segment_of(plan, name) for name in ("map", "call", "events")}
        has = [name for name, segment in segments.items() if segment is not None]
        read = await self.keeper.get_segments([plan["view"], *([plan["map"]] if "map" in has else [])], read_only=True)
        rest = await self.keeper.get_segments([s for name, s in segments.items() if name != "map" and s is not None])
        message = {
            "partition": record.number,
            "type": record.type,
            "has": has,
            "map_pages": plan["map_pages"],
            "call_capacity": plan["call"]["capacity"] if plan["call"] else 0,
            "pid": record.pid or 0,
            "held": record.held,
            "silent": record.silent,
        }
        try:
            await ask(self.monitor, "open", message, [*read, *rest])
            record.opened = True
        finally:
            close_fds([*read, *rest])

    async def attach(self, record: Record) -> None:
        """Attaches all endpoints of a partition at monitor, devices and servers; all or none."""
        await self.open(record)
        try:
            await self.attach_devices(record)
            if record.type == "guest":
                await self.wiring.simulate(record, self.devices)
                await self.wiring.expose(record, self.devices)
                await tcp_networks.join(record, self.devices, self.wiring, ask)
                await self.negotiate_for(record.plan["endpoints"])
            await self.route(record)
        except BaseException:
            await (self.detach(record) if record.attached else self._close(record))
            raise

    async def _close(self, record: Record) -> None:
        """The monitor removes translation entries, and unmaps memory."""
        await release(self.monitor, "close", {"partition": record.number})
        record.opened = record.copied = False

    async def attach_devices(self, record: Record) -> None:
        """Attaches all endpoints of a partition at their devices, and where they have one at their server."""
        plan = record.plan
        memory = await self.keeper.get_segments([extent["segment"] for extent in plan["memory"]])
        queue_ids = [
            segment
            for endpoint in plan["endpoints"]
            for queue in endpoint["queues"]
            for segment in (queue["channel"], queue["ledger"])
        ]
        pairs = [endpoint["pair"]["segment"] for endpoint in plan["endpoints"]]
        fds = await self.keeper.get_segments([plan["events"], *queue_ids])
        pair_fds = await self.keeper.get_segments(pairs)
        done: list[Callable[[], Any]] = []
        try:
            seen: set[str] = set()
            for endpoint, pair in zip(plan["endpoints"], pair_fds, strict=True):
                device = self.devices[endpoint["device"]]
                first = endpoint["device"] not in seen
                seen.add(endpoint["device"])
                message = of_port(record, endpoint, plan["memory"] if first else [])
                await ask(device, "attach", message, [fds[0], pair, *(memory if first else [])])
                endpoint["placed"] = True  # a device that dies before all are there gets it back (hostd.device_life)
                done.append(functools.partial(_detach, device, record.number, endpoint["port"]))
            if queue_ids:
                for endpoint in plan["endpoints"]:
                    self.number_queues(record, endpoint)
                await self.add_queues(record, plan["endpoints"], fds)
            record.attached = True
        except BaseException:
            for undo in reversed(done):
                await undo()
            for endpoint in plan["endpoints"]:
                endpoint.pop("placed", None)
            await self.forget_queues(record)
            raise
        finally:
            close_fds([*memory, *fds, *pair_fds])

    async def detach(self, record: Record) -> None:
        """Takes a dead partition out of the data plane; its statistics stay. Safe to call twice."""
        if not record.attached:
            return
        record.attached = False
        await self._close(record)
        for endpoint in record.plan["endpoints"]:
            if endpoint.get("placed") or not endpoint.get("unplugged"):
                await _detach(self.devices[endpoint["device"]], record.number, endpoint["port"])
            endpoint.pop("placed", None)
        await self.forget_queues(record)
        await self.wiring.withdraw(record, self.devices)  # after them: peers of its connections were told by these ways

    # ---- paths (hostd.path_changes) ----

    async def map_memory(self, record: Record) -> None:
        """The monitor maps a partition's memory, which it copies from and to on the copy path."""
        if not record.copied:
            record.copied = True  # before the request: what undoes it is sent behind it on the same wire
            await self.lend_to_monitor(record)

    async def lend_to_monitor(self, record: Record) -> None:
        fds = await self.keeper.get_segments([extent["segment"] for extent in record.plan["memory"]])
        try:
            await ask(self.monitor, "map_memory", {"partition": record.number, "memory": extents_of(record)}, fds)
        finally:
            close_fds(fds)

    async def unmap_memory(self, record: Record) -> None:
        if record.copied and record.attached:
            record.copied = False
            await release(self.monitor, "unmap_memory", {"partition": record.number})

    async def offer_path(self, record: Record, endpoint: dict[str, Any]) -> str:
        """The monitor reads the wanted path in the descriptor and tells the guest; the path in force."""
        message = {"partition": record.number, "endpoint": endpoint["index"]}
        return (await ask(self.monitor, "offer_path", message))["path"]

    async def recall(self, record: Record, endpoint: dict[str, Any], path: str) -> None:
        """The device gives back what was not executed yet and came by `path`, until `settle`."""
        endpoint["away"] = path  # also at the device's next process, if this one dies
        await ask(self.devices[endpoint["device"]], "recall", {"port": endpoint["port"], "path": path})

    async def settle(self, record: Record, endpoint: dict[str, Any]) -> None:
        endpoint.pop("away", None)
        await ask(self.devices[endpoint["device"]], "settle", {"port": endpoint["port"]})

    async def close_pair(self, record: Record, endpoint: dict[str, Any]) -> int:
        """The queue pair of an endpoint is void, under whatever key; the generation of its last entry."""
        message = {"partition": record.number, "endpoint": endpoint["index"]}
        return int((await ask(self.monitor, "close_pair", message))["generation"])

    # ---- measuring ----

    async def set_attribution(self, on: bool) -> None:
        """Stage stamps of the whole data plane, on or off."""
        await asyncio.gather(*(ask(role, "attribution", {"on": on}) for role in self.roles()))

    async def delay(self, role: str, stage: str, nanoseconds: int) -> None:
        """A fault on purpose: a role loses that time in that stage; 0 ends it."""
        record = next((one for one in self.roles() if one.name == role), None)
        if record is None:
            known = ", ".join(one.name for one in self.roles())
            raise HostError("not_found", f"{role!r} is no part of the data plane; known: {known}")
        await ask(record, "inject", {"stage": stage, "nanoseconds": nanoseconds})

    async def forget(self, record: Record) -> None:
        """Frees the statistics rows of a removed partition."""
        others = [role for role in self.roles() if role.type != "io"]
        await asyncio.gather(*(release(role, "forget", {"partition": record.number}) for role in others))
        if self.servers and record.plan.get("endpoints"):
            await self.forget_rows(record)

    def roles(self) -> list[Record]:
        """Processes of the data plane."""
        return [*([self.monitor] if self.loaded else []), *self.servers.values(), *self.devices.values()]


async def _detach(device: Record, partition: int, port: int) -> None:
    await release(device, "detach", {"partition": partition, "port": port})

"""How a host comes up: control plane, then machine and devices in the database, then the data plane.

keeper -> ultravisor, operations, command -> machine, policies, partitions (one transaction each)
       -> console, monitor, io-a, devices -> rings connected, epoch in office -> guests of the manifest
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hostd.children import Children
from hostd.fabric import Fabric, ask, statistics_size
from hostd.hardware import locate
from hostd.keeper import Keeper
from hostd.manifest import Device, Manifest, Processors
from hostd.manifest_checks import CONSOLE_MEMORY
from hostd.manifest_shares import limits_of
from hostd.paths import Paths
from hostd.records import Record
from hostd.wire import Message, Wire, close_fds, pair

SERVERS = ["io-a"]
EPOCHS = 1 << 16  # terms of office reserved per start of the host
CONTROL_CHANNELS = 3  # command to operations and to ultravisor, console to command
CONNECT_TIMEOUT = 30.0
ROLE_MODULES = [
    "partitions.ultravisor.main", "partitions.command.main", "partitions.operations.main", "partitions.console",
    "partitions.monitor", "partitions.io", "partitions.devices", "partitions.guest",
]  # fmt: skip


class Boot:
    """Brings the infrastructure up; the supervisor keeps what it made."""

    def __init__(self, manifest: Manifest, paths: Paths, keeper: Keeper, children: Children, symmetric: bool) -> None:
        self.manifest = manifest
        self.paths = paths
        self.keeper = keeper
        self.children = children
        self.records: dict[str, Record] = {}
        self.processors = manifest.host.processors or default_processors()
        self.fabric = Fabric(keeper, symmetric, self.processors.infrastructure)
        self.fabric.locations = locate(manifest)
        self.machine: dict[str, Any] = {}
        self.slots: dict[str, int] = {}  # device -> slot
        self.channels: list[tuple[str, str, int]] = []  # control channels: client, server, segment
        self.on_path: Callable[[Message], None] = lambda message: None  # the supervisor's: a guest has gone over
        self.on_refused: Callable[[Message], None] = lambda message: None  # the same: a guest's call was refused
        self._connected = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def _record(self, name: str, kind: str) -> Record:
        record = self.records[name] = Record(name, kind)
        return record

    async def control_plane(self) -> None:
        """Ultravisor, operations and command, wired to each other; each has a wire to hostd."""
        to_keeper = Wire.connect(self.paths.keeper_socket)
        u_command, c_ultravisor = pair()
        o_command, c_operations = pair()
        wires = (to_keeper.sock, u_command, c_ultravisor, o_command, c_operations)
        try:
            await self._start(
                self._record("ultravisor", "ultravisor"), "partitions.ultravisor.main:main",
                {"database": str(self.paths.resources)}, {"keeper": to_keeper.fileno(), "command": u_command.fileno()},
            )  # fmt: skip
            await self._start(
                self._record("operations", "operations"), "partitions.operations.main:main",
                {"policies": str(self.paths.policies)}, {"command": o_command.fileno()},
            )  # fmt: skip
            await self._start(
                self._record("command", "command"), "partitions.command.main:main",
                {"decisions": str(self.paths.decisions)},
                {"ultravisor": c_ultravisor.fileno(), "operations": c_operations.fileno()},
            )  # fmt: skip
        finally:
            for sock in wires:
                sock.close()

    async def _start(
        self,
        record: Record,
        entry: str,
        config: dict[str, Any],
        fds: dict[str, int],
        on_event: Callable[[Message, list[int]], None] | None = None,
    ) -> None:
        spec = {"entry": entry, "sandbox": "role", "config": config}
        await self.children.start(record, spec, fds, on_event=on_event, echo=True)
        record.state = "running"

    async def transaction(self, operations: list[dict[str, Any]]) -> list[Any]:
        message = {"operations": operations, "key": f"hostd:{secrets.token_hex(12)}", "actor": "hostd"}
        return (await ask(self.records["command"], "transaction", message))["results"]

    async def resources(self) -> None:
        """What an earlier host left goes; machine, policies and partitions of the infrastructure come."""
        await ask(self.records["command"], "reconcile", {"processes": []})
        self.machine = (
            await self.transaction(
                [{"op": "machine.define", "memory": self.manifest.host.memory, "processors": _roles(self.processors)}]
            )
        )[0]
        for policy in self.manifest.policies:
            await ask(self.records["command"], "policy.set", {"policy": policy.model_dump()})
        creations: list[dict[str, Any]] = [
            {"op": "partition.create", "name": name, "type": kind, "processors": self.processors.infrastructure}
            for name, kind in (
                ("ultravisor", "ultravisor"), ("operations", "operations"), ("monitor", "monitor"),
                *((device.name, "device") for device in self.manifest.devices),
            )
        ]  # fmt: skip
        creations.append(
            {
                "op": "partition.create", "name": "command", "type": "command",
                "processors": self.processors.infrastructure, "services": ["operations", "ultravisor"],
            }
        )  # fmt: skip
        for creation, plan in zip(creations, await self.transaction(creations), strict=True):
            record = self.records.get(creation["name"]) or self._record(creation["name"], creation["type"])
            record.plan, record.number = plan, plan["partition"]["id"]
        devices = [
            {
                "op": "device.create",
                "name": device.name,
                "kind": device.kind,
                "class": "shared",
                "partition": device.name,
            }
            for device in self.manifest.devices
        ]
        if devices:
            for operation, result in zip(devices, await self.transaction(devices), strict=True):
                self.slots[operation["name"]] = result["slot"]
        for server in SERVERS:
            await self._place(server, "io", self.manifest.host.hosting_memory, [])
        await self._place("console", "console", CONSOLE_MEMORY, ["command"])

    async def _place(self, name: str, kind: str, memory: int, services: list[str]) -> None:
        """A partition of the infrastructure that owns memory."""
        request = {
            "name": name, "type": kind, "memory": memory, "services": services,
            "processors": self.processors.infrastructure,
        }  # fmt: skip
        answer = await ask(self.records["command"], "place", {"request": request, "key": secrets.token_hex(12)})
        record = self._record(name, kind)
        record.plan, record.number = answer["plan"], answer["plan"]["partition"]["id"]

    async def data_plane(self) -> None:
        """Monitor, channel servers and devices, connected; every partition with a call ring is known to the monitor."""
        fabric = self.fabric
        kinds: dict[str, str] = {device.name: device.kind for device in self.manifest.devices}
        await fabric.make_segments(SERVERS, kinds)
        fabric.monitor = self.records["monitor"]
        await self._start(
            fabric.monitor, "partitions.monitor:main",
            fabric.role_config(
                "monitor", faults_size=statistics_size("view"), traps_size=statistics_size("trap"), **self._window()
            ),
            {name: fabric.fd(key) for name, key in
             (("bell", "bell:monitor"), ("statistics", "statistics:monitor"), ("kernel", "kernel"),
              ("faults", "statistics:view"), ("traps", "statistics:traps"))},
            self.hear_monitor,
        )  # fmt: skip
        await self._start_console()
        for server in SERVERS:
            fabric.servers[server] = self.records[server]
            await self._start_server(self.records[server])
        kernel = await fabric.read_only("kernel")
        for wanted in self.manifest.devices:
            fabric.devices[wanted.name] = self.records[wanted.name]
            await self._start_device(self.records[wanted.name], wanted, kernel)
        close_fds([kernel])
        for record in self.records.values():
            if record.type not in ("monitor", "device", "console"):
                await fabric.open(record)
        for record in fabric.servers.values():
            await ask(fabric.monitor, "set_epoch", {"server": record.number, "epoch": record.spec["epoch"]})
            for name, device in fabric.devices.items():
                await fabric.connect(record, device, self.slots[name])
            await fabric.lend_buffers(record)
        await fabric.attach(self.records["console"])

    def _window(self) -> dict[str, int]:
        """The range of machine memory, in which monitor and devices map partitions."""
        return {"window_first": self.machine["first_frame"] * 4096, "window_size": self.machine["frames"] * 4096}

    async def _start_device(self, record: Record, device: Device, kernel: int) -> None:
        fabric, name = self.fabric, record.name
        config = fabric.role_config(device.kind, medium=device.medium, **self._window())
        translations = await fabric.read_only(f"translation:{name}")
        fds = {
            "bell": fabric.fd(f"bell:{name}"), "statistics": fabric.fd(f"statistics:{name}"),
            "kernel": kernel, "translations": translations,
        }  # fmt: skip
        try:
            await self._start(record, f"partitions.devices:{device.kind}", config, fds)
        finally:
            close_fds([translations])
        await fabric.connect_translations(name, self.slots[name])
        if device.limits is not None:
            await ask(record, "set_limits", {"limits": limits_of(device.limits)})

    async def _start_server(self, record: Record) -> None:
        fabric, plan = self.fabric, record.plan
        (epochs,) = await self.transaction([{"op": "epoch.reserve", "partition": record.number, "count": EPOCHS}])
        record.spec = {"epoch": epochs["first"]}
        call, events = await self.keeper.get_segments([plan["call"]["segment"], plan["events"]])
        config = fabric.role_config(
            "io", partition=record.number, epoch=epochs["first"], call_capacity=plan["call"]["capacity"],
            memory_size=sum(extent["size"] for extent in plan["memory"]),
        )
        fds = {
            "bell": fabric.fd(f"bell:{record.name}"), "statistics": fabric.fd(f"statistics:{record.name}"),
            "call": call, "events": events,
        }  # fmt: skip
        try:
            await self._start(record, "partitions.io:main", config, fds)
        finally:
            close_fds([call, events])

    async def _start_console(self) -> None:
        record = self.records["console"]
        fds = await partition_descriptors(self.keeper, record.plan)
        close_fds([fds.pop("call"), fds.pop("events")])  # handed over with the call ring, once the monitor runs
        try:
            await self._start(record, "partitions.console:main", {"plan": record.plan}, fds)
        finally:
            close_fds(fds.values())

    def hear_monitor(self, message: Message, fds: list[int]) -> None:
        """A connect call of a partition to an infrastructure service waits for its channel; or a guest has gone over
        to another path."""
        close_fds(fds)
        if message.get("event") == "path":
            self.on_path(message)
        if message.get("event") == "refused":
            self.on_refused(message)
        if message.get("event") == "connect":
            task = asyncio.create_task(self._connect_service(message))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connect_service(self, message: Message) -> None:
        """Has the ultravisor make the channel, hands out both ends, then lets the monitor answer the call."""
        client = next((record for record in self.records.values() if record.number == message["partition"]), None)
        server = self.records.get(message["service"])
        answer = {"partition": message["partition"], "call": message["call"], "connected": False, "result": 0}
        try:
            if client is not None and server is not None and client.wire is not None and server.pidfd is not None:
                operation = {
                    "op": "channel.create",
                    "client": client.number,
                    "server": server.number,
                    "service": message["service"],
                }
                (channel,) = await self.transaction([operation])
                number = channel["channel"] & 0xFFFF
                end = {"capacity": channel["capacity"], "symmetric": self.fabric.symmetric}
                (fd,) = await self.keeper.get_segments([channel["segment"]])
                try:
                    await ask(server, "channel", {**end, "peer": client.name}, [fd])
                    await ask(client, "channel_opened", {**end, "number": number}, [fd, server.pidfd])
                finally:
                    close_fds([fd])
                self.channels.append((client.name, server.name, channel["segment"]))
                self._connected.set()
                answer |= {"connected": True, "result": number}
        finally:
            await ask(self.fabric.monitor, "answer", answer)

    async def control_channels(self) -> None:
        """Command and console open their services by system calls; afterwards they need no boot wires."""
        for name in ("command", "console"):
            record = self.records[name]
            call, events = await self.keeper.get_segments([record.plan["call"]["segment"], record.plan["events"]])
            try:
                message = {"capacity": record.plan["call"]["capacity"], "symmetric": self.fabric.symmetric}
                await ask(record, "call_ring", message, [call, events])
            finally:
                close_fds([call, events])
        async with asyncio.timeout(CONNECT_TIMEOUT):
            while len(self.channels) < CONTROL_CHANNELS:
                self._connected.clear()
                await self._connected.wait()

    async def record_processes(self) -> None:
        """Tells the database which process each partition is."""
        operations: list[dict[str, Any]] = []
        for record in self.records.values():
            operations.append(
                {
                    "op": "process.record", "partition": record.number, "pid": record.pid,
                    "start_time": record.start_ticks,
                }
            )  # fmt: skip
            operations.append({"op": "partition.state", "partition": record.number, "state": "running"})
        await self.transaction(operations)
        for record in self.records.values():
            if record.plan.get("view") is not None:
                await ask(self.fabric.monitor, "started", {"partition": record.number, "pid": record.pid})


async def partition_descriptors(keeper: Keeper, plan: dict[str, Any]) -> dict[str, int]:
    """Descriptors of what a guest or the console maps, by the names that the guest runtime expects."""
    names = [f"memory{index}" for index in range(len(plan["memory"]))]
    segments = [extent["segment"] for extent in plan["memory"]]
    names += ["call", "events"]
    segments += [plan["call"]["segment"], plan["events"]]
    for endpoint in plan["endpoints"]:
        for queue in endpoint["queues"]:
            names.append(f"queue{endpoint['index']}.{queue['queue']}")
            segments.append(queue["channel"])
        names.append(f"pair{endpoint['index']}")
        segments.append(endpoint["pair"]["segment"])
    return dict(zip(names, await keeper.get_segments(segments), strict=True))


def default_processors() -> Processors:
    """The last processor serves the infrastructure, the others the guests; a single one serves both."""
    present = sorted(os.sched_getaffinity(0))
    return Processors(infrastructure=present[-1:], guests=present[:-1] or present)


def _roles(processors: Processors) -> list[dict[str, Any]]:
    infrastructure, guests = set(processors.infrastructure), set(processors.guests)
    return [
        {
            "number": number,
            "role": "both" if number in infrastructure & guests else "guests" if number in guests else "infrastructure",
        }
        for number in sorted(infrastructure | guests)
    ]


def disk_folder(manifest: Manifest, paths: Paths, device: str) -> Path:
    """Where the files of a disk device lie."""
    for entry in manifest.devices:
        if entry.name == device and entry.folder:
            return Path(entry.folder)
    return paths.disks

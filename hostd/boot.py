"""How a host boots: control plane, then machine and devices in the database, then the devices and the console.

keeper -> ultravisor, operations, command -> machine, policies, partitions (one transaction each)
       -> devices -> console, which drives those that are host-managed by itself

Monitor, I/O partitions and guests come with the load call (hostd.loading).
"""

from __future__ import annotations

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hostd.children import Children
from hostd.disk_interrupts import default_processors, ends_apart
from hostd.fabric import Fabric, ask
from hostd.hardware import locate, numbers
from hostd.hardware_region import traps_work
from hostd.keeper import Keeper
from hostd.manifest import Manifest, Processors
from hostd.manifest_checks import CONSOLE_MEMORY
from hostd.manifest_shares import limits_of
from hostd.notes import Notes
from hostd.paths import Paths
from hostd.records import Record
from hostd.wire import Message, Wire, close_fds, pair

CONTROL_PLANE = ("ultravisor", "operations", "command")  # roles
FILE_MEDIA = ("file", "direct", "volume")  # disks of others are no files
CONSOLE_DISK = 1 << 20  # bytes of the console's disk at each disk device of its own
ROLE_MODULES = [
    "partitions.ultravisor.main", "partitions.command.main", "partitions.operations.main", "partitions.console",
    "partitions.monitor", "partitions.io", "partitions.devices", "partitions.guest", "partitions.program",
]  # fmt: skip


class Boot:
    """Brings the infrastructure up; the supervisor keeps what it made."""

    def __init__(self, manifest: Manifest, paths: Paths, keeper: Keeper, children: Children, symmetric: bool) -> None:
        self.manifest = manifest
        self.paths = paths
        self.keeper = keeper
        self.children = children
        self.records: dict[str, Record] = {}
        self.notes = Notes(keeper)
        self.processors = manifest.host.processors or default_processors(disk_folders(manifest, paths))
        self.fabric = Fabric(keeper, symmetric, self.processors.infrastructure)
        self.fabric.locations = locate(manifest)
        self.traps = manifest.host.hardware == "trapped" and traps_work()
        self.fabric.host_managed = [device.name for device in manifest.devices if device.device_class == "host-managed"]
        self.machine: dict[str, Any] = {}
        self.slots: dict[str, int] = {}  # device -> slot
        self._recording: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def record(self, name: str, kind: str) -> Record:
        record = self.records[name] = Record(name, kind)
        return record

    async def control_plane(self) -> None:
        """Ultravisor, operations and command, wired to each other; each has a wire to hostd."""
        u_command, c_ultravisor = pair()
        o_command, c_operations = pair()
        try:
            await self.start_control(self.record("ultravisor", "ultravisor"), {"command": u_command.fileno()})
            await self.start_control(self.record("operations", "operations"), {"command": o_command.fileno()})
            ends = {"ultravisor": c_ultravisor.fileno(), "operations": c_operations.fileno()}
            await self.start_control(self.record("command", "command"), ends)
        finally:
            for sock in (u_command, c_ultravisor, o_command, c_operations):
                sock.close()
        for role in CONTROL_PLANE:
            await ask(self.records[role], "ping", {})  # one that cannot use its file says so here

    async def start_control(self, record: Record, fds: dict[str, int]) -> None:
        """Starts the process of ultravisor, operations or command, with its file and wires to others of them."""
        file = {"ultravisor": "database", "operations": "policies", "command": "decisions"}[record.name]
        path = {"database": self.paths.resources, "policies": self.paths.policies, "decisions": self.paths.decisions}
        to_keeper = Wire.connect(self.paths.keeper_socket) if record.name == "ultravisor" else None
        try:
            more = {"keeper": to_keeper.fileno()} if to_keeper is not None else {}
            await self.start(record, f"partitions.{record.name}.main:main", {file: str(path[file])}, {**more, **fds})
        finally:
            if to_keeper is not None:
                to_keeper.close()

    async def start(
        self,
        record: Record,
        entry: str,
        config: dict[str, Any],
        fds: dict[str, int],
        on_event: Callable[[Message, list[int]], None] | None = None,
    ) -> None:
        spec = {"entry": entry, "sandbox": "role", "config": config}
        await self.children.start(record, spec, fds, on_event=on_event, echo=True)
        # One that follows a dead process is at work when it has all that that one had.
        record.state = "starting" if record.absence is not None and record.absence.absent else "running"

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
                ("ultravisor", "ultravisor"), ("operations", "operations"),
                *((device.name, "device") for device in self.manifest.devices),
            )
        ]  # fmt: skip
        creations.append(
            {
                "op": "partition.create", "name": "command", "type": "command",
                "processors": self.processors.infrastructure, "services": ["operations", "ultravisor"],
            }
        )  # fmt: skip
        await self.create(creations)
        await self._define_devices()
        await self.place("console", "console", CONSOLE_MEMORY, ["command"], self._console_endpoints())

    async def _define_devices(self) -> None:
        """Buses, and the devices on them. Without buses in the manifest there is none to be assigned."""
        buses = self.manifest.buses
        named = [{"number": number, "name": bus.name} for bus, number in zip(buses, numbers(buses), strict=True)]
        await self.transaction([{"op": "machine.buses", "buses": named}])
        devices: list[dict[str, Any]] = [
            {
                "op": "device.create", "name": device.name, "kind": device.kind, "class": device.device_class,
                "partition": device.name, **({"bus": self.fabric.locations[device.name].bus} if named else {}),
            }
            for device in self.manifest.devices
        ]  # fmt: skip
        if devices:
            for operation, result in zip(devices, await self.transaction(devices), strict=True):
                self.slots[operation["name"]] = result["slot"]

    async def create(self, creations: list[dict[str, Any]]) -> None:
        """Partitions of the infrastructure without memory: rows and records."""
        for creation, plan in zip(creations, await self.transaction(creations), strict=True):
            record = self.records.get(creation["name"]) or self.record(creation["name"], creation["type"])
            record.plan, record.number = plan, plan["partition"]["id"]

    def _console_endpoints(self) -> list[dict[str, Any]]:
        """What the console has at the devices of its own: a disk at each disk device, two ends at each NIC."""
        endpoints: list[dict[str, Any]] = []
        for number, device in enumerate(self.manifest.devices):
            if device.device_class != "host-managed":
                continue
            common = {"kind": device.kind, "device": device.name}
            if device.kind == "disk":
                file = disk_folder(self.manifest, self.paths, device.name) / f"console-{device.name}.img"
                endpoints.append({"name": f"disk{number}", "file": str(file), "length": CONSOLE_DISK, **common})
            else:
                endpoints += [{"name": f"nic{number}-{end}", **common} for end in "ab"]
        return endpoints

    async def place(
        self, name: str, kind: str, memory: int, services: list[str], endpoints: list[dict[str, Any]]
    ) -> None:
        """A partition of the infrastructure that owns memory."""
        request = {
            "name": name, "type": kind, "memory": memory, "services": services,
            "processors": self.processors.infrastructure, "endpoints": endpoints,
        }  # fmt: skip
        answer = await ask(self.records["command"], "place", {"request": request, "key": secrets.token_hex(12)})
        record = self.record(name, kind)
        record.plan, record.number = answer["plan"], answer["plan"]["partition"]["id"]

    async def devices(self) -> None:
        """Devices, then the console, which works with its own from its first instruction on."""
        fabric = self.fabric
        await fabric.make_device_segments({device.name: device.kind for device in self.manifest.devices})
        for wanted in self.manifest.devices:
            fabric.devices[wanted.name] = self.records[wanted.name]
            await self.start_device(self.records[wanted.name])
            for wire in wanted.wires:
                await fabric.wiring.add(self.records[wanted.name], wire)
        await fabric.attach_devices(self.records["console"])
        await self._start_console()
        await self.record_processes(list(self.records.values()))

    def window(self) -> dict[str, int]:
        """The range of machine memory, in which monitor and devices map partitions."""
        return {"window_first": self.machine["first_frame"] * 4096, "window_size": self.machine["frames"] * 4096}

    async def start_device(self, record: Record, successor: bool = False) -> None:
        """The process of a device, and what the manifest says of it. `successor`: it follows one that died."""
        fabric, name = self.fabric, record.name
        device = next(one for one in self.manifest.devices if one.name == name)
        simulated = device.simulated.model_dump() if device.simulated else None
        volume = device.volume.model_dump() if device.volume else None
        apart = device.kind == "disk" and ends_apart(
            [disk_folder(self.manifest, self.paths, name)], self.processors.infrastructure
        )
        config = fabric.role_config(
            device.kind, medium=device.medium, simulated=simulated, volume=volume, successor=successor, apart=apart,
            weakness=fabric.weakness.get(name), **self.window()
        )  # fmt: skip
        translations = await fabric.read_only(f"translation:{name}")
        fds = {
            "bell": fabric.fd(f"bell:{name}"), "statistics": fabric.fd(f"statistics:{name}"),
            "translations": translations, "vectors": fabric.fd(f"vectors:{name}"),
            "ledger": fabric.fd(f"ledger:{name}"),
        }  # fmt: skip
        try:
            await self.start(record, f"partitions.devices:{device.kind}", config, fds)
        finally:
            close_fds([translations])
        if device.limits is not None:
            await ask(record, "set_limits", {"limits": limits_of(device.limits)})

    async def _start_console(self) -> None:
        record = self.records["console"]
        fds = await partition_descriptors(self.keeper, record.plan)
        # Its own for the time being: the console writes entries and routes while no kernel is loaded.
        entries = {
            f"{kind}.{name}": self.fabric.fd(f"{kind}:{name}")
            for name in self.fabric.host_managed for kind in ("translation", "vectors")
        }  # fmt: skip
        config = {"plan": record.plan, "symmetric": self.fabric.symmetric}
        try:
            await self.start(record, "partitions.console:main", config, {**fds, **entries})
        finally:
            close_fds(fds.values())

    async def record_again(self, record: Record) -> None:
        """A role has another process, with the same segments. Where it has ended by the time that it is on record, its
        note stays what it was: the next one is not complete, and a hostd that follows would take it for that."""
        async with self._recording[record.name]:  # what is asked again later must not put an earlier process on record
            if record.exit_status is not None:
                return  # its end, or the next one, is put on record
            process = record.process
            state = {"op": "partition.state", "partition": record.number}
            recorded = {**state, "op": "process.record", "pid": record.pid, "start_time": record.start_ticks}
            await self.transaction(
                [{**state, "state": "failed"}, {**state, "state": "starting"}, recorded, {**state, "state": "running"}]
            )
            if record.process == process and not (record.absence is not None and record.absence.absent):
                await self.notes.record(record)

    async def record_end(self, record: Record, state: str) -> None:
        """Its process has ended, and no other one comes. The beginning of that one may still be on its way to the
        database: who told the end first would leave a dead process on record, which nothing removes."""
        async with self._recording[record.name]:
            await self.transaction([{"op": "partition.state", "partition": record.number, "state": state}])

    async def record_processes(self, records: list[Record]) -> None:
        """Tells the database which process each partition is."""
        operations: list[dict[str, Any]] = []
        for record in [one for one in records if one.exit_status is None]:  # the end of the others is on record
            operations.append(
                {
                    "op": "process.record", "partition": record.number, "pid": record.pid,
                    "start_time": record.start_ticks,
                }
            )  # fmt: skip
            operations.append({"op": "partition.state", "partition": record.number, "state": "running"})
        if operations:
            await self.transaction(operations)
        for record in records:
            await self.notes.record(record)


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
    """Where the files of a disk device lie; of a volume the file itself, as if its disks were files in it."""
    for entry in manifest.devices:
        if entry.name == device and entry.volume:
            return Path(entry.volume.file)
        if entry.name == device and entry.folder:
            return Path(entry.folder)
    return paths.disks


def disk_folders(manifest: Manifest, paths: Paths) -> list[Path]:
    """Of all disk devices whose disks are files."""
    names = [device.name for device in manifest.devices if device.kind == "disk" and device.medium in FILE_MEDIA]
    return [disk_folder(manifest, paths, name) for name in names]

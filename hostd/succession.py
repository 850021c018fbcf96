"""hostd after the death of an earlier one: it takes over what runs, as it runs (rules 28, 29 and 32).

    keeper found -> the dead one's requests are over -> notes -> segments by their labels -> pidfds and wires of every
    noted process -> processes without a note are ended -> roles have answered what the dead one asked of them
    -> what no record claims goes: endpoints, queues, partitions in the database -> who died meanwhile is told of

Guests do not notice: nothing of the data plane passes through hostd. What was only half done when the earlier one died
is completed or undone by what is found, so it does not matter where it was.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from hostd import notes as noted
from hostd.boot import Boot
from hostd.children import Children
from hostd.control_life import ControlLife
from hostd.device_life import Devices
from hostd.drivers import Drivers
from hostd.errors import HostError
from hostd.events import EventLog
from hostd.fabric import Fabric
from hostd.io_life import Offices
from hostd.keeper import Keeper
from hostd.leftovers import Leftovers
from hostd.loading import SERVERS, Loading
from hostd.manifest import Manifest, PartitionSpec, Processors
from hostd.manifest_wires import Wire
from hostd.monitor_life import MonitorLife
from hostd.path_changes import PathChanges
from hostd.paths import Paths
from hostd.records import ENDED, Record
from hostd.refusals import Refusals
from hostd.role_lives import RoleLives
from hostd.urgency import Urgency
from hostd.wire import RemoteError, WireError
from hostd.wiring import Placed

PATIENCE = 5.0  # seconds for a role to answer; one that is stopped must not keep the host from its API
NOT_YET = ("defined", "starting")
PAUSES = (0.1, 0.5, 2.0)  # seconds before leftovers are looked for once more: short, for the API waits
STOP_TIMEOUT = 2.0  # seconds that a guest gets which was being stopped

Row = dict[str, Any]
Notes = dict[str, Row]


async def read(keeper: Keeper) -> Notes | None:
    """From now on this process leads the host of a keeper that was found alive: what a dead hostd noted. None where it
    had not come to a host that works, or was between two states of its kernel: then there are no guests."""
    await keeper.lead()
    found = await noted.Notes(keeper).read(await keeper.list_held())
    return found if found.get(noted.HOST, {}).get("kernel") in ("loaded", "none") else None


def manifest_of(notes: Notes, paths: Paths) -> Manifest:
    """The manifest that the host was started with. HostError `conflict` for another state folder than its own."""
    state = notes[noted.HOST]["state"]
    if state != str(paths.state):
        text = f"the host that runs in {paths.runtime} keeps its state in {state}, not in {paths.state}"
        raise HostError("conflict", f"{text}; --state-dir names it")
    return Manifest.model_validate(notes[noted.HOST]["manifest"])


def metrics_of(notes: Notes) -> str | None:
    """Where the metrics were, as HOST:PORT."""
    url: str | None = notes[noted.HOST]["metrics"]
    return urlsplit(url).netloc if url else None


def _complete(record: Record) -> bool:
    """Is the next hostd to know of it? What is being started it undoes, or begins again."""
    return record.state not in NOT_YET and (record.absence is None or not record.absence.absent)


async def _done(role: Record) -> None:
    """Returns when this process of it has done all that it was asked for, or has ended."""
    assert role.wire is not None
    async with asyncio.timeout(PATIENCE):
        with suppress(EOFError, WireError, ConnectionError):
            await role.wire.request({"op": "ping"}, timeout=None)


class Succession(noted.Noting):
    """Mixin of the supervisor, which owns everything that is named here without a value."""

    events: EventLog
    keeper: Keeper
    paths: Paths
    records: dict[str, Record]
    fabric: Fabric
    metrics_url: str | None
    _boot: Boot
    _children: Children
    _control_life: ControlLife
    _lives: RoleLives
    _guests: list[int]
    _loading: Loading
    _manifest: Manifest
    _monitor_life: MonitorLife
    _devices: Devices
    _offices: Offices
    _paths: PathChanges
    _refusals: Refusals
    _unloaded: Row | None
    _urgency: Urgency
    _drivers: Drivers
    _stage: Row = {"kernel": "booting", "pending": False}
    _endings: set[asyncio.Task[None]]

    async def spawn(self, spec: PartitionSpec, *, key: str | None, actor: str) -> Row:
        raise NotImplementedError

    settle_endpoints: Callable[[Record, list[int]], Awaitable[None]]
    resume_lines: Callable[[Record], Awaitable[None]]
    resume_revocations: Callable[[Record], None]
    resume_withdrawals: Callable[[Record], None]

    def _tell_later(self, record: Record) -> None:
        raise NotImplementedError

    async def _terminate(self, record: Record, timeout: float) -> None:
        raise NotImplementedError

    async def _discard(self, record: Record, key: str | None = None, actor: str = "hostd") -> None:
        raise NotImplementedError

    def _hear_guest(self, record: Record, sock: Any, started: asyncio.Future[None]) -> None:
        raise NotImplementedError

    # ---- before a death ----

    async def note_host(self, **stage: Any) -> None:
        """What is not of one process. `stage`, where it changes, which concerns every record: "kernel" ("booting",
        "none", "loading", "loaded", "unloading"), "pending": guests of the manifest are still to be started."""
        self._stage = {**self._stage, **stage}
        await self.note_wires()
        for record in [one for one in self.records.values() if stage and _complete(one)]:
            await self._boot.notes.record(record)
        document = {
            "manifest": {**noted.plain(self._manifest), "version": self._manifest.version},
            "state": str(self.paths.state),
            "metrics": self.metrics_url,
            "processors": self._boot.processors.model_dump(),
            "traps": self._boot.traps,
            "machine": self._boot.machine,
            "slots": self._boot.slots,
            "charging": self.fabric.charging,
            "channels": self._loading.noted(),
            "serving": self.fabric.serving,
            "unloaded": self._unloaded,
            **self._stage,
        }
        await self._boot.notes.write(noted.HOST, document)

    async def note_wires(self) -> None:
        wires = [
            {
                "device": one.device, "number": one.number, "wire": noted.plain(one.wire), "partition": one.partition,
                "network": one.network,
            }
            for one in self.fabric.wiring.placed
        ]
        await self._boot.notes.write(noted.WIRES, {"wires": wires})

    async def note(self, record: Record) -> None:
        """From here on a partition is there, or has another state, whoever is hostd."""
        if self.records.get(record.name) is record and _complete(record):
            await self.note_wires()
            await self._boot.notes.record(record)

    # ---- after it ----

    async def adopt(self, notes: Notes) -> None:
        """Takes over. HostError or RemoteError where the host cannot be known any more."""
        begin = time.monotonic()
        host = notes[noted.HOST]
        await self.keeper.watch()
        listed, held = await self.keeper.list(), await self.keeper.list_held()
        for record in [noted.to_record(note) for name, note in notes.items() if name.startswith(noted.RECORD)]:
            self.records[record.name] = record
        self._restore(host)
        with self._urgency.following():
            self.fabric.wiring.placed = [
                Placed(one["device"], one["number"], Wire.model_validate(one["wire"]), one["partition"], one["network"])
                for one in notes[noted.WIRES]["wires"]
                if one["partition"] is None or one["partition"] in self.records
            ]
            kinds: dict[str, str] = {device.name: device.kind for device in self._manifest.devices}
            await self.fabric.find_segments(kinds, list(self.fabric.servers), self._loading.scheduled())
            processes = {row["id"]: row for row in listed["processes"]}
            everybody = list(self.records.values())
            dead = [(one, status) for one in everybody if (status := await self._take_over(one, processes))]
            self._control_life.reachable.set()
            leftovers = Leftovers(self._boot, self._children, self._refusals, self._discard, self._settle_guest)
            await leftovers.end_strangers(processes.values(), held)
            problems = await self._barrier()
            if self.fabric.loaded and not self._loading.connected:
                problems += await self._control_life.mend_wires(PATIENCE)
            for record, status in dead:
                self._children.ended_before(record, status)
            took = time.monotonic() - begin
            living = [record for record in self.records.values() if record.exit_status is None]
            for record in living:
                self._drivers.place(record)  # a hostd that was killed may have started one and no more
            facts = {"processes": len(living), "ended": [one.name for one, _ in dead], "seconds": took}
            self.events.publish("adopted", **facts)
        await asyncio.gather(*self._endings, return_exceptions=True)
        if self.fabric.loaded:
            if self.fabric.monitored:
                await self._offices.look()
            if not self._loading.connected:  # the dead one was about to open them
                self._control_life.reopen()
        for problem in [*problems, *await self._clear(leftovers)]:
            self.events.publish("error", message=f"adoption: {problem}")
        self._control_life.adopted.set()
        for record in [one for one in living if one.state == "stopping"]:  # who asked for it went with the dead hostd
            self._endings.add(task := asyncio.create_task(self._terminate(record, STOP_TIMEOUT)))
            task.add_done_callback(self._endings.discard)
        for record in [one for one in self.records.values() if one.untold is not None]:
            self._tell_later(record)
        if host["pending"]:
            await self._spawn_rest()
        await self.note_host(pending=False)

    async def _clear(self, leftovers: Leftovers) -> list[str]:
        """A role may die meanwhile: what was not done is done again, before anything new begins. What stays, in
        words."""
        for pause in PAUSES:
            if not await leftovers.remove():
                return []
            await asyncio.sleep(pause)
        return await leftovers.remove()

    def _restore(self, host: Row) -> None:
        boot, fabric, records = self._boot, self.fabric, self.records
        boot.processors = Processors.model_validate(host["processors"])
        self._guests, fabric.processors = boot.processors.guests, boot.processors.infrastructure
        boot.traps, boot.machine, boot.slots = host["traps"], host["machine"], host["slots"]
        fabric.charging, self._unloaded = host["charging"], host["unloaded"]
        self._stage = {name: host[name] for name in self._stage}
        fabric.devices = {device.name: records[device.name] for device in self._manifest.devices}
        self._devices.watch(fabric.devices.values())
        fabric.restore_numbers(list(records.values()))
        self._loading.restore(host["channels"], boot.slots, host["kernel"] == "loaded")
        self._lives.begin()
        if host["kernel"] == "loaded":
            fabric.slots = dict(boot.slots)
            fabric.monitor = records["monitor"]
            self._monitor_life.watch(fabric.monitor)
            self._offices.resume([records[name] for name in SERVERS], host["serving"])

    async def _take_over(self, record: Record, processes: dict[int, Row]) -> dict[str, int] | None:
        """What the keeper holds of the process of a record is ours from now on. How it ended, if it has meanwhile."""
        row = processes.pop(record.process, None)
        if row is None:  # the earlier hostd had seen its end, and had the keeper forget it
            record.process = 0
        if record.exit_status is not None and record.state in ENDED:
            return None
        # Noted between its end and what follows from it: data plane and database may not know of it yet.
        status, record.exit_status = record.exit_status, None
        record.attached |= record.type == "guest"  # the earlier hostd may have come to half of its detach
        if status is not None or row is None:
            return status or {"signalled": signal.SIGKILL}
        if row["status"] is not None:
            return dict(row["status"])
        if record.type != "guest" and record.state in NOT_YET:  # it has not been told all that it has to know
            await self._children.end_stranger(row)
            record.process = 0
            return {"signalled": signal.SIGKILL}
        await self._children.resume(record, self._loading.hear_monitor if record.type == "monitor" else None)
        held = await self.keeper.get_held(f"{record.name}:{record.process}:lifecycle")
        for descriptor in held or []:
            record.lifecycle = socket.socket(fileno=descriptor)
            loop = asyncio.get_running_loop()
            started: asyncio.Future[None] = loop.create_future()
            started.set_result(None)
            loop.add_reader(descriptor, self._hear_guest, record, record.lifecycle, started)
        return None

    async def _barrier(self) -> list[str]:
        """After the return every role has done what the dead hostd asked of it. Names those that do not answer. One
        that ends meanwhile has nothing to do any more, and is not waited for: its next process may wait for others
        whose deaths nobody is told of before the return."""
        roles = [record for record in self.records.values() if record.wire is not None and record.exit_status is None]
        answers = await asyncio.gather(*(_done(one) for one in roles), return_exceptions=True)
        failed = [(record, error) for record, error in zip(roles, answers, strict=True) if isinstance(error, Exception)]
        return [f"{record.name} does not answer: {str(error) or 'it hangs'}" for record, error in failed]

    async def _settle_guest(self, record: Record, queues: list[int]) -> None:
        await self.settle_endpoints(record, queues)
        if record.plan["partition"]["state"] == "stopping":  # its end was decided, and then not noted any more
            record.state, record.stop_asked = "stopping", True
        if self.fabric.monitored:  # one that was given up knows everything when it comes back
            await self._paths.catch_up(record)
        await self.resume_lines(record)
        self.resume_revocations(record)
        self.resume_withdrawals(record)

    async def _spawn_rest(self) -> None:
        """Guests of the manifest that the earlier hostd had not come to."""
        for spec in [one for one in self._manifest.partitions if one.name not in self.records]:
            try:
                await self.spawn(spec, key=None, actor="manifest")
            except (HostError, RemoteError, WireError, OSError, EOFError) as error:
                self.events.publish("error", partition=spec.name, message=f"adoption: {error}")

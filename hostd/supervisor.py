"""The supervisor: what the API asks for, done through command partition, keeper and data plane.

    spawn: API -> command (decides, ultravisor commits) -> segments from the keeper -> monitor, devices, server know
           the partition -> keeper starts the guest -> the guest's first line is heard on its lifecycle wire

State of a partition is the database's; the records here follow its transactions.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import psutil

from hostd import charging, exports, networks, own_logs, traps, views
from hostd.adoption import Adoption
from hostd.boot import Boot, disk_folder, partition_descriptors
from hostd.checks import Checks
from hostd.children import Children
from hostd.control_life import ControlLife
from hostd.drivers import Drivers
from hostd.endings import Endings
from hostd.errors import HostError
from hostd.events import EventLog
from hostd.fabric import ask
from hostd.hardware import assigned
from hostd.io_life import Offices
from hostd.keeper import Keeper
from hostd.kernel_life import KernelLife
from hostd.kernel_work import KernelWork
from hostd.line_life import LineLife
from hostd.loading import Loading
from hostd.manifest import Manifest, PartitionSpec, complete, with_path
from hostd.monitor_life import MonitorLife
from hostd.nic_queues import NicQueues
from hostd.path_changes import PathChanges
from hostd.paths import Paths
from hostd.placement import placement_request
from hostd.queue_pairs import several
from hostd.records import ENDED, Record, is_python, own_record
from hostd.refusals import Refusals
from hostd.runtime import sweep_stale
from hostd.succession import Succession
from hostd.urgency import Urgency
from hostd.wire import RemoteError, WireError, close_fds, pair, receive_packet
from hostd.wire_life import WireLife
from hostd.withdrawal import Withdrawing
from hostd.world_life import WorldLife
from pyx.loop import register_membarrier

Row = dict[str, Any]

REPORTS_MAX = 10_000  # events that one guest may cause in its life: the log is everybody's
REPORT_BYTES_MAX = 4096
START_TIMEOUT = 30.0


class Supervisor(Endings, WorldLife, KernelLife, Withdrawing, WireLife, LineLife, NicQueues, Succession):
    """One host. Made by `hostd.__main__`; the interface is hostd.interface.Supervisor."""

    metrics_url: str | None = None
    lost = False  # the keeper has died

    def __init__(self, manifest: Manifest, paths: Paths, keeper: Keeper) -> None:
        self.events = EventLog()
        self.paths = paths
        self.keeper = keeper
        self._manifest = manifest
        self._boot_time = psutil.boot_time()
        self._children = Children(keeper, self._ended)
        keeper.on_event = self._children.hear
        keeper.on_close = self._keeper_ended
        # Without membarrier both sides of every wake-up use sequentially consistent operations.
        self._boot = Boot(manifest, paths, keeper, self._children, symmetric=not register_membarrier())
        self.records, self._guests, self.fabric = self._boot.records, self._boot.processors.guests, self._boot.fabric
        self._names: dict[str, Record] = {}  # being spawned
        self._changed = asyncio.Condition()
        self._plugging = asyncio.Lock()
        self._drivers = Drivers(self._boot)
        self._urgency = Urgency(self.records, keeper, self._drivers)
        self._kernel_work = KernelWork(self._urgency, self.events)
        self._paths = PathChanges(self.fabric, self._decide_path, self._transaction, self.events)
        self._refusals = Refusals(self.fabric, self.events, self.records)
        self._offices = Offices(self._boot, self.events, self._after_end)
        heard = {"path": self._hear_path, "refused": self._refusals.hear, "takeover": self._offices.hear}
        self._loading = Loading(self._boot, self._offices, self._end_role, heard)
        adoption = Adoption(self._loading, self._refusals, self.records, self.events, self.schedule, self._hear_path)
        self._monitor_life = MonitorLife(
            self._boot, adoption.follow, self.events, self._after_end, freed=self.free_worlds
        )
        self._control_life = ControlLife(
            self._boot, self._loading, self.events, self._followed, self._after_end, self.note_host
        )
        self._begin_unloaded()
        self._endings: set[asyncio.Task[None]] = set()
        self._telling: set[asyncio.Task[None]] = set()
        self._going_down = False
        self.finished = asyncio.Event()

    # ---- life of the host ----

    async def up(self, load: bool = True) -> None:
        """Boots; and with `load` brings in the kernel, then the guests of the manifest."""
        await self.keeper.watch()
        disk_folder(self._manifest, self.paths, "").mkdir(mode=0o700, exist_ok=True)
        await self._boot.control_plane()
        self._control_life.reachable.set()
        self._control_life.adopted.set()
        self._lives.begin()
        await self._boot.resources()
        await self._start_devices()
        await self.note_host(kernel="none")
        self._tell_started(list(self.records.values()))
        if load:
            await self.load()

    async def down(self) -> None:
        """Stops guests in order, then everything that the keeper started, then the keeper. Whoever calls while it is
        under way waits for its end."""
        if self._going_down:
            await self.finished.wait()
            return
        self._going_down = True
        self._lives.stop()
        try:
            running = (record for record in self.records.values() if record.type == "guest" and not self.lost)
            guests = [record for record in running if record.state not in ENDED]
            await asyncio.gather(*(self._terminate(record, 2.0) for record in guests), return_exceptions=True)
            self.events.publish("down")
            self.events.close()
            self._lives.give_up()
            with suppress(EOFError):
                await self.keeper.stop()
        finally:
            self.fabric.close_segments()
            sweep_stale(self.paths.runtime)  # a keeper that was killed could not
            self.finished.set()

    def _keeper_ended(self) -> None:
        """The one declared outage, unless it was asked for: every process has died with the keeper."""
        self.lost = not self._going_down
        self._children.lose_all()
        self._lives.give_up()  # nobody could start the next process
        if self.lost:
            self.events.publish("lost", message="the keeper died")
            self.finished.set()

    # ---- answers ----

    def list(self) -> list[Row]:
        rows = [own_record("hostd", os.getpid()), own_record("keeper", self.keeper.pid), *self.records.values()]
        return [record.row(self._boot_time) for record in rows]

    def statistics(self) -> Sequence[tuple[str, Any]]:
        """(role, reader) pairs for the metrics."""
        return (*self.fabric.readers, *self.fabric.vectors)

    async def status(self) -> dict[str, Any]:
        host = {
            "runtime": str(self.paths.runtime),
            "state": str(self.paths.state),
            "memory": self._boot.machine["frames"] * 4096,
            "processors": self._boot.processors.model_dump(),
            "sandbox": self._manifest.host.sandbox,
            "wake_up": "symmetric" if self.fabric.symmetric else "membarrier",
            "scheduling": await self.data_threads(),
            "metrics_url": self.metrics_url, **await self.kernel_facts(),
            "wires": await self.fabric.wiring.states(self.fabric.devices), **await self.worlds(),
        }
        return {
            "host": host,
            "processes": self.list(),
            "media": await self.media(),
            "checks": await Checks(self.records, self.fabric, self.keeper, self._loading.channels).run(),
        }

    @staticmethod
    async def _told(role: Record, op: str) -> Row:
        """What a role answers; nothing where it has ended, which is a failed check already."""
        try:
            return await ask(role, op, {})
        except RemoteError as error:
            if error.code != "unreachable":
                raise
            return {}

    def manifest(self) -> Manifest:
        specs = [record.spec for record in self.records.values() if record.type == "guest"]
        return self._manifest.model_copy(update={"partitions": specs})

    def _record(self, name: str) -> Record:
        record = self.records.get(name)
        if record is None:
            raise HostError("not_found", f"no partition {name!r}; known: {', '.join(sorted(self.records)) or 'none'}")
        return record

    async def view(self, name: str) -> Row:
        record = self._record(name)
        monitor = self.fabric.monitor if self.fabric.monitored else None
        view = await views.of_partition(record, self.records["command"], monitor)
        spent, charged = charging.spent(self.fabric, record), await charging.charged(self.fabric, record)
        told = {"refused": self._refusals.counts(record), "receipts": self.receipts(record)}
        return {**view, "charges": spent, "charged": charged, **told}

    async def hardware(self, name: str) -> Row:
        return await views.of_hardware(self._record(name), self.records.values(), self.fabric)

    async def explain(self, partition: str | None, decision: int | None, replay: bool) -> Row:
        return await views.of_decisions(self.records["command"], partition, decision, replay)

    async def logs(self, name: str) -> str:
        return own_logs.read(name, self.paths) if name in own_logs.NAMES else self._record(name).log_text()

    async def wait(self, name: str, state: str, timeout: float) -> Row:
        try:
            async with asyncio.timeout(timeout), self._changed:
                while True:
                    record = self._record(name)
                    if record.state == state:
                        return record.row(self._boot_time)
                    if record.state in ENDED:
                        raise HostError("state", f"{name} is {record.state} and will not become {state} by itself")
                    await self._changed.wait()
        except TimeoutError:
            raise HostError("timeout", f"{name} was not {state} within {timeout:g} s") from None

    # ---- changes ----

    async def spawn(self, spec: PartitionSpec, *, key: str | None, actor: str) -> Row:
        begin = time.monotonic_ns()
        # Of a kernel that comes or goes, or went half way, not all is there.
        if not self._loading.complete or self._moving.locked():
            raise self._not_loaded()
        spec = complete(spec, self._manifest.devices)
        if spec.name in self.records or spec.name in self._names:
            raise HostError("conflict", f"a partition {spec.name!r} exists already")
        record = self._names[spec.name] = Record(spec.name, "guest", spec=spec)
        try:
            record.assigned = assigned(spec, self._manifest)
            networks.claim(record, [*self.records.values(), *self._names.values()])
            wanted = placement_request(spec, self._manifest, self.paths, self._guests, self.fabric.lightest())
            request = {"request": wanted, "key": key or secrets.token_hex(12), "actor": actor}
            with self._counted("guest", [end.device for end in (*spec.disks, *spec.nics)]):
                answer = await ask(self.records["command"], "place", request)
            record.plan, record.number = answer["plan"], answer["plan"]["partition"]["id"]
            self.records[spec.name] = record
            try:
                await self._start(record)
            except BaseException as error:
                await self._give_up(record)
                if isinstance(error, RemoteError):
                    raise HostError(error.code, f"{spec.name}: {error.message}", **error.details) from error
                raise
        finally:
            self._names.pop(spec.name, None)
            async with self._changed:
                self._changed.notify_all()
        assert record.started_ns is not None
        return {
            "name": spec.name, "id": record.number, "pid": record.pid, "decision": answer["decision"],
            "seconds": (record.started_ns - begin) / 1e9, **exports.told(record),
        }  # fmt: skip

    async def _start(self, record: Record) -> None:
        """Puts a placed guest into the data plane and starts its process; returns at its first line."""
        spec: PartitionSpec = record.spec
        attached = asyncio.create_task(self.fabric.attach(record))
        fds: dict[str, int] = {}
        ours, theirs = pair()
        ours.setblocking(False)
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        record.state, record.processors = "starting", len(self._guests)
        record.recorded = asyncio.Event()
        try:
            fds = await partition_descriptors(self.keeper, record.plan)
            await attached
            await self._paths.begin(record)
            fds["lifecycle"] = theirs.fileno()
            document = exports.prepare(record, fds, self._start_document(record), self.paths.runtime)
            handed = views.show(record, self.fabric, document, fds)
            await self._children.start(record, document, handed, control=False)
            self._drivers.place(record)
            await self.keeper.hold(f"{record.name}:{record.process}:lifecycle", [ours.fileno()])
            record.lifecycle = ours
            asyncio.get_running_loop().add_reader(ours.fileno(), self._hear_guest, record, ours, started)
            await self._refusals.watch(record)
            await traps.hand_over(self.fabric, record)
            if document["entry"] is None:
                record.started_ns = time.monotonic_ns()
                started.set_result(None)
        except BaseException:
            record.recorded.set()
            attached.cancel()
            if not attached.done() or attached.cancelled():
                await asyncio.gather(attached, return_exceptions=True)
            ours.close()
            raise
        finally:
            close_fds(fd for name, fd in fds.items() if name != "lifecycle")
            theirs.close()
        self.events.publish("starting", partition=spec.name, pid=record.pid)
        process = {"partition": record.number, "pid": record.pid}
        try:
            await asyncio.gather(
                self._transaction(
                    [
                        {"op": "process.record", **process, "start_time": record.start_ticks},
                        {"op": "partition.state", "partition": record.number, "state": "running"},
                    ]
                ),
                self.schedule(record),
            )
        finally:
            record.recorded.set()
        ended = asyncio.create_task(self._until_ended(record))
        try:
            await asyncio.wait([started, ended], timeout=START_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
        if not started.done():
            if record.exit_status is not None:
                last = record.log_text().strip().splitlines()[-1:] or ["no output"]
                raise HostError(
                    "state", f"{spec.name} ended before its first line: {last[0]}", status=record.exit_status
                )
            raise HostError("timeout", f"{spec.name} did not reach its first line within {START_TIMEOUT:g} s")
        if record.state == "starting":
            record.state = "running"
            await self._notify("running", record)

    def _start_document(self, record: Record) -> Row:
        spec: PartitionSpec = record.spec
        word, *arguments = spec.program
        document: Row = {
            "uid": record.plan["partition"]["uid"],
            "gid": record.plan["partition"]["uid"],
            "processors": spec.processors or self._guests,
            "sandbox": "guest",
            "directory": spec.directory,
            "environment": spec.environment,
            "unsafe": self._manifest.host.sandbox == "permissive",
            "counted": True,
            "entry": None,
        }
        if is_python(word):
            document |= {"entry": "partitions.guest:main", "trap_memory": spec.trap_memory, "traps": self._boot.traps}
            document["config"] = {
                "plan": record.plan, "symmetric": self.fabric.symmetric, "program": word, "hidden": spec.hidden,
                "arguments": arguments, "queues": several(spec),
            }  # fmt: skip
        else:
            document["argv"] = spec.program
            document |= networks.document(record, self.fabric.symmetric)
        return document

    async def _give_up(self, record: Record) -> None:
        """Undoes a spawn that failed: process, data plane, database row."""
        self._children.signal(record, signal.SIGKILL)
        if record.pid is not None:
            await self._until_ended(record)
        await asyncio.gather(*self._endings)
        await self.fabric.detach(record)
        await self._discard(record)

    async def _until_ended(self, record: Record) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: record.exit_status is not None)

    async def set_path(
        self, name: str, endpoint: str, path: str, timeout: float, *, key: str | None, actor: str
    ) -> Row:
        record = self._record(name)
        answer = await self._change_paths(record, endpoint, path, timeout, key=key, actor=actor)
        record.spec = with_path(record.spec, endpoint, answer["path"])
        await self.note(record)
        return answer

    async def _decide_path(self, record: Record, endpoint: str, path: str, key: str | None, actor: str) -> Row:
        message = {"partition": record.name, "endpoint": endpoint, "path": path, "actor": actor}
        return await ask(self.records["command"], "path", {**message, "key": key or secrets.token_hex(12)})

    def _hear_path(self, message: Row) -> None:
        record = next((one for one in self.records.values() if one.number == message["partition"]), None)
        if record is not None:
            self._paths.hear(record, message)

    async def stop(self, name: str, timeout: float, *, key: str | None, actor: str) -> Row:
        record = self._record(name)
        if record.type != "guest":
            raise HostError("state", f"{name} is part of the infrastructure; `hostctl down` stops the host")
        if record.state in ENDED:
            return record.row(self._boot_time)
        await self._terminate(record, timeout)
        return record.row(self._boot_time)

    async def remove(self, name: str, force: bool, *, key: str | None, actor: str) -> Row:
        record = self._record(name)
        if record.type != "guest":
            raise HostError("state", f"{name} is part of the infrastructure")
        if record.state not in ENDED and not force:
            raise HostError("state", f"{name} is {record.state}; stop it first, or use force")
        await self._remove_guest(record, 2.0, key, actor)
        return {"name": name}

    async def _remove_guest(self, record: Record, timeout: float, key: str | None, actor: str) -> None:
        if record.state not in ENDED:
            await self._terminate(record, timeout)
        await self._discard(record, key, actor)
        self.events.publish("removed", partition=record.name)

    # ---- what guests and processes do ----

    def _hear_guest(self, record: Record, sock: Any, started: asyncio.Future[None]) -> None:
        """One message of a guest, which is not trusted: bounded in size and number, its form checked."""
        try:
            message, fds = receive_packet(sock)
        except BlockingIOError:
            return
        except WireError:
            record.reports += 1
            return
        except (EOFError, OSError):
            asyncio.get_running_loop().remove_reader(sock.fileno())
            sock.close()
            record.lifecycle = None
            return
        close_fds(fds)
        if type(message.get("started")) is int and not started.done():
            record.started_ns = message["started"]
            started.set_result(None)
            return
        report = message.get("report")
        record.reports += 1
        if isinstance(report, dict) and record.reports <= REPORTS_MAX and len(json.dumps(report)) <= REPORT_BYTES_MAX:
            self.events.publish("report", partition=record.name, report=report)

    def _ended(self, record: Record) -> None:
        """A process ended, by itself or not."""
        if self._going_down and record.type != "guest":
            return
        if self._lives.died(record):
            return
        task = asyncio.create_task(self._after_end(record))
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)

    async def _after_end(self, record: Record) -> None:
        process = record.process
        self._paths.ended(record)
        exports.end(record)
        async with self._changed:
            self._changed.notify_all()
        clean = record.exit_status == {"exited": 0} or record.stop_asked
        if record.type == "monitor":
            await self._refusals.monitor_ended()
        self.free_worlds(record)
        if record.type == "guest":
            try:
                async with self._plugging:  # what is just coming goes with the others
                    await self.fabric.detach(record)
            except (RemoteError, WireError, OSError, EOFError) as error:
                self.events.publish("error", partition=record.name, message=f"detach: {error}")
        if record.recorded is not None:  # the end of a short life must not be told before its beginning
            await record.recorded.wait()
        state = "stopped" if clean else "failed"
        record.untold = None
        if self.records.get(record.name) is record and not self._going_down and record.type != "ultravisor":
            try:
                state = await self._record_end(record, state)
            except (RemoteError, WireError, OSError, EOFError) as error:
                if record.process == process:
                    record.untold = state
                    self._tell_later(record)
                self.events.publish("error", partition=record.name, message=f"state: {error}")
        if record.process == process:  # otherwise it was a role: whoever began the next one says what state that has
            record.state = state
            await self._notify(state, record, status=record.exit_status)

    async def _notify(self, kind: str, record: Record, **more: Any) -> None:
        self.events.publish(kind, partition=record.name, type=record.type, **more)
        await self.note(record)
        async with self._changed:
            self._changed.notify_all()

    async def _transaction(self, operations: Sequence[Row]) -> Sequence[Any]:
        return await self._boot.transaction([*operations])

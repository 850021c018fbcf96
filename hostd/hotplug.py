"""Endpoints that come and go while their guest runs (H1, H4): database, data plane, guest, hardware view, interrupt.

    attach: decision, transaction -> device, channel server -> descriptors to the guest -> its view changes, an
            interrupt tells
    detach: decision -> view and way in are closed -> device drops and confirms -> channel server -> transaction ->
            view, interrupt

The command partition decides both and says why (`hostctl explain`); the ultravisor's rows follow.

A guest takes the change when it looks for one (`guest.hardware.wait`); one that ignores it loses the endpoint all the
same, and its requests there are refused as those of an endpoint that is gone (rule 24).
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any

from hostd.asking import persist
from hostd.errors import HostError
from hostd.events import EventLog
from hostd.fabric import Fabric, ask
from hostd.keeper import Keeper
from hostd.manifest import Disk, Manifest, Nic, PartitionSpec, complete
from hostd.manifest_lines import Line
from hostd.notes import Noting
from hostd.paths import Paths
from hostd.placement import placement_request
from hostd.queue_pairs import names_of
from hostd.records import ENDED, Record, is_python
from hostd.told import of_port
from hostd.wire import RemoteError, WireError, close_fds, encode, send_packet

DRAIN_SECONDS = 1.0  # for the channel server to give back what the device dropped
DRAIN_POLL = 0.002

Row = dict[str, Any]


class HotPlug(Noting):
    """Part of the supervisor."""

    events: EventLog
    fabric: Fabric
    keeper: Keeper
    paths: Paths
    records: dict[str, Record]
    _manifest: Manifest
    _boot: Any
    _plugging: asyncio.Lock

    def _record(self, name: str) -> Record:
        raise NotImplementedError

    async def _transaction(self, operations: Any) -> Any:
        raise NotImplementedError

    def _counted(self, kind: str, devices: Sequence[str | None]) -> AbstractContextManager[None]:
        raise NotImplementedError

    async def attach(self, name: str, kind: str, entry: Disk | Nic, *, key: str | None, actor: str) -> Row:
        """Gives a running guest one more endpoint: {"name", "endpoint", "index", "decision", "seconds"}."""
        begin = time.monotonic_ns()
        if isinstance(entry, Nic) and entry.tcp is not None:
            raise HostError("unsupported", f"{name}: {entry.name}: TCP of the device is for NICs from the start on")
        async with self._plugging:
            record = self._running(name)
            if isinstance(entry, Nic) and entry.queues > 1:
                raise HostError("unsupported", f"{name}: a NIC that is attached while it runs has one queue pair")
            spec = _with(record.spec, self._manifest, kind, entry)
            others = ((end["server"], end["standby"]) for end in record.plan["endpoints"])
            servers = next(others, self.fabric.lightest())
            wanted = placement_request(spec, self._manifest, self.paths, self._boot.processors.guests, servers)
            fields = next(one for one in reversed(wanted["endpoints"]) if one["name"] == entry.name)
            message = {"partition": name, "endpoint": fields, "actor": actor, "key": key or secrets.token_hex(12)}
            try:
                with self._counted("guest", [fields["device"]]):
                    answer = await ask(self.records["command"], "attach", message)
                known = {end["generation"] for end in record.plan["endpoints"]}
                plan = await self._plan(record)
                new = [end for end in plan["endpoints"] if end["name"] == entry.name and end["generation"] not in known]
                # It came when the key was new, and may have gone since; not where only the answer had been lost.
                if answer["replayed"] and not new:
                    return {**_answer(record, answer["endpoint"], answer), "seconds": 0.0}
                record.plan, (endpoint,) = plan, new
                endpoint["unplugged"] = True
                record.hot.add(endpoint["generation"])
                try:
                    await self._plug(record, endpoint, getattr(entry, "line", None))
                except BaseException:
                    await self._unplug(record, endpoint)
                    subject = {"partition": record.number, "name": entry.name, "drained": True}
                    await self._transaction([{"op": "endpoint.detach", **subject}])
                    await self._forget(record, endpoint)
                    raise
            except RemoteError as error:
                raise HostError(error.code, f"{name}: {error.message}", **error.details) from error
            record.spec = spec
            await self._refresh(record, endpoint)
            await self.note(record)
        self.events.publish("attached", partition=name, endpoint=entry.name, actor=actor)
        seconds = (time.monotonic_ns() - begin) / 1e9
        return {**_answer(record, endpoint, answer), "seconds": seconds}

    async def detach(self, name: str, endpoint: str, *, key: str | None, actor: str) -> Row:
        """Takes an endpoint from a running guest: {"name", "endpoint", "index", "decision", "seconds"}. After the
        answer nothing of it is in flight, and nobody but the guest maps any of it."""
        begin = time.monotonic_ns()
        async with self._plugging:
            record = self._running(name)
            found = next((end for end in record.plan["endpoints"] if end["name"] == endpoint), {"name": endpoint})
            single(record, endpoint)
            try:
                answer = await self._decide_detach(record, found, key, actor)
                if answer["replayed"]:  # another one of that name may have come since
                    return {**_answer(record, {**found, "index": None}, answer), "seconds": 0.0}
                await self.take_endpoint(record, found, answer["decision"])
            except RemoteError as error:
                if not record.attached:
                    raise HostError("state", f"{name} has ended, and {endpoint} has gone with it") from error
                raise HostError(error.code, f"{name}: {error.message}", **error.details) from error
        self.events.publish("detached", partition=name, endpoint=endpoint, actor=actor)
        seconds = (time.monotonic_ns() - begin) / 1e9
        return {**_answer(record, found, answer), "seconds": seconds}

    async def take_endpoint(
        self, record: Record, endpoint: Row, decision: int, let_go: Callable[[Record], None] | None = None
    ) -> None:
        """What was decided is done, and the guest is told. `let_go(role)`: it acts no more for the endpoint. With it
        the end of what the kernel still does for the device is waited for, however long that takes."""
        record.leaving = {"endpoint": endpoint["name"], "decision": decision}
        try:
            await self.note(record)  # from here on it goes, whoever is hostd
            try:
                await self._unplug(record, endpoint, let_go)
            except RemoteError as error:
                failure = {"code": error.code, "message": error.message}
                await ask(self.records["command"], "detached", {"decision": decision, "failure": failure})
                record.leaving = None
                await self.note(record)
                raise
            await self.note(record)  # from here on the next process of a role is not told of it, whoever is hostd
            await ask(self.records["command"], "detached", {"decision": decision})
            await self._forget(record, endpoint)
        finally:
            record.leaving = None
        await self._left(record, endpoint)

    async def settle_endpoints(self, record: Record, queues: list[int]) -> None:
        """After the death of an earlier hostd: one that it had only begun to attach goes again, one that it was
        detaching goes for good. `queues`: numbers that the I/O partitions know of this partition."""
        plan = await self._plan(record)
        known = {end["generation"]: end for end in record.plan["endpoints"]}
        leaving = record.leaving or {"endpoint": None}
        unclaimed = [number for number in queues if number not in record.queues]
        record.queues += unclaimed
        for endpoint in plan["endpoints"]:
            before = known.pop(endpoint["generation"], None)
            gone = before is not None and endpoint["name"] == leaving["endpoint"]
            if before is not None and not gone:
                endpoint |= {"unplugged": True} if before.get("unplugged") else {}
                continue
            record.served.setdefault(endpoint["generation"], unclaimed)
            await self._unplug(record, endpoint)
            if not gone or not await self._concluded(leaving["decision"]):
                subject = {"partition": record.number, "name": endpoint["name"], "drained": True}
                await self._transaction([{"op": "endpoint.detach", **subject}])
            known[endpoint["generation"]] = endpoint
        record.plan = await self._plan(record) if known else plan
        for endpoint in known.values():
            numbers = record.served.pop(endpoint["generation"], [])
            if numbers:
                record.queues = [number for number in record.queues if number not in numbers]
                await self.fabric.remove_queues(record, endpoint["server"], numbers)
            record.hot.discard(endpoint["generation"])
            await self._left(record, endpoint)
        record.leaving = None

    # ---- steps ----

    async def _left(self, record: Record, endpoint: Row) -> None:
        """The guest is told that an endpoint has gone, and the next hostd will not look for it."""
        self._tell(record, {"detached": endpoint["name"]}, [])
        await self._refresh(record, endpoint)
        record.spec = _without(record.spec, endpoint["name"])
        await self.note(record)

    async def _refresh(self, record: Record, endpoint: Row) -> None:
        """The guest's hardware view follows its descriptor."""
        record.view = (await ask(self.fabric.monitor, "refresh_hardware", _of(record, endpoint)))["view"]

    def _running(self, name: str) -> Record:
        record = self._record(name)
        # Of one that has ended the command partition says so, and it is on record.
        if record.type != "guest" or record.state not in ENDED and not (record.state == "running" and record.attached):
            raise HostError("state", f"{name} is no running guest: it is {record.type}, {record.state}")
        if not is_python(record.spec.program[0]):
            raise HostError("unsupported", f"{name} is an unmodified program, which maps no endpoints")
        return record

    async def _plan(self, record: Record) -> Row:
        message = {"what": "partition", "partition": record.number}
        return (await ask(self.records["command"], "query", message))["partition"]

    async def _plug(self, record: Record, endpoint: Row, line: Line | None) -> None:
        """Device and channel server serve it, and the guest has what it maps. `line`: its simulated one."""
        plan, fabric = record.plan, self.fabric
        device = fabric.devices[endpoint["device"]]
        queues = endpoint["queues"]
        first = all(end is endpoint or end["device"] != endpoint["device"] for end in plan["endpoints"])
        memory = [extent["segment"] for extent in plan["memory"]] if first else []
        mine = [endpoint["pair"]["segment"], *(queue["channel"] for queue in queues)]
        fds = await self.keeper.get_segments([plan["events"], *mine, *(queue["ledger"] for queue in queues), *memory])
        events, pair, *rest = fds
        channels, ledgers = rest[: len(queues)], rest[len(queues) : 2 * len(queues)]
        try:
            message = of_port(record, endpoint, plan["memory"] if first else [])
            await ask(device, "attach", message, [events, pair, *rest[2 * len(queues) :]])
            endpoint["unplugged"] = False
            if line is not None:
                await fabric.wiring.set_line(device, endpoint["port"], line)
            both = [fd for couple in zip(channels, ledgers, strict=True) for fd in couple]
            fabric.number_queues(record, endpoint)
            await fabric.add_queues(record, [endpoint], [events, *both])
            await fabric.route(record, endpoint)
            await fabric.negotiate_for([endpoint])
            if not self._tell(record, {"attached": endpoint}, [events, pair, *channels]):
                raise HostError("state", f"{record.name} takes no more endpoints: it never looked for the last ones")
        finally:
            close_fds(fds)

    async def _unplug(
        self, record: Record, endpoint: Row, let_go: Callable[[Record], None] | None = None
    ) -> None:
        """No way in any more, then the device has dropped what it had, then the channel server has given it back."""
        told = let_go or (lambda _: None)
        monitor, device = self.fabric.monitor, self.fabric.devices[endpoint["device"]]
        await ask(monitor, "drop_endpoint", _of(record, endpoint))
        told(monitor)
        if endpoint.get("placed") or not endpoint.get("unplugged"):
            # A guest that ends meanwhile is detached from the others. The next process of a device that dies now takes
            # the port once more before it gives it up: so it has seen the end of what the kernel did for the dead one.
            endpoint["unplugged"] = endpoint["placed"] = True
            message = {"partition": record.number, "port": endpoint["port"]}
            if let_go is None:
                await ask(device, "detach", message)
            else:
                await persist(lambda: ask(device, "detach", message, timeout=None))
            endpoint.pop("placed", None)
            await self.fabric.wiring.withdraw(record, self.fabric.devices, endpoint["name"])
        told(device)
        numbers = record.served.pop(endpoint["generation"], [])
        if numbers:
            deadline = time.monotonic() + DRAIN_SECONDS
            while await self.fabric.in_flight(endpoint["server"], numbers) and time.monotonic() < deadline:
                await asyncio.sleep(DRAIN_POLL)
            if set(numbers) <= set(record.queues):
                record.queues = [number for number in record.queues if number not in numbers]
                await self.fabric.remove_queues(record, endpoint["server"], numbers)
        if endpoint["server"] is not None:
            told(self.fabric.servers[endpoint["server"]])
        await ask(monitor, "unroute", _of(record, endpoint))

    async def _concluded(self, decision: int) -> bool:
        """The rows of an endpoint that was to go have gone, and the decision says so. False: it was taken back."""
        try:
            await ask(self.records["command"], "detached", {"decision": decision})
        except RemoteError:
            return False
        return True

    async def _decide_detach(self, record: Record, endpoint: Row, key: str | None, actor: str) -> Row:
        message = {"partition": record.name, "endpoint": endpoint["name"], "actor": actor}
        return await ask(self.records["command"], "detach", {**message, "key": key or secrets.token_hex(12)})

    async def _forget(self, record: Record, endpoint: Row) -> None:
        """Its rows have gone."""
        record.plan = await self._plan(record)
        record.hot.discard(endpoint["generation"])

    def _tell(self, record: Record, message: Row, fds: list[int]) -> bool:
        """One message to the guest; False where it has not taken the earlier ones (rule 15)."""
        if record.lifecycle is None:
            return False
        with suppress(BlockingIOError, WireError, OSError):
            send_packet(record.lifecycle, encode(message), fds)
            return True
        return False


def _with(spec: PartitionSpec, manifest: Manifest, kind: str, entry: Disk | Nic) -> PartitionSpec:
    """The specification of a partition with one endpoint more."""
    more = {"disks": [*spec.disks, entry]} if kind == "disk" else {"nics": [*spec.nics, entry]}
    return complete(spec.model_copy(update=more), manifest.devices)


def single(record: Record, name: str) -> None:
    """HostError `unsupported` where an endpoint is one of a NIC's several queue pairs."""
    for nic in record.spec.nics:
        if nic.queues > 1 and name in names_of(nic):
            text = f"{record.name}: {name} is one of {nic.queues} queue pairs of {nic.name}, which stay while it runs"
            raise HostError("unsupported", text)


def _answer(record: Record, endpoint: Row, decided: Row) -> Row:
    return {
        "name": record.name,
        "endpoint": endpoint["name"],
        "index": endpoint["index"],
        "decision": decided["decision"],
    }


def _of(record: Record, endpoint: Row) -> Row:
    return {"partition": record.number, "endpoint": endpoint["index"]}


def _without(spec: PartitionSpec, endpoint: str) -> PartitionSpec:
    disks = [disk for disk in spec.disks if disk.name != endpoint]
    nics = [nic for nic in spec.nics if nic.name != endpoint]
    return spec.model_copy(update={"disks": disks, "nics": nics})

"""I/O partitions: their processes, what each is told, and the next one where one dies (U12, design.md section 11).

    office   what one I/O partition does: call ring, hardware rings, queues with ledgers; `io-a` and `io-b` have one
    seat     a thread of a process: each process has one in each office, serves in its own and stands by in the other

The monitor takes over by itself: hostd hears of it afterwards, and starts the dead process again, which then stands by.
Work comes back to it by `hostctl switchover`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

from hostd.asking import ask, release
from hostd.boot import Boot
from hostd.connections import Connections
from hostd.errors import HostError
from hostd.events import EventLog
from hostd.monitor_life import RoleLife
from hostd.records import Record
from hostd.role_segments import seats
from hostd.takeovers import Takeovers
from hostd.wire import close_fds

Row = dict[str, Any]

EPOCHS = 1 << 16  # terms of office reserved per load, for each office
SEGMENTS = ["seat", "bell", "statistics", "call", "events", "vectors"]  # of an office, as its seats map them
SWITCH_TIMEOUT = 5.0  # seconds for a planned switchover
NOTICE_TIMEOUT, NOTICE_PERIOD = 5.0, 0.002  # seconds for the monitor to see a vacant seat; between two questions


class IoLife(RoleLife):
    """Of one I/O partition's process."""

    NEWS = ("io_lost", "io_restarted")


class Offices:
    """All I/O partitions. `lost(record)` is called where one is given up."""

    def __init__(self, boot: Boot, events: EventLog, lost: Callable[[Record], Awaitable[None]]) -> None:
        self.connections = Connections(boot.fabric, boot.records, self, events)
        events.observer = self.connections.hear
        self._boot = boot
        self._fabric = boot.fabric
        self._events = events
        self._lost = lost
        self.lives: dict[str, IoLife] = {}
        self._switched = asyncio.Condition()
        self.takeovers = Takeovers()
        self._vacant: dict[str, str] = {}  # offices that nobody serves, and why
        self._raised: set[str] = set()  # those of them that a living process is about to serve
        self._wanted: dict[str, int] = {}  # handovers that were asked for: office -> seat
        self._given: set[str] = set()  # processes whose seat a monitor knows of: they may serve
        self._terms: dict[str, tuple[int, str]] = {}  # office -> epoch of the last takeover that is known, its cause

    # ---- load and unload ----

    async def start(self, records: list[Record]) -> None:
        """Processes; each knows both offices and serves none yet."""
        for record in records:
            self._fabric.servers[record.name] = record
            (epochs,) = await self._boot.transaction(
                [{"op": "epoch.reserve", "partition": record.number, "count": EPOCHS}]
            )
            record.spec = {"epoch": epochs["first"], "last": epochs["last"]}
        for record in records:
            await self._start(record)

    async def open(self) -> None:
        """The rings are connected: each serves its own office, and stands by in the other one."""
        await self.tell_monitor()
        for seat, record in enumerate(self._fabric.servers.values()):
            self._fabric.serving[record.name] = seat
            self._watch(record)
        for record in list(self._fabric.servers.values()):
            await release(record, "sit", {"terms": []})

    def resume(self, records: list[Record], serving: dict[str, int]) -> None:
        """They run since an earlier hostd, which knew that these seats serve."""
        for record in records:
            self._fabric.servers[record.name] = record
            self._fabric.serving[record.name] = serving[record.name]
            self._watch(record)

    async def look(self) -> None:
        """Who serves is the monitor's word: it has taken over while nobody listened, or another monitor has. A handover
        that was wanted is wanted still."""
        for row in (await ask(self._fabric.monitor, "offices", {}))["offices"]:
            office = self._of(row["slot"])
            if office is None or row["changing"]:
                continue  # of that one there will be news
            epoch, cause = self._terms.get(office.name, (office.spec["epoch"], "planned"))
            if (row["epoch"], row["seat"]) != (epoch, self._fabric.serving.get(office.name)):
                if office.name in self._vacant:
                    cause = self._vacant[office.name]
                if row["cause"] != "none":
                    cause = row["cause"]
                self._serves(office.name, row["seat"], row["epoch"], cause, None)
            elif list(self._fabric.servers.values())[row["seat"]].exit_status is None:
                self._vacant.pop(office.name, None)
        for name, seat in list(self._wanted.items()):  # who wanted one may cease to meanwhile
            if self._wanted.get(name) == seat != self._fabric.serving.get(name, seat):
                await self._order(name, seat)
        await self._notify()
        self.connections.refresh()

    def _watch(self, record: Record) -> None:
        self.takeovers.begin(record.name)
        life = self.lives[record.name] = IoLife(self._boot, self._follow, self._events, self._lost)
        life.watch(record)

    async def tell_monitor(self) -> set[int]:
        """Who lives, then the offices: what a monitor has to know to take over. One that follows another one leaves who
        serves as it is. The seats that it was told of."""
        servers = list(self._fabric.servers.values())
        told = set()
        for seat, record in enumerate(servers):
            if record.pidfd is None:
                continue  # it has ended, and a hostd that has just begun has not come to it yet
            absent = record.absence is not None and record.absence.absent and record.name not in self._given
            if record.exit_status is None and not absent:
                await self._seated(seat, record)
                told.add(seat)
        for seat, record in enumerate(servers):
            epochs = {"first": record.spec["epoch"], "last": record.spec["last"]}
            message = {"server": record.number, "seat": seat, **epochs}
            pages = [self._fabric.fd(name) for name in seats(record.name)]
            await ask(self._fabric.monitor, "open_office", message, pages)
        for name, device in list(self._fabric.devices.items()):
            if device.absence is not None and device.absence.given_up:
                message = {"device": self._boot.slots[name], "gone": True}
                await ask(self._fabric.monitor, "device_gone", message)
        return told

    async def see_vacancies(self, told: set[int]) -> None:
        """Returns when the monitor has seen that whoever had one of the other seats serves nothing any more. Only then
        may the next process have that seat: it would be taken for the dead one, which said under this very epoch that
        it serves, and be killed because it shows no progress."""
        if len(told) == len(self._fabric.servers):
            return
        async with asyncio.timeout(NOTICE_TIMEOUT):
            while any(
                row["seat"] not in told and not row["changing"]
                for row in (await ask(self._fabric.monitor, "offices", {}))["offices"]
            ):
                await asyncio.sleep(NOTICE_PERIOD)

    async def close(self) -> None:
        """Nobody is started again, and nobody takes over, for they are to end."""
        for name, life in list(self.lives.items()):
            await life.rest(self._fabric.servers.get(name))
        self.lives.clear()
        self._vacant.clear()
        self._terms.clear()
        if self._fabric.loaded:
            await release(self._fabric.monitor, "close_offices", {})

    def stop(self) -> None:
        """The host goes down."""
        for life in self.lives.values():
            life.stop()

    # ---- deaths and takeovers ----

    def died(self, record: Record) -> bool:
        """A process has ended. False: it is not started again."""
        life = self.lives.get(record.name)
        self._given.discard(record.name)
        seat = list(self._fabric.servers).index(record.name) if record.name in self._fabric.servers else None
        for office, serving in self._fabric.serving.items():
            if serving == seat:
                self._vacant.setdefault(office, "death")
        return life is not None and life.died(record)

    def vacated(self, name: str) -> str | None:
        """Why nobody serves an office now; None: somebody does."""
        return self._vacant.get(name)

    def raised(self, name: str) -> bool:
        """Was its epoch raised, because somebody is there who will serve it?"""
        return name in self._raised

    def cause(self, name: str) -> str:
        """Of the last takeover of an office."""
        return self._terms.get(name, (0, "planned"))[1]

    def hear(self, message: Row) -> None:
        """The monitor has taken over."""
        office = self._of(message["slot"])
        if office is None:
            return
        noticed, served = message["noticed"], message["served"]
        self._vacant[office.name] = message["cause"]  # a hang that the monitor ended was a mere death so far
        self._raised.add(office.name)
        self.connections.refresh(noticed)
        self._raised.discard(office.name)
        self._serves(office.name, message["to"], message["epoch"], message["cause"], noticed + served)
        self.takeovers.add(office.name, message["cause"], served)
        names = list(self._fabric.servers)
        facts = {name: message[name] for name in ("cause", "epoch", "found", "replayed", "drained", "served")}
        self._events.publish(
            "takeover", partition=office.name, source=names[message["from"]], target=names[message["to"]], **facts
        )
        task = asyncio.get_running_loop().create_task(self._notify())
        task.add_done_callback(lambda done: done.exception())

    def _serves(self, office: str, seat: int, epoch: int, cause: str, since: float | None) -> None:
        """A seat serves an office, under an epoch that nobody knew of here."""
        self._fabric.serving[office] = seat
        self._terms[office] = (epoch, cause)
        self._vacant.pop(office, None)
        if list(self._fabric.servers.values())[seat].exit_status is not None:  # since then
            self._vacant[office] = "death"
        self.connections.taken_over(office)
        self.connections.refresh(since)

    def _of(self, slot: int) -> Record | None:
        return next((one for one in self._fabric.servers.values() if one.number & 0xFFFF == slot), None)

    async def _notify(self) -> None:
        async with self._switched:
            self._switched.notify_all()

    async def switch_over(self, name: str, target: str | None) -> Row:
        """A planned one: the office of I/O partition `name` goes to the process of `target` (None: to the other one).
        {"name", "target", "changed"}. HostError where there is none, or it does not live."""
        servers = list(self._fabric.servers)
        if name not in servers:
            raise HostError("not_found", f"{name!r} is no I/O partition; known: {', '.join(servers) or 'none'}")
        if name not in self._fabric.serving:
            raise HostError("state", f"nobody serves {name} yet: the kernel is being loaded")
        now = self._fabric.serving[name]
        target = target or servers[1 - now]
        if target not in servers:
            raise HostError("not_found", f"{target!r} is no I/O partition; known: {', '.join(servers)}")
        seat = servers.index(target)
        if seat == now:
            return {"name": name, "target": target, "changed": False}
        if self._fabric.servers[target].exit_status is not None:
            raise HostError("state", f"{target} does not live: nothing can go over to it")
        self._wanted[name] = seat
        await self._order(name, seat)
        try:
            async with asyncio.timeout(SWITCH_TIMEOUT), self._switched:
                await self._switched.wait_for(lambda: self._fabric.serving.get(name) == seat)
        except TimeoutError:
            raise HostError("timeout", f"{name} has not gone over to {target} within {SWITCH_TIMEOUT:g} s") from None
        finally:
            self._wanted.pop(name, None)
        return {"name": name, "target": target, "changed": True}

    async def _order(self, name: str, seat: int) -> None:
        await ask(self._fabric.monitor, "switch_over", {"server": self._fabric.servers[name].number, "seat": seat})

    def rows(self) -> list[Row]:
        """[{"name", "served_by", "standby", "restarts", "takeovers": {cause: how many}}]."""
        names = list(self._fabric.servers)
        return [
            {
                "name": name,
                "served_by": names[self._fabric.serving[name]],
                "standby": names[1 - self._fabric.serving[name]],
                "restarts": self._fabric.servers[name].restarts,
                "takeovers": self.takeovers.of(name),
            }
            for name in names
            if name in self._fabric.serving
        ]

    # ---- one process ----

    async def _follow(self, record: Record) -> Row:
        """Starts the next process, which then has a seat of every office and stands by."""
        await self._start(record)
        fabric = self._fabric
        for office in list(fabric.servers.values()):
            for device in fabric.devices:
                await fabric.connect_seat(record, office, device, self._boot.slots[device])
        for client in [one for one in self._boot.records.values() if one.served]:
            await self._tell_client(record, client)
        terms = await self._seated(list(fabric.servers).index(record.name), record)
        self._given.add(record.name)
        await ask(record, "sit", {"terms": terms})
        return {}

    async def _tell_client(self, record: Record, client: Record) -> None:
        """Of an endpoint that was half attached or detached when a hostd died, and is being taken away, the record may
        have fewer numbers than it has queues: the next process is not told of it."""
        served = dict(client.served)
        known = {generation: len(numbers) for generation, numbers in served.items()}
        endpoints = [end for end in client.plan["endpoints"] if known.get(end["generation"]) == len(end["queues"])]
        if not endpoints:
            return
        queues = [queue for endpoint in endpoints for queue in endpoint["queues"]]
        segments = [client.plan["events"], *(queue[name] for queue in queues for name in ("channel", "ledger"))]
        fds = await self._boot.keeper.get_segments(segments)
        try:
            await self._fabric.tell_queues(record, client, endpoints, fds, served)
        finally:
            close_fds(fds)

    async def _seated(self, seat: int, record: Record) -> list[list[int]]:
        """The monitor knows of it; the terms of all offices at that moment."""
        if record.pidfd is None:
            return []
        own = os.dup(record.pidfd)  # that of the record is closed when it dies, and a monitor may have to be waited for
        try:
            answer = await ask(self._fabric.monitor, "take_seat", {"seat": seat}, [own])
            return list(answer["terms"])
        finally:
            close_fds([own])

    async def _start(self, record: Record) -> None:
        boot, fabric = self._boot, self._fabric
        fds = {"kernel": await fabric.read_only("kernel")}
        taken = [fds["kernel"]]
        offices = []
        try:
            for office in list(fabric.servers.values()):
                plan = office.plan
                fetched = await boot.keeper.get_segments([plan["call"]["segment"], plan["events"]])
                taken += fetched
                seat = seats(office.name)[list(fabric.servers).index(record.name)]
                own = [fabric.fd(seat), fabric.fd(f"bell:{office.name}"), fabric.fd(f"statistics:{office.name}"),
                       *fetched, fabric.fd(f"vectors:{office.name}")]  # fmt: skip
                fds |= {f"{kind}.{office.name}": fd for kind, fd in zip(SEGMENTS, own, strict=True)}
                offices.append(
                    {
                        "name": office.name, "partition": office.number, "call_capacity": plan["call"]["capacity"],
                        "memory_size": sum(extent["size"] for extent in plan["memory"]),
                    }
                )  # fmt: skip
            # Its own comes first.
            offices.sort(key=lambda office: office["name"] != record.name)
            config = fabric.role_config(
                "io", offices=offices, segments=SEGMENTS, seat=list(fabric.servers).index(record.name)
            )
            await boot.start(record, "partitions.io:main", config, fds)
        finally:
            close_fds(taken)

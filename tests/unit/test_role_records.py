"""The database follows the next process of a role, whatever dies meanwhile; and a device that is given up."""

import asyncio
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest

import hostd.boot
from hostd import monitor_life
from hostd.asking import Absence, reviving
from hostd.device_life import Devices
from hostd.events import EventLog
from hostd.monitor_life import RoleLife
from hostd.records import Record
from hostd.wire import RemoteError


class Boot:
    """`errors` are what recording ends with, one after the other; then it works."""

    def __init__(self, record: Record, *errors: Exception) -> None:
        self.records = {record.name: record}
        self.children = None
        self.errors = list(errors)
        self.recorded = 0
        self.waited_for: list[tuple[Record, ...]] = []

    async def record_again(self, _record: Record) -> None:
        self.waited_for.append(reviving.get() or ())
        if self.errors:
            raise self.errors.pop(0)
        self.recorded += 1


def recorded(boot: Any, record: Record) -> None:
    async def run() -> None:
        reviving.set((record,))  # as in the task that started the next process
        await RoleLife(boot, None, EventLog(), None)._record(record)  # type: ignore[arg-type]

    asyncio.run(run())


def test_a_process_gets_on_record_when_the_database_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor_life, "FIRST_DELAY", 0.0)
    record = Record("operations", "operations", process=4)
    boot = Boot(record, RemoteError("unreachable", "ultravisor: it has ended"), EOFError(), RemoteError("timeout", ""))
    recorded(boot, record)
    assert boot.recorded == 1
    assert boot.waited_for == [()] * 4, "it must wait for those who are away"


def test_a_refusal_is_no_outage() -> None:
    record = Record("operations", "operations", process=4)
    boot = Boot(record, RemoteError("conflict", "it is stopped"))
    recorded(boot, record)
    assert boot.recorded == 0


def test_a_device_is_given_up_without_a_monitor() -> None:
    """Nobody could be told of it; the database and whoever waits for the device are."""
    told: list[str] = []

    async def lost(record: Record) -> None:
        told.append(record.name)

    async def run() -> None:
        monitor = Record("monitor", "monitor")
        monitor.absence = Absence()
        monitor.absence.end(given_up=True)
        fabric = SimpleNamespace(loaded=True, monitor=monitor)
        boot: Any = SimpleNamespace(fabric=fabric, slots={"nic0": 0})
        await Devices(boot, EventLog(), lost)._given_up(Record("nic0", "device"))

    asyncio.run(run())
    assert told == ["nic0"]


class Database:
    """Who is on record, as a boot's transactions leave it; none goes on before `back` is set."""

    def __init__(self) -> None:
        self.back = asyncio.Event()
        self.told: list[Any] = []
        self.boot = hostd.boot.Boot.__new__(hostd.boot.Boot)
        self.boot._recording = defaultdict(asyncio.Lock)
        self.boot.transaction = self._transaction  # type: ignore[method-assign, assignment]
        self.boot.notes = SimpleNamespace(record=self._noted)  # type: ignore[assignment]

    async def _transaction(self, operations: list[dict[str, Any]]) -> None:
        began = any("pid" in one for one in operations)
        if began:  # the first one of an outage, which is what the ultravisor comes to last
            await self.back.wait()
        self.told.append(next(one["pid"] for one in operations if "pid" in one) if began else operations[0]["state"])

    async def _noted(self, _record: Record) -> None:
        pass


def role() -> Record:
    return Record("io-b", "io", number=7, process=1, pid=1001, start_ticks=1)


def test_the_last_process_is_the_one_on_record() -> None:
    """The request of an earlier one may have waited for a role that was away."""

    async def run() -> list[Any]:
        record, database = role(), Database()
        first = asyncio.create_task(database.boot.record_again(record))
        await asyncio.sleep(0)
        record.process, record.pid = 2, 1002
        second = asyncio.create_task(database.boot.record_again(record))
        await asyncio.sleep(0)
        database.back.set()
        await asyncio.gather(first, second)
        return database.told

    assert asyncio.run(run()) == [1001, 1002]


def test_an_end_is_on_record_after_the_beginning() -> None:
    """Otherwise the dead process stays on record, and its partition is never removed."""

    async def run() -> list[Any]:
        record, database = role(), Database()
        first = asyncio.create_task(database.boot.record_again(record))
        await asyncio.sleep(0)
        record.exit_status = {"signalled": 9}
        second = asyncio.create_task(database.boot.record_end(record, "failed"))
        await asyncio.sleep(0)
        database.back.set()
        await asyncio.gather(first, second)
        return database.told

    assert asyncio.run(run()) == [1001, "failed"]


def test_a_process_that_has_ended_does_not_get_on_record() -> None:
    """What could not be told at once is told again, and may be so late that the end was told meanwhile."""

    async def run() -> list[Any]:
        record, database = role(), Database()
        database.back.set()
        record.exit_status = {"signalled": 9}
        await database.boot.record_end(record, "failed")
        await database.boot.record_again(record)
        return database.told

    assert asyncio.run(run()) == ["failed"]

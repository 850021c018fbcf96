"""hostd gives a new process its seats, and notes it, in an order in which no other process is taken for it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from hostd import io_life, queues
from hostd.asking import Absence
from hostd.boot import Boot
from hostd.io_life import Offices
from hostd.records import Record

TERMS = [[3, 11], [4, 12]]


class Hostd:
    """An `Offices` whose roles are not there: what they are asked is kept."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self.servers = {name: Record(name, "io", spec={"epoch": 1, "last": 9}) for name in ("io-a", "io-b")}
        for record in self.servers.values():
            record.absence, record.pidfd = Absence(), 0
        self.fabric = mock.MagicMock(servers=self.servers, devices={}, monitor=Record("monitor", "monitor"))
        boot = mock.MagicMock(fabric=self.fabric, records={}, start=mock.AsyncMock())
        self.offices = Offices(boot, mock.MagicMock(), mock.AsyncMock())

    async def ask(self, record: Record, op: str, message: dict[str, Any], _fds: object = None) -> dict[str, Any]:
        self.asked.append((record.name, op, message.get("seat", message.get("terms"))))
        return {"terms": TERMS}


@pytest.fixture
def hostd() -> Iterator[Hostd]:
    with mock.patch.object(io_life, "close_fds"), mock.patch.object(io_life.os, "dup", lambda number: number):
        made = Hostd()
        with mock.patch.object(io_life, "ask", made.ask):
            yield made


def test_a_process_sits_down_when_the_monitor_knows_of_it(hostd: Hostd) -> None:
    with mock.patch.object(hostd.offices, "_start", mock.AsyncMock()):
        asyncio.run(hostd.offices._follow(hostd.servers["io-b"]))
    assert hostd.asked == [("monitor", "take_seat", 1), ("io-b", "sit", TERMS)]


def test_a_handover_that_nobody_wants_any_more_is_not_ordered(hostd: Hostd) -> None:
    """Who asked for both gives up while the next monitor is told of the first: that monitor is at work all the same."""
    offices = hostd.offices
    offices._wanted, hostd.fabric.serving = {"io-a": 1, "io-b": 0}, {"io-a": 0, "io-b": 1}
    ordered: list[str] = []

    async def ask(_record: Record, op: str, _message: dict[str, Any]) -> dict[str, Any]:
        if op == "switch_over":
            ordered.append(op)
            offices._wanted.clear()
        return {"offices": []}

    with mock.patch.object(io_life, "ask", ask), mock.patch.object(offices.connections, "refresh"):
        asyncio.run(offices.look())
    assert len(ordered) == 1


@pytest.mark.parametrize("left", [[], [5]])
def test_a_process_is_not_told_of_an_endpoint_that_is_half_gone(hostd: Hostd, left: list[int]) -> None:
    """hostd died while it took that one away; of its queues `left` are known still."""
    ends = [{"generation": number, "queues": [{"channel": 1, "ledger": 2}] * 2} for number in (1, 2)]
    client = Record("red", "guest", plan={"events": 0, "endpoints": ends}, served={1: [3, 4], 2: left})
    hostd.offices._boot.keeper.get_segments = mock.AsyncMock(return_value=[])
    hostd.fabric.tell_queues = mock.AsyncMock()
    asyncio.run(hostd.offices._tell_client(hostd.servers["io-a"], client))
    assert hostd.fabric.tell_queues.await_args.args[2] == ends[:1]


@pytest.mark.parametrize(("known", "told"), [(True, {0, 1}), (False, {0})])
def test_the_next_monitor_is_told_of_whoever_the_last_one_knew(hostd: Hostd, known: bool, told: set[int]) -> None:
    """It may serve by then, though the rest of its start is not over."""
    record = hostd.servers["io-b"]
    record.absence.begin()
    if known:
        hostd.offices._given.add(record.name)
    assert asyncio.run(hostd.offices.tell_monitor()) == told
    hostd.offices.died(record)
    assert asyncio.run(hostd.offices.tell_monitor()) == {0}, "another process is not the one that it knew"


@pytest.mark.parametrize(("ended", "noted"), [(False, True), (True, False)])
def test_a_process_that_is_being_started_is_not_noted(ended: bool, noted: bool) -> None:
    """The one before it was to be put on record, and has ended meanwhile."""
    record = Record("io-a", "io", process=7, absence=Absence())

    async def transaction(_operations: object) -> None:
        if ended:
            record.absence.begin()
            record.process = 8

    notes = SimpleNamespace(record=mock.AsyncMock())
    boot = SimpleNamespace(transaction=transaction, notes=notes, _recording=defaultdict(asyncio.Lock))
    asyncio.run(Boot.record_again(boot, record))  # type: ignore[arg-type]
    assert boot.notes.record.called == noted


def test_rows_are_forgotten_by_whoever_serves_next() -> None:
    """Both processes answer, and neither serves: one of them does a little later."""
    servers = {name: Record(name, "io", number=number) for number, name in enumerate(("io-a", "io-b"), start=7)}
    served = iter([[], [], [], [7]])
    asked: list[str] = []

    async def ask(record: Record, op: str, _message: object) -> dict[str, Any]:
        asked.append(f"{record.name} {op}")
        return {"forgotten": next(served)}

    made = queues.Queues()
    made.servers = servers
    with mock.patch.object(queues, "ask", ask):
        asyncio.run(made.forget_rows(Record("gone", "guest", plan={"endpoints": [{"server": "io-a"}]})))
    assert asked == ["io-a forget", "io-b forget"] * 2

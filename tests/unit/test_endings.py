"""The database hears of every end, however long nobody can be asked (rule 32)."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from hostd import endings
from hostd.endings import Endings
from hostd.records import Record
from hostd.wire import RemoteError


class Database(Endings):
    """Refuses with these codes, one after the other, then accepts."""

    def __init__(self, record: Record, *codes: str) -> None:
        self.records = {record.name: record, "command": Record("command", "command")}
        self._telling = set()
        self._boot = SimpleNamespace(record_end=self._hear)  # type: ignore[assignment]
        self.codes = list(codes)
        self.told: list[str] = []
        self.noted: list[str | None] = []

    async def _hear(self, _record: Record, state: str) -> None:
        if self.codes:
            raise RemoteError(self.codes.pop(0), "ultravisor: the peer has closed its end")
        self.told.append(state)

    async def note(self, record: Record) -> None:  # type: ignore[override]
        self.noted.append(record.untold)


def told(record: Record, *codes: str) -> Database:
    async def run() -> Database:
        database = Database(record, *codes)
        database._tell_later(record)
        await asyncio.wait_for(asyncio.gather(*database._telling), 5.0)
        return database

    return asyncio.run(run())


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endings, "FIRST_DELAY", 0.001)


def test_it_is_told_as_soon_as_somebody_can_be_asked() -> None:
    record = Record("red", "guest", untold="failed")
    database = told(record, "unreachable", "timeout", "unreachable")
    assert database.told == ["failed"] and database.noted == [None] and record.untold is None


def test_what_it_has_found_out_by_itself_is_not_told_again() -> None:
    record = Record("red", "guest", untold="failed")
    database = told(record, "unreachable", "state")
    assert database.told == [] and database.noted == [None] and record.untold is None


def test_nobody_speaks_of_one_that_was_removed() -> None:
    record = Record("red", "guest", untold="failed")

    async def run() -> list[str]:
        database = Database(record, "unreachable")
        database._tell_later(record)
        database.records.clear()
        await asyncio.wait_for(asyncio.gather(*database._telling), 5.0)
        return database.told

    assert asyncio.run(run()) == []


@pytest.mark.parametrize(("found", "state"), [("stopped", "stopped"), ("running", "failed")])
def test_the_end_that_is_on_record_is_the_one_that_counts(
    found: str, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An earlier hostd had told of it, and was killed before it noted that. A row of another state says nothing."""
    record = Record("blue", "guest", number=9)

    async def ask(_role: Record, op: str, message: dict[str, object]) -> dict[str, object]:
        assert (op, message) == ("query", {"what": "partition", "partition": 9})
        return {"partition": {"partition": {"state": found}}}

    monkeypatch.setattr(endings, "ask", ask)
    database = Database(record, "state")
    assert asyncio.run(database._record_end(record, "failed")) == state

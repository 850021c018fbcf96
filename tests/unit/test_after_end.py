"""What follows from the end of a process, while the next one of a role has begun already."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from hostd.events import EventLog
from hostd.records import Record
from hostd.supervisor import Supervisor
from hostd.wire import RemoteError


def ended(record: Record, meanwhile: int, error: RemoteError | None) -> tuple[list[str], list[Record]]:
    """Kinds of events, and whose end is told later; `meanwhile`: its process when the database has heard of the end."""
    later: list[Record] = []

    async def run() -> list[str]:
        host: Any = Supervisor.__new__(Supervisor)
        host.records, host.events, host._going_down = {record.name: record}, EventLog(), False
        host._paths, host._changed = SimpleNamespace(ended=lambda _record: None), asyncio.Condition()
        host.free_worlds, host._tell_later = lambda _record: None, later.append

        async def note(_record: Record) -> None:
            pass

        async def record_end(_record: Record, state: str) -> str:
            if meanwhile != record.process:
                record.process, record.state, record.exit_status = meanwhile, "running", None
            if error is not None:
                raise error
            return state

        host.note, host._record_end = note, record_end
        await host._after_end(record)
        return [event["kind"] for event in host.events.history()]

    return asyncio.run(run()), later


def role() -> Record:
    return Record("io-a", "io", number=7, process=14, state="running", exit_status={"signalled": 9})


def test_a_role_that_was_not_watched_yet() -> None:
    record = role()
    assert ended(record, 14, None) == (["failed"], []) and record.state == "failed"


def test_the_next_process_is_not_taken_for_the_dead_one() -> None:
    """It died while it was loaded, and the ultravisor stood still until the next one was at work."""
    record = role()
    assert ended(record, 16, None) == ([], []) and record.state == "running"


@pytest.mark.parametrize(("process", "told"), [(14, True), (16, False)])
def test_only_the_end_of_the_last_process_is_told_later(process: int, told: bool) -> None:
    record = role()
    events, later = ended(record, process, RemoteError("timeout", "no reply"))
    assert "error" in events and (later == [record]) is told and (record.untold is not None) is told

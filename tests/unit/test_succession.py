"""Which ends a new hostd still has to follow up: those that the dead one had noted, and not done with."""

import asyncio
import json
import os
from types import SimpleNamespace
from typing import Any

import pytest

from hostd import succession
from hostd.asking import Absence
from hostd.notes import HOST, PREFIX
from hostd.records import Record
from hostd.succession import Succession
from hostd.wire import WireError

KILLED = {"signalled": 9}


def taken_over(record: Record, rows: dict[int, dict[str, object]]) -> dict[str, int] | None:
    return asyncio.run(Succession()._take_over(record, rows))


@pytest.mark.parametrize("rows", [{4: {"status": KILLED}}, {}])
def test_an_end_that_was_noted_before_anything_followed_from_it(rows: dict[int, dict[str, object]]) -> None:
    """Another change was noted meanwhile. It ends once more, for everybody who waits for an end."""
    record = Record("red", "guest", process=4, state="running", attached=True, exit_status=KILLED)
    assert taken_over(record, rows) == KILLED
    assert record.exit_status is None


def test_an_end_that_was_told() -> None:
    record = Record("red", "guest", process=4, state="failed", exit_status=KILLED)
    assert taken_over(record, {4: {"status": KILLED}}) is None
    assert record.exit_status == KILLED


def test_an_end_that_nobody_noted() -> None:
    record = Record("red", "guest", process=4, state="running")
    assert taken_over(record, {4: {"status": {"exited": 3}}}) == {"exited": 3}


def test_a_guest_whose_detach_was_begun_is_detached_again() -> None:
    """The dead one noted it between its first and its last request for that: devices may still serve it."""
    record = Record("red", "guest", process=4, state="running", attached=False, exit_status=KILLED)
    assert taken_over(record, {4: {"status": KILLED}}) == KILLED
    assert record.attached


def test_a_role_that_was_being_started_again_is_ended() -> None:
    """It lives, and has not been told all that it has to know: nobody would tell it any more."""
    ended: list[dict[str, object]] = []

    async def end_stranger(row: dict[str, object]) -> None:
        ended.append(row)

    record, row = Record("io-a", "io", process=4, state="starting"), {"id": 4, "status": None}
    supervisor = Succession()
    supervisor._children = SimpleNamespace(end_stranger=end_stranger)  # type: ignore[assignment]
    assert asyncio.run(supervisor._take_over(record, {4: row})) == KILLED
    assert ended == [row] and record.process == 0


def test_leftovers_are_looked_for_until_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A role that died meanwhile must not let a row go whose ports devices still have."""
    monkeypatch.setattr(succession, "PAUSES", (0.0, 0.0))
    found = [["ultravisor: the peer has closed its end"], []]

    async def remove() -> list[str]:
        return found.pop(0)

    leftovers: Any = SimpleNamespace(remove=remove)
    assert asyncio.run(Succession()._clear(leftovers)) == []
    assert not found


def test_a_host_that_was_booting_is_no_host() -> None:
    """Its hostd notes what changes while it boots, too: a role that died and came again."""

    async def read(kernel: str) -> Any:
        document = os.memfd_create("note", os.MFD_CLOEXEC)
        os.write(document, json.dumps({"kernel": kernel}).encode())

        async def nothing() -> None:
            pass

        async def list_held() -> list[str]:
            return [PREFIX + HOST]

        async def get_held(_key: str) -> list[int]:
            return [document]

        keeper: Any = SimpleNamespace(lead=nothing, list_held=list_held, get_held=get_held)
        return await succession.read(keeper)

    assert asyncio.run(read(Succession._stage["kernel"])) is None
    assert asyncio.run(read("none")) == {HOST: {"kernel": "none"}}


class Wire:
    """Of a role; `error`: it has ended, None: nobody answers, nor ends."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error

    async def request(self, _message: Any, *, timeout: float | None) -> Any:
        if self.error is not None:
            raise self.error
        await asyncio.sleep(3600.0)


def barrier(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> list[str]:
    """Problems of a monitor that has died, whose next process is not at work yet."""
    monkeypatch.setattr(succession, "PATIENCE", 0.05)

    async def run() -> list[str]:
        host, monitor = Succession(), Record("monitor", "monitor", state="running")
        monitor.wire, monitor.absence = Wire(error), Absence()  # type: ignore[assignment]
        monitor.absence.begin()
        host.records = {"monitor": monitor}
        return await host._barrier()

    return asyncio.run(run())


@pytest.mark.parametrize("error", [EOFError("it ended"), WireError("it ended"), ConnectionResetError("it ended")])
def test_who_dies_during_an_adoption_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Its next process may ask one that died before, which is told of only after this: both would wait in vain."""
    assert barrier(monkeypatch, error) == []


def test_who_hangs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert barrier(monkeypatch, None) == ["monitor does not answer: it hangs"]

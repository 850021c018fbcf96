"""Requests of hostd to a role that ends while it is asked."""

import asyncio
from typing import Any

import pytest

from hostd.asking import NOTICE, Absence, ask
from hostd.records import Record
from hostd.wire import RemoteError


def test_a_role_that_is_to_end_while_it_is_asked_is_unreachable() -> None:
    """From there on it has no absence: nobody starts a next process."""
    record = Record("monitor", "monitor")
    absence = record.absence = Absence()

    class Wire:
        async def request(self, _message: dict[str, Any], _fds: list[int], timeout: float | None) -> Any:
            record.absence = None
            absence.end(given_up=True)
            raise EOFError("the peer has closed its end")

    record.wire = Wire()  # type: ignore[assignment]
    with pytest.raises(RemoteError, match="monitor does not answer") as refused:
        asyncio.run(ask(record, "ping", {}))
    assert refused.value.code == "unreachable"


def test_a_role_whose_end_is_still_to_be_told_is_waited_for() -> None:
    """As while a hostd adopts: the role has no wire, and its absence has not begun."""
    record = Record("command", "command")
    absence = record.absence = Absence()

    class Wire:
        async def request(self, message: dict[str, Any], _fds: list[int], timeout: float | None) -> Any:
            return {"asked": message["op"]}, []

    async def run() -> dict[str, Any]:
        asked = asyncio.create_task(ask(record, "ping", {}))
        await asyncio.sleep(0)
        absence.begin()
        await asyncio.sleep(0)
        record.wire = Wire()  # type: ignore[assignment]
        absence.end()
        return await asked

    assert asyncio.run(run()) == {"asked": "ping"}


def test_a_role_that_was_given_up_is_unreachable_at_once() -> None:
    record = Record("command", "command")
    record.absence = Absence()
    record.absence.end(given_up=True)
    with pytest.raises(RemoteError, match="command has ended"):
        asyncio.run(asyncio.wait_for(ask(record, "ping", {}), 1.0))


def test_nobody_waits_for_a_role_that_is_given_up_meanwhile() -> None:
    """As when the host goes down: its wire has ended, and its death is never noticed."""
    record = Record("monitor", "monitor")
    absence = record.absence = Absence()

    class Wire:
        async def request(self, _message: dict[str, Any], _fds: list[int], timeout: float | None) -> Any:
            raise EOFError("the peer has closed its end")

    async def run() -> None:
        record.wire = Wire()  # type: ignore[assignment]
        asked = asyncio.create_task(ask(record, "ping", {}))
        await asyncio.sleep(0.01)
        assert not asked.done()
        absence.end(given_up=True)
        await asyncio.wait_for(asked, NOTICE / 2)

    with pytest.raises(RemoteError, match="monitor does not answer"):
        asyncio.run(run())

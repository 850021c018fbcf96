"""Requests of hostd to a role that ends while it is asked."""

import asyncio
from typing import Any

import pytest

from hostd.asking import Absence, ask
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

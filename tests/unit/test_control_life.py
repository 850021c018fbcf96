"""A role of the control plane that follows a dead one gets wires to those that live."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from hostd.boot import CONTROL_PLANE
from hostd.control_life import ControlLife
from hostd.events import EventLog
from hostd.records import Record


class Wire:
    """Notes what it is asked for."""

    error = None

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def request(self, message: dict[str, Any], _fds: list[int], timeout: float | None) -> Any:
        self.asked.append(message["op"])
        return {}, []


def test_nobody_is_followed_before_all_that_live_have_their_wires() -> None:
    """A hostd that adopts takes over one role after the other: the ultravisor may die while command has no wire yet.
    It would never get one to the next ultravisor."""
    records = {name: Record(name, name) for name in CONTROL_PLANE}
    command = Wire()

    async def start_control(record: Record, _fds: dict[str, int]) -> None:
        record.wire = Wire()  # type: ignore[assignment]

    async def run() -> None:
        boot: Any = SimpleNamespace(records=records, children=None, start_control=start_control)
        loading: Any = SimpleNamespace(disturbed=None, complete=False)
        life = ControlLife(boot, loading, EventLog(), list, None, None)  # type: ignore[arg-type]
        life.reopen = lambda: None  # type: ignore[method-assign]
        following = asyncio.create_task(life._follow(records["ultravisor"]))
        for _ in range(5):
            await asyncio.sleep(0)
        assert records["ultravisor"].wire is None
        records["command"].wire = command  # type: ignore[assignment]
        life.reachable.set()
        await following

    asyncio.run(run())
    assert command.asked == ["boot_wire"]

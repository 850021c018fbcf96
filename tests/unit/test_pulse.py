"""Roles whose data thread stands still while they answer (hostd.pulse)."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hostd import pulse
from hostd.asking import Absence
from hostd.events import EventLog
from hostd.keeper import Keeper
from hostd.pulse import BUSY, PERIOD, SILENT, Pulse
from hostd.records import Record

LIMIT = BUSY + 4.0  # seconds of a case


class Role:
    """Answers at once. Its data thread begins rounds (`beating`), or stands in `state`, in a call that `idles`."""

    def __init__(self, state: str = "S", idles: bool = False, beating: bool = False, heart: bool = True) -> None:
        self.state, self.idles, self.beating, self.heart = state, idles, beating, heart
        self.beats = 7
        self.record = Record("disk0", "device", process=1, pid=1, absence=Absence(), wire=cast(Any, self))

    async def request(self, message: dict[str, Any], timeout: float | None) -> tuple[dict[str, Any], list[int]]:
        assert message == {"op": "ping"}
        self.beats += self.beating
        return {"heart": {"thread": 2, "beats": self.beats} if self.heart else None}, []


def seconds_until_killed(role: Role, monkeypatch: pytest.MonkeyPatch, replaced: bool = False) -> float | None:
    """None: not within LIMIT. `replaced`: it has another process all the time."""
    clock, killed = SimpleNamespace(now=100.0), []
    monkeypatch.setattr(pulse, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(pulse, "_state", lambda folder: {"/proc/1/task/2": role.state}[folder])
    monkeypatch.setattr(pulse, "_idles", lambda pid, thread: (pid, thread) == (1, 2) and role.idles)
    events = EventLog()

    async def work() -> None:
        looked = Pulse(cast(Keeper, None), lambda: [role.record], killed.append, events)
        while not killed and clock.now < 100.0 + LIMIT:
            await looked._look(role.record)
            await asyncio.sleep(0)
            await asyncio.sleep(0)  # the answer
            clock.now += PERIOD
            role.record.process += replaced
        looked.stop()

    asyncio.run(work())
    told = [event["partition"] for event in events.history(0) if event["kind"] == "hung"]
    assert told == [role.record.name for _ in killed]
    return clock.now - 100.0 if killed else None


@pytest.mark.parametrize(
    ("role", "least"),
    [
        pytest.param(Role(state="t"), SILENT, id="stopped"),
        pytest.param(Role(state="R"), BUSY, id="in circles"),
        pytest.param(Role(idles=True), BUSY, id="waits for a thread"),
    ],
)
def test_one_that_stands_still_is_killed(role: Role, least: float, monkeypatch: pytest.MonkeyPatch) -> None:
    found = seconds_until_killed(role, monkeypatch)
    assert found is not None and least <= found < least + 4 * PERIOD


@pytest.mark.parametrize(
    "role",
    [
        pytest.param(Role(beating=True, state="R"), id="beats"),
        pytest.param(Role(state="D"), id="waits for a medium"),
        pytest.param(Role(state="S"), id="sleeps for a medium"),
        pytest.param(Role(state="t", heart=False), id="has none"),
    ],
)
def test_others_are_left_alone(role: Role, monkeypatch: pytest.MonkeyPatch) -> None:
    assert seconds_until_killed(role, monkeypatch) is None


def test_another_process_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    assert seconds_until_killed(Role(state="t"), monkeypatch, replaced=True) is None

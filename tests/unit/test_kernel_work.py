"""For how long data threads make room for threads of the kernel (hostd.kernel_work)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from hostd import kernel_work
from hostd.events import EventLog
from hostd.kernel_work import AGAIN, HOLD, KernelWork
from hostd.records import Record
from hostd.urgency import Urgency
from tests.unit.test_urgency import Noted

LOWERED, RAISED = {"lowered": True, "partition": "disk0"}, {"lowered": False}


class Disk:
    """Answers every 0.25 s; `right`: its threads are of a real-time class."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, right: bool = True) -> None:
        self.clock = SimpleNamespace(now=1000.0)
        monkeypatch.setattr(kernel_work, "time", SimpleNamespace(monotonic=lambda: self.clock.now))
        self.record = Record("disk0", "device", process=1)
        self.urgency, self.log, self.ended = Noted(right), EventLog(), 0
        self.work = KernelWork(cast(Urgency, self.urgency), self.log)

    def answers(self, seconds: float, ended: int = 0, at_work: int = 0) -> None:
        """For so long; with each answer `ended` more of them."""
        for _ in range(round(seconds / 0.25)):
            self.clock.now += 0.25
            self.ended += ended
            self.work.heard(self.record, {"kernel": {"begun": self.ended + at_work, "ended": self.ended}})

    def told(self) -> list[dict[str, object]]:
        events = [event for event in self.log.history(0) if event["kind"] == "data_threads"]
        return [{key: event[key] for key in event if key in ("lowered", "partition")} for event in events]


def test_as_long_as_there_is_some_and_a_while_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    disk.answers(1.0)
    assert disk.urgency.log == [] and disk.work.disk == ""
    disk.answers(0.25, ended=1)
    assert disk.urgency.log == ["data below"] and disk.work.disk == "disk0" and disk.told() == [LOWERED]
    disk.answers(HOLD)
    assert disk.work.disk == "disk0"
    disk.answers(0.25)
    assert disk.work.disk == "" and disk.told() == [LOWERED, RAISED]
    assert disk.urgency.log == ["data below", "data above"]


def test_one_that_has_not_ended_is_some(monkeypatch: pytest.MonkeyPatch) -> None:
    """And those of roles that have started meanwhile are lowered, too."""
    disk = Disk(monkeypatch)
    disk.answers(3 * AGAIN, at_work=1)
    assert disk.urgency.log == ["data below"] * 3 and disk.told() == [LOWERED]


def test_others_end_it_for_one_that_answers_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    disk.answers(0.25, at_work=1)
    disk.clock.now += HOLD + 0.25
    disk.work.heard(Record("monitor", "monitor"), {"beats": 1})
    assert disk.work.disk == "" and disk.told() == [LOWERED, RAISED]


def test_what_another_process_has_ended_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    disk.answers(1.0)
    disk.record.process, disk.ended = 2, 5
    disk.answers(1.0)
    assert disk.urgency.log == []


def test_where_the_right_is_missing_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch, right=False)
    disk.answers(1.0, ended=1)
    disk.answers(2 * HOLD)
    assert disk.urgency.log[-1] == "data above" and disk.told() == []


def test_what_is_urgent_leaves_them_low(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the other way round: what comes last raises them."""
    disk = Disk(monkeypatch)
    with disk.urgency.raised():
        disk.answers(0.25, at_work=1)
    assert "data above" not in disk.urgency.log
    with disk.urgency.raised():
        disk.answers(2 * HOLD)
        assert disk.work.disk == "" and "data above" not in disk.urgency.log
    assert disk.urgency.log.count("data above") == 1

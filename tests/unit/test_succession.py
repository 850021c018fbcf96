"""Which ends a new hostd still has to follow up: those that the dead one had noted, and not done with."""

import asyncio

import pytest

from hostd.records import Record
from hostd.succession import Succession

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

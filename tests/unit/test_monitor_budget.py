"""How often a monitor is started again: at once after a long life, later and later after short ones, then no more."""

from __future__ import annotations

from hostd.monitor_life import (
    FIRST_DELAY,
    LONGEST_DELAY,
    RESTARTS_MAX,
    SHORT,
    SHORT_LIVES_MAX,
    WINDOW,
    Budget,
)


def test_a_long_life_costs_no_delay() -> None:
    budget = Budget()
    assert [budget.delay(now * 10.0, lived=9.0) for now in range(100)] == [0.0] * 100


def test_short_lives_cost_more_and_more_and_then_all() -> None:
    budget = Budget()
    delays = [budget.delay(float(now), lived=SHORT / 2) for now in range(SHORT_LIVES_MAX + 1)]
    assert delays[-1] is None
    assert delays[:-1] == [min(FIRST_DELAY * 2**number, LONGEST_DELAY) for number in range(SHORT_LIVES_MAX)]


def test_a_life_that_was_long_forgives_short_ones() -> None:
    budget = Budget()
    for now in range(5 * SHORT_LIVES_MAX):
        lived = 2 * SHORT if now % SHORT_LIVES_MAX == 0 else SHORT / 2
        assert budget.delay(3.0 * now, lived) is not None


def test_too_many_within_the_window_are_too_many() -> None:
    budget = Budget()
    each = WINDOW / RESTARTS_MAX / 2
    delays = [budget.delay(number * each, lived=each) for number in range(RESTARTS_MAX + 1)]
    assert delays[:-1] == [0.0] * RESTARTS_MAX and delays[-1] is None
    assert budget.delay(WINDOW * 2, lived=each) == 0.0, "the window moves on"

"""Whether worlds need turns: decided by the time in which their processor is idle (partitions/spare.py)."""

import itertools
from pathlib import Path

from partitions.spare import ENOUGH, LEAST, PAUSE, PAUSE_MAX, Spare, idle_seconds

STAT = """cpu  30 0 20 700 50 0 0 0 0 0
cpu0 10 0 10 300 20 0 0 0 0 0
cpu3 20 0 10 400 30 0 0 0 0 0
intr 5 1 2
"""


def test_idle_time_of_each_processor() -> None:
    assert idle_seconds(STAT) == {0: 3.2, 3: 4.3}
    found = idle_seconds(Path("/proc/stat").read_text())
    assert found and all(seconds >= 0 for seconds in found.values())


def test_turns_are_given_up_while_there_is_time() -> None:
    judge = Spare()
    assert not judge.decide(ENOUGH - 0.01, 0)
    assert judge.decide(ENOUGH, 0.2)
    assert judge.decide(LEAST, 0.4)
    assert not judge.decide(LEAST - 0.01, 0.6)


def test_being_wrong_costs_less_and_less() -> None:
    """Worlds that leave the processor idle only because they take turns: tried ever more seldom."""
    judge, now, wrong = Spare(), 0.0, []
    while now < 100:
        if judge.decide(0.0 if judge.spare else 1.0, now):
            wrong.append(now)
        now += 0.25
    gaps = [after - before for before, after in itertools.pairwise(wrong)]
    assert gaps == sorted(gaps) and gaps[0] >= PAUSE and gaps[-1] >= PAUSE_MAX


def test_being_right_forgives() -> None:
    judge, now = Spare(), 0.0
    for _ in range(3):
        while not judge.decide(1.0, now):
            now += 0.2
        judge.decide(0.0, now)
    while not judge.decide(1.0, now):
        now += 0.2
    judge.decide(1.0, now)
    judge.decide(0.0, now)
    assert not judge.decide(1.0, now + PAUSE - 0.1) and judge.decide(1.0, now + PAUSE)

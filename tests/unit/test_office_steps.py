"""A server dies at any instruction while it takes, records, completes or takes over: the next one finds all (rules.md
test 19).

The real seat is led on by single instructions. After each one that changes shared memory, what is there is what a
death leaves; another seat takes over, once with nothing executed of what had been called for, and once with all of it.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.framework.build import build_c
from tests.framework.office_rig import EPOCH, Rig
from tests.framework.run import run
from tests.framework.stepping import HEAD, sweep

REQUESTS = range(1, 4)


@pytest.fixture(scope="module")
def terms_at(build_dir: Path) -> int:
    return run(build_c(["ring/offsets.c"], into=build_dir), deadline=10).values()["terms"]


@pytest.fixture
def rig(terms_at: int) -> Iterator[Rig]:
    """Seat 0 serves and sleeps."""
    with closing(Rig(terms_at)) as made:
        made.begin(0)
        made.name(EPOCH, 0)
        made.rest()
        yield made


def recovered(left: Rig, executed: bool, seat: int, epoch: int, asked: range, so_far: Counter[int]) -> None:
    """A copy of what is left is taken over by `seat`: every request is executed and answered once, whole."""
    with closing(left.copy()) as rig:
        done = so_far + (rig.execute(epoch) if executed else Counter())
        rig.take_over(epoch + 1, seat)
        answers = rig.answered()
        for _ in range(1000):
            done += rig.execute(epoch + 1)
            rig.ring(seat)
            answers += rig.answered()
            if sum(answers.values()) >= len(asked):
                break
            rig.pause()
        assert answers == Counter(asked), f"answered {dict(answers)}"
        assert done == Counter(asked), f"executed {dict(done)}"
        assert rig.in_flight() == 0


def test_killed_while_it_takes_and_records(rig: Rig) -> None:
    rig.ask(REQUESTS)
    rig.ring(0)

    def check(left: Rig) -> None:
        for executed in (False, True):
            recovered(left, executed, 1, EPOCH, REQUESTS, Counter())

    states = sweep(rig, lambda: rig.calls.tail() == len(REQUESTS), check)
    assert states >= 10 * len(REQUESTS)


def test_killed_while_it_completes(rig: Rig) -> None:
    rig.ask(REQUESTS)
    rig.ring(0)
    rig.rest()
    done = rig.execute(EPOCH)
    assert done == Counter(REQUESTS)
    rig.ring(0)

    def check(left: Rig) -> None:
        recovered(left, False, 1, EPOCH, REQUESTS, done)

    states = sweep(rig, lambda: rig.hardware.index(HEAD) == rig.hardware.tail() and rig.in_flight() == 0, check)
    assert states >= 10 * len(REQUESTS)


def test_killed_while_it_takes_over(terms_at: int) -> None:
    """One request was answered by the device, two are in flight, and one waits on its ring."""
    with closing(Rig(terms_at)) as first:
        first.begin(0)
        first.name(EPOCH, 0)
        first.rest()
        first.ask(range(1, 2))
        first.ring(0)
        first.rest()
        done = first.execute(EPOCH)
        first.ask(range(2, 5))
        left = first.copy()
    with closing(left):
        left.begin(1)
        left.rest()
        left.name(EPOCH + 1, 1)

        def check(rig: Rig) -> None:
            for executed in (False, True):
                recovered(rig, executed, 0, EPOCH + 1, range(1, 5), done)

        states = sweep(left, lambda: left.serves(EPOCH + 1, 1), check)
        assert states > 5

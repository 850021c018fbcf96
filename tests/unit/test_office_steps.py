"""A server dies at any instruction while it takes, records, completes or takes over: the next one finds all (rules.md
test 19).

The real seat is led on by single instructions. After each one that changes shared memory, what is there is what a
death leaves; another seat takes over, once with nothing executed of what had been called for, and once with all of it.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.framework.build import build_c
from tests.framework.office_rig import EPOCH, Rig
from tests.framework.run import run
from tests.framework.stepping import HEAD

REQUESTS = range(1, 4)
STEPS_MAX = 60_000  # instructions of one operation


@pytest.fixture(scope="module")
def terms_at(build_dir: Path) -> int:
    return run(build_c(["ring/offsets.c"], into=build_dir), deadline=10).values()["terms"]


@pytest.fixture
def rig(terms_at: int) -> Iterator[Rig]:
    """Seat 0 serves and sleeps."""
    made = Rig(terms_at)
    try:
        made.begin(0)
        made.name(EPOCH, 0)
        made.rest()
        yield made
    finally:
        made.close()


def sweep(rig: Rig, over: Callable[[], bool], check: Callable[[Rig], None]) -> tuple[int, int]:
    """Steps until the operation is over; (instructions, states that were checked)."""
    steps = states = 0
    before = rig.changing()
    while not over():
        rig.step(1)
        steps += 1
        assert steps < STEPS_MAX, "it does not come to its end"
        now = rig.changing()
        if now != before:
            before = now
            states += 1
            check(rig)
    return steps, states


def recovered(left: Rig, executed: bool, seat: int, epoch: int, asked: range, so_far: Counter[int]) -> None:
    """A copy of what is left is taken over by `seat`: every request is executed and answered once, whole."""
    rig = left.copy()
    try:
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
    finally:
        rig.close()


def test_killed_while_it_takes_and_records(rig: Rig) -> None:
    rig.ask(REQUESTS)
    rig.ring(0)

    def check(left: Rig) -> None:
        for executed in (False, True):
            recovered(left, executed, 1, EPOCH, REQUESTS, Counter())

    steps, states = sweep(rig, lambda: rig.calls.tail() == len(REQUESTS), check)
    print(f"{steps} instructions, {states} states")
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

    steps, states = sweep(rig, lambda: rig.hardware.index(HEAD) == rig.hardware.tail() and rig.in_flight() == 0, check)
    print(f"{steps} instructions, {states} states")
    assert states >= 10 * len(REQUESTS)


def test_killed_while_it_takes_over(terms_at: int) -> None:
    """One request was answered by the device, two are in flight, and one waits on its ring."""
    first = Rig(terms_at)
    try:
        first.begin(0)
        first.name(EPOCH, 0)
        first.rest()
        first.ask(range(1, 2))
        first.ring(0)
        first.rest()
        done = first.execute(EPOCH)
        first.ask(range(2, 5))
        left = first.copy()
    finally:
        first.close()
    try:
        left.begin(1)
        left.rest()
        left.name(EPOCH + 1, 1)

        def check(rig: Rig) -> None:
            for executed in (False, True):
                recovered(rig, executed, 0, EPOCH + 1, range(1, 5), done)

        steps, states = sweep(left, lambda: left.serves(EPOCH + 1, 1), check)
        print(f"{steps} instructions, {states} states")
        assert states > 5
    finally:
        left.close()

"""A monitor that is killed at any instruction: the next one publishes what it had decided, no more and no less.

A batch of calls becomes visible on three rings: its own is given back, the device sees what was posted, the caller its
answers. Killed between any two instructions, every call must be carried out exactly once (rules.md 18, test 19).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from pyx import abi
from tests.framework.monitor_rig import PAGES, Rig, nothing, submit
from tests.framework.stepping import identity_of

STEPS_MAX = 60_000  # instructions of one batch: far more than it takes
TAIL, HEAD = 64, 128  # where a ring keeps its indices


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    try:
        yield made
    finally:
        made.close()


def batch(numbers: Iterator[int]) -> tuple[list[bytes], list[int], list[int]]:
    """Calls of all kinds: (calls, ids that a device must get, ids that must be answered)."""
    good, bad, other, last = itertools.islice(numbers, 4)
    calls = [submit(good, abi.PAGE), submit(bad, PAGES * abi.PAGE), nothing(other), submit(last, 0)]
    return calls, [good, last], [bad, other]


def taken(rig: Rig) -> tuple[list[int], list[int]]:
    return [identity_of(slot) for slot in rig.posted.take()], [identity_of(slot) for slot in rig.answers.take()]


def until_given_back(rig: Rig, most: int = STEPS_MAX) -> int:
    """Single instructions until the calls are given back, the first thing to be seen of a batch; how many."""
    head = rig.calls.index(HEAD)
    for count in range(most):
        if rig.calls.index(HEAD) != head:
            return count
        rig.step(1)
    raise AssertionError(f"{most} instructions, and no call was taken")


def until_answered(rig: Rig) -> int:
    before = rig.answers.index(TAIL)
    for count in range(STEPS_MAX):
        if rig.answers.index(TAIL) != before:
            return count
        rig.step(1)
    raise AssertionError("calls that were given back were not answered")


def test_killed_between_any_two_stores_of_a_batch(rig: Rig, long: bool) -> None:
    numbers = itertools.count(1)
    rig.begin(adopting=False)
    calls, posted, answered = batch(numbers)
    rig.stop()
    rig.call(*calls)
    before, between = until_given_back(rig), until_answered(rig)
    rig.go_on()
    assert taken(rig) == (posted, answered)
    print(f"{before} instructions until the calls are given back, {between} more until they are answered")
    # The rings are published one soon after the other; a wake-up by a system call may follow. Before that: samples.
    early = range(0, before // 2, 20 if long else 200)
    late = range(between + 20) if long else [*range(40), *range(40, between + 20, 20)]
    for point in [*(-one for one in early if one), *late]:
        calls, posted, answered = batch(numbers)
        rig.stop()
        rig.call(*calls)
        if point < 0:
            rig.step(-point)
        else:
            until_given_back(rig)
            rig.step(point)
        rig.kill()
        rig.begin(adopting=True)
        assert taken(rig) == (posted, answered), f"killed {point} instructions after the calls were given back"

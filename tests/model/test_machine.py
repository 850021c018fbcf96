"""The explorer itself: textbook litmus tests, so that "no finding" in test_wakeup.py means something."""

from collections.abc import Generator
from typing import Any

import pytest

from tests.model.machine import Barrier, Exchange, Load, Machine, Operation, Store, Violation, Wait, Wake

Steps = Generator[Operation, Any, None]


def store_then_load(mine: str, theirs: str, order: str, barrier: int | None = None) -> Steps:
    yield Store(mine, 1, order)
    if barrier is not None:
        yield Barrier(barrier)
    seen = yield Load(theirs)
    yield Store(f"saw {theirs}", 1 if seen else 2, "seq_cst")


def both_blind() -> Steps:
    """Fails when both sides of a store buffering litmus missed the other's store."""
    if (yield Load("saw x")) == 2 and (yield Load("saw y")) == 2:
        raise Violation("both blind")


MEMORY = {"x": 0, "y": 0, "saw x": 0, "saw y": 0}


@pytest.mark.parametrize(("orders", "barrier", "reachable"), [
    (("release", "release"), None, True),
    (("seq_cst", "release"), None, True),
    (("seq_cst", "seq_cst"), None, False),
    (("release", "seq_cst"), 0, False),  # the second side's barrier empties the first side's buffer
    (("release", "seq_cst"), 1, True),   # one's own buffer is not the question
])
def test_store_buffering(orders: tuple[str, str], barrier: int | None, reachable: bool) -> None:
    programs = [lambda: store_then_load("x", "y", orders[0]), lambda: store_then_load("y", "x", orders[1], barrier),
                both_blind]
    assert (Machine(programs, MEMORY).explore() is not None) == reachable


@pytest.mark.parametrize(("order", "reachable"), [("relaxed", True), ("release", False)])
def test_message_passing(order: str, reachable: bool) -> None:
    def sender() -> Steps:
        yield Store("data", 1, "relaxed")
        yield Store("flag", 1, order)

    def receiver() -> Steps:
        if (yield Load("flag")) and not (yield Load("data")):
            raise Violation("flag without data")

    assert (Machine([sender, receiver], {"data": 0, "flag": 0}).explore() is not None) == reachable


def test_a_process_sees_its_own_stores_first() -> None:
    def program() -> Steps:
        yield Store("x", 1, "relaxed")
        if (yield Load("x")) != 1:
            raise Violation("own store not seen")

    assert Machine([program], {"x": 0}).explore() is None


def test_read_modify_write_is_atomic() -> None:
    def counter() -> Steps:
        yield Exchange("x", lambda x: x + 1)
        yield Exchange("done", lambda done: done + 1)

    def judge() -> Steps:
        if (yield Load("done")) == 2 and (yield Load("x")) != 2:
            raise Violation("an increment was lost")

    assert Machine([counter, counter, judge], {"x": 0, "done": 0}).explore() is None


@pytest.mark.parametrize("advance", [True, False])
def test_futex_compares_and_sleeps_in_one_step(advance: bool) -> None:
    def sleeper() -> Steps:
        yield Wait("word", 0)

    def waker() -> Steps:
        if advance:
            yield Exchange("word", lambda word: word + 1)
        yield Wake("word")

    finding = Machine([sleeper, waker], {"word": 0}).explore()
    assert (finding is None) == advance
    assert finding is None or "for ever: process 0 asleep" in str(finding)


def test_the_number_of_states_is_known() -> None:
    def program() -> Steps:
        yield Load("x")
        yield Load("x")

    machine = Machine([program, program], {"x": 0})
    assert machine.explore() is None
    assert machine.states == 9

"""A server that is killed at any instruction: the next seat answers every request once (rules.md 18 to 20, test 19).

Single instructions of the real thread, over real rings: while it takes requests, while it gives completions back, and
while it takes an office over. A device's answer to what was executed stands on its ring until the guest has it, so
what is sent again is what no device has answered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.framework.seat_rig import SeatRig

REQUESTS = 3  # of each trial
STEPS_MOST = 40_000  # instructions until the first trace: far more than it takes
POINTS_MOST = 20_000
EXECUTED = {"taking": 0, "completing": 2, "taking_over": 2}  # of them, before the death
POINTS = {"taking": 15, "completing": 40, "taking_over": 25}  # of death, evenly spread; under --long every instruction


@pytest.fixture
def rig() -> Iterator[SeatRig]:
    made = SeatRig()
    try:
        made.take_over()
        yield made
    finally:
        made.close()


def in_flight(rig: SeatRig) -> list[int]:
    """Requests that the seat has taken and passed on; their ids at the device."""
    rig.stop()
    rig.ask(REQUESTS)
    rig.go_on()
    calls = rig.calls_made()
    assert len(calls) == REQUESTS
    return calls


def taking(rig: SeatRig) -> None:
    """About to take requests."""
    rig.stop()
    rig.ask(REQUESTS)


def completing(rig: SeatRig) -> None:
    """About to give back two of its completions."""
    calls = in_flight(rig)
    rig.stop()
    rig.complete(*calls[:2])


def taking_over(rig: SeatRig) -> None:
    """About to take an office with a request in flight and two that were executed."""
    calls = in_flight(rig)
    rig.stop()
    rig.kill()
    rig.complete(*calls[:2])
    rig.stand_by()
    rig.name()


def first_trace(rig: SeatRig) -> None:
    """Single instructions until a successor could see anything."""
    before = rig.traces()
    for _ in range(STEPS_MOST):
        rig.step(1)
        if rig.traces() != before:
            return
    raise AssertionError(f"{STEPS_MOST} instructions without a trace")


def length(rig: SeatRig, scene: Callable[[SeatRig], None]) -> int:
    """Instructions from the first trace of a scene to its last one; the process is dead then."""
    scene(rig)
    first_trace(rig)
    last, count, before = 0, 0, rig.traces()
    while count - last < 2_000 and count < POINTS_MOST:
        rig.step(1)
        count += 1
        if (now := rig.traces()) != before:
            last, before = count, now
    rig.kill()
    return last


def finish(rig: SeatRig) -> tuple[list[int], int]:
    """The next seat takes over, the device answers what is sent again; all answers of the guest, and how many requests
    were sent again."""
    rig.take_over()
    answers, again = rig.answered(), 0
    for _ in range(2):
        rig.stop()
        calls = rig.calls_made()
        again += len(calls)
        rig.complete(*calls)
        rig.go_on()
        answers += rig.answered()
    return answers, again


@pytest.mark.parametrize("scene", [taking, completing, taking_over])
def test_killed_between_any_two_instructions(rig: SeatRig, scene: Callable[[SeatRig], None], long: bool) -> None:
    most = length(rig, scene)
    asked = rig.numbers
    assert sorted(finish(rig)[0]) == expected(rig, asked - REQUESTS)
    print(f"{most} instructions from the first trace to the last")
    for point in range(0, most + 10, 1 if long else max(1, most // POINTS[scene.__name__])):
        before = rig.numbers
        scene(rig)
        early = rig.answered()
        first_trace(rig)
        rig.step(point)
        rig.kill()
        answers, again = finish(rig)
        assert again == REQUESTS - EXECUTED[scene.__name__], "what the device has executed is not sent again"
        assert sorted(early + answers) == expected(rig, before), f"killed {point} instructions after the first trace"


def expected(rig: SeatRig, before: int) -> list[int]:
    """Ids of all requests since there were `before`, each once."""
    return [before + 1 + number << 16 for number in range(rig.numbers - before)]

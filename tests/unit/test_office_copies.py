"""A server dies while something that was received or read lies in its buffer, on the path `copy`: the next server has
the monitor copy it from there. Asked for again, a frame would not come again.

As in test_office_steps.py: after each instruction that changes shared memory, what is there is what a death leaves.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pyx import abi
from tests.framework.build import build_c
from tests.framework.monitor_rig import CALL
from tests.framework.office_rig import COMPLETION, EPOCH, OK, Rig
from tests.framework.run import run
from tests.framework.stepping import HEAD

ARRIVED = 1234  # bytes
ID, GPA, OFFSET, EPOCH_AT, LENGTH, WHICH = 0, 1, 2, 5, 6, 10  # fields of a call


@pytest.fixture
def rig(build_dir: Path) -> Iterator[Rig]:
    """Seat 0 serves; one page is asked for, and its buffer is with the device."""
    made = Rig(run(build_c(["ring/offsets.c"], into=build_dir), deadline=10).values()["terms"])
    try:
        made.begin(0)
        made.copies()
        made.name(EPOCH, 0)
        made.rest()
        made.ask(range(1, 2))
        made.ring(0)
        made.rest()
        yield made
    finally:
        made.close()


def calls(rig: Rig, epoch: int) -> list[tuple[int, ...]]:
    found = [CALL.unpack(slot) for slot in rig.calls.take()]
    return [call for call in found if call[EPOCH_AT] == epoch]


def test_what_has_arrived_is_not_asked_for_again(rig: Rig) -> None:
    (submitted,) = calls(rig, EPOCH)
    assert submitted[WHICH] == abi.CALLS["submit"]
    rig.hardware.push(COMPLETION.pack(submitted[ID], EPOCH, OK, 0, ARRIVED, 1, submitted[12], 0, 0))
    states, before = 0, b""
    rig.ring(0)
    while rig.hardware.index(HEAD) != rig.hardware.tail() or rig.calls.tail() == rig.calls.index(HEAD):
        if rig.changing() != before:
            before = rig.changing()
            states += 1
            followed(rig, submitted[GPA])
        rig.step(1)
    followed(rig, submitted[GPA])
    print(f"{states} states")
    assert states >= 4


def followed(left: Rig, buffer: int) -> None:
    """Seat 1 has it copied out of that buffer, whole, and the guest gets its completion once."""
    rig = left.copy()
    try:
        rig.take_over(EPOCH + 1, 1)
        (copy,) = calls(rig, EPOCH + 1)
        assert (copy[WHICH], copy[OFFSET], copy[LENGTH]) == (abi.CALLS["copy"], buffer, ARRIVED)
        answer = COMPLETION.pack(copy[ID], EPOCH + 1, OK, 0, 0, 1, copy[12], abi.CALLS["copy"], 0)
        rig.hardware.push(answer)
        rig.ring(1)
        while rig.in_flight():
            rig.ring(1)
            rig.pause()
        (slot,) = rig.completions.take()
        assert COMPLETION.unpack(slot)[4] == ARRIVED
    finally:
        rig.close()


def test_what_has_not_arrived_keeps_its_buffer(rig: Rig) -> None:
    """So does whoever follows the follower."""
    (submitted,) = calls(rig, EPOCH)
    left = rig.copy()
    try:
        left.take_over(EPOCH + 1, 1)
        (again,) = calls(left, EPOCH + 1)
        assert (again[WHICH], again[GPA]) == (abi.CALLS["submit"], submitted[GPA])
        left.ask(range(2, 3))
        left.ring(1)
        while not (more := calls(left, EPOCH + 1)):
            left.ring(1)
            left.pause()
        assert more[0][GPA] != submitted[GPA], "another request was given the buffer that it has"
    finally:
        left.close()

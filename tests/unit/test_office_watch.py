"""Processes die while the monitor takes an office over: who is named lives, and has been told that it has the seat.

A seat that served for a dead process of its number, beside the one that the monitor named next, wrote the rings of the
same guests: they found indices that had gone back.
"""

from __future__ import annotations

import struct
import time
from pathlib import Path

import pytest

from tests.framework.build import build_c, weakened
from tests.framework.office_rig import DEADLINE, EPOCH, Rig
from tests.framework.run import run
from tests.framework.stepping import SLEEPING

# As tests/ring/watch.c tells them: 10 times the epoch, and the seat.
STORIES = {
    "heir dies": {"nobody": 50, "next": 71},
    "named and dead": {"named": 61, "next": 71},
    "device meanwhile": {"next": 71},
}
MUTANTS = {
    "heir dies": ("(o->phase == PV_OFFICE_FENCED || o->phase == PV_OFFICE_DRAINING) && w->pidfds[o->now.to] < 0", "0"),
    "named and dead": ("if (held && PV_TERM_SEAT", "if (0 && held && PV_TERM_SEAT"),
    "device meanwhile": ("    o->again &= w->pidfds[from] >= 0; /*", "    /*"),
}


@pytest.fixture(scope="module")
def watch(build_dir: Path) -> Path:
    return build_c(["ring/watch.c"], ["-fsanitize=address,undefined", "-fno-sanitize-recover"], into=build_dir)


@pytest.mark.parametrize("story", STORIES)
def test_death_during_a_takeover(story: str, watch: Path) -> None:
    assert run(watch, story, deadline=10).values() == STORIES[story]


@pytest.mark.parametrize("story", MUTANTS)
def test_a_watch_that_does_not_look_is_found(story: str, build_dir: Path) -> None:
    headers = weakened(build_dir, "takeover.h", [MUTANTS[story]])
    program = build_c(["ring/watch.c"], into=build_dir, headers=headers)
    assert run(program, story, deadline=10).values() != STORIES[story]


def test_a_process_takes_no_term_before_it_has_its_seat(build_dir: Path) -> None:
    """Nor one that was in force when it got it; the next one is its own."""
    terms_at = run(build_c(["ring/offsets.c"], into=build_dir), deadline=10).values()["terms"]
    rig = Rig(terms_at)
    try:
        rig.office = office = rig.seat(1)
        thread = rig.serve()
        rig.name(EPOCH, 1)
        assert not looked(rig), "it serves for the process before it"
        office.sit(EPOCH << 1 | 1)
        assert not looked(rig), "it serves a term that the monitor gave to somebody else"
        rig.name(EPOCH + 1, 1)
        end = time.monotonic() + DEADLINE
        while not rig.serves(EPOCH + 1, 1):
            assert time.monotonic() < end, "it does not serve"
            rig.pause()
        assert thread.is_alive()
    finally:
        rig.close()


def looked(rig: Rig) -> bool:
    """Does it serve, after its thread has looked at the term once more? It looks each time before it sleeps; the first
    time it may have been about to sleep already."""
    assert rig.office is not None
    memory = rig.memory["seat1"]
    for _ in range(2):
        struct.pack_into("<I", memory, SLEEPING, 0)
        rig.ring(1)
        end = time.monotonic() + DEADLINE
        while struct.unpack_from("<I", memory, SLEEPING)[0] == 0:
            assert time.monotonic() < end, "it does not sleep"
            rig.pause()
    return rig.office.serving

"""Partition descriptors are read whole while their writer publishes as fast as it can (rules.md 8; view.h).

Two nets: the generation looked at before and after the copy, and the checksum. Each must hold alone; with one
broken on purpose and the other taken away, `torn.c` must find torn copies.
"""

import os
from pathlib import Path

import pytest

from tests.framework.build import build_c, weakened
from tests.framework.processors import needs_two
from tests.framework.run import run

pytestmark = needs_two

READS = 1_000_000
ATTEMPTS = 10  # another program may have the writer's processor for the whole of one
READS_LONG = 200_000_000

CHECKSUM_OFF = ("return copy->checksum == pv_descriptor_checksum(copy) ? generation : 0;", "return generation;")
SECOND_LOOK_OFF = (
    "if (atomic_load_explicit(&((struct pv_view *)view)->generation, memory_order_relaxed) == generation)", "if (1)")
ONE_BODY = [("&view->bodies[next & 1]", "&view->bodies[0]"), ("&view->bodies[generation & 1]", "&view->bodies[0]")]
EARLY_GENERATION = (
    "    atomic_thread_fence(memory_order_seq_cst);\n",
    "    atomic_store_explicit(&view->generation, next, memory_order_release);\n")

EQUIVALENT = {"as shipped": [], "generation alone": [CHECKSUM_OFF], "checksum alone": [SECOND_LOOK_OFF]}
MUTANTS = {
    "no second look at the generation": [SECOND_LOOK_OFF, CHECKSUM_OFF],
    "one body only": [*ONE_BODY, CHECKSUM_OFF],
    "generation before the body": [EARLY_GENERATION, CHECKSUM_OFF],
}


def torn(build_dir: Path, replacements: list[tuple[str, str]], reads: int) -> dict[str, int]:
    program = build_c(["ring/torn.c"], into=build_dir, headers=weakened(build_dir, "view.h", replacements))
    outcome = run(program, reads, os.getpid(), deadline=36000)
    assert outcome.status == 0, outcome
    return outcome.values()


@pytest.mark.parametrize("name", EQUIVALENT)
def test_copies_are_whole(name: str, build_dir: Path, long: bool) -> None:
    reads = READS_LONG if long else READS
    raced = False
    for _ in range(ATTEMPTS):
        values = torn(build_dir, EQUIVALENT[name], reads)
        assert values["torn"] == 0
        assert values["disorder"] == 0
        if SECOND_LOOK_OFF not in EQUIVALENT[name]:  # the checksum sees mixtures, not numbers
            assert values["mislabelled"] == 0
        assert values["refused"] < reads // 2
        raced = values["different"] > reads // 100
        if raced:
            break
    assert raced, "the writer hardly ever published: nothing was raced"


@pytest.mark.parametrize("name", MUTANTS)
def test_weakened_copy_is_torn(name: str, build_dir: Path) -> None:
    assert any(torn(build_dir, MUTANTS[name], READS)["torn"] for _ in range(ATTEMPTS)), "not caught"

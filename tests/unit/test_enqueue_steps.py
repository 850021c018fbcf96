"""A producer dies at any instruction of enqueue: no consumer sees a torn entry (rules.md test 19)."""

from pathlib import Path

import pytest

from tests.framework.build import build_c, weakened
from tests.framework.run import run

REQUESTS = 5
DEFECTS = {
    "shown before it is filled": (
        "slots.h",
        "    p->tail++;\n    return slot;",
        "    p->tail++;\n    atomic_store_explicit(&p->ring->tail, p->tail, memory_order_release);\n    return slot;",
    ),
    "the next one is shown with it": (
        "ring.h",
        "    p->published = p->tail;\n    if",
        "    p->published = ++p->tail;\n    if",
    ),
}


def swept(program: Path) -> dict[str, int]:
    outcome = run(program, REQUESTS, deadline=30)
    assert outcome.status == 0, outcome.errors
    return outcome.values()


def test_killed_while_it_enqueues(build_dir: Path) -> None:
    found = swept(build_c(["ring/enqueue_steps.c"], into=build_dir))
    assert (found["torn"], found["misplaced"]) == (0, 0)
    assert (found["states"], found["seen"]) == (REQUESTS, REQUESTS)
    assert found["steps"] > 20 * REQUESTS


@pytest.mark.parametrize("name", DEFECTS)
def test_defect_is_found(build_dir: Path, name: str) -> None:
    header, old, new = DEFECTS[name]
    program = build_c(["ring/enqueue_steps.c"], into=build_dir, headers=weakened(build_dir, header, [(old, new)]))
    found = swept(program)
    assert found["torn"] + found["misplaced"] > 0

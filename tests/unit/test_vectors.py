"""vectors.h: a vector that is raised while its hold ends is delivered, once (W3), whoever comes first."""

from pathlib import Path

import pytest

from tests.framework.build import build_c, weakened
from tests.framework.run import Outcome, run

ROUNDS = 100_000
ROUNDS_LONG = 20_000_000
STATUS_WRONG, STATUS_LOST = 2, 3

# Between the look and the act, so that the other side gets in: harmless where the protocol is whole.
LATE = "for (volatile int i = 0; i < 100; i++)\n            pv_pause();\n"
TAKE = """if (pv_vector_held(v, kernel) || !atomic_exchange_explicit(&v->pending, 0, memory_order_seq_cst))
        return false;
    atomic_fetch_add"""
LOOK = f"""if (pv_vector_held(v, kernel) || !atomic_load_explicit(&v->pending, memory_order_seq_cst))
        return false;
    {LATE}    atomic_store_explicit(&v->pending, 0, memory_order_seq_cst);
    atomic_fetch_add"""
SECOND_LOOK = """if (pv_vector_held(v, kernel) || !atomic_exchange_explicit(&v->pending, 0, memory_order_seq_cst))
            return false;
    }"""
WAKE = """    pv_vector_post(v, to, bit, symmetric);
    return true;"""

TAKEN = "        if (atomic_exchange_explicit(&v->pending, 1"
SLOW_RAISE = (TAKEN, f"        {LATE}{TAKEN}")
SLOW_RELEASE = ("    /* pairs with pv_vector_raise */\n", f"    {LATE}")

MUTANTS = {
    "no second look after pending was set": (STATUS_LOST, [SLOW_RAISE, (SECOND_LOOK, "return false;\n    }")]),
    "pending is read, not taken": (STATUS_WRONG, [(TAKE, LOOK)]),
    "the end of a hold wakes nobody": (
        STATUS_WRONG, [(WAKE, "    (void)to, (void)bit, (void)symmetric;\n    return true;")]
    ),
}


def race(program: Path, rounds: int, deadline: float = 120) -> Outcome:
    return run(program, rounds, deadline=deadline)


def test_nothing_is_lost_or_delivered_twice(build_dir: Path, long: bool) -> None:
    program = build_c(["ring/vectors.c"], into=build_dir)
    rounds = ROUNDS_LONG if long else ROUNDS
    outcome = race(program, rounds, 3600 if long else 120)
    assert outcome.status == 0, outcome
    values = outcome.values()
    assert values["raised"] >= rounds and values["masked"] > rounds // 4
    assert values["master"] > rounds // 100, "hardly any hold ended with something pending"


def test_slow_sides_are_right_too(build_dir: Path) -> None:
    headers = weakened(build_dir, "vectors.h", [SLOW_RAISE, SLOW_RELEASE])
    assert race(build_c(["ring/vectors.c"], into=build_dir, headers=headers), ROUNDS // 5).status == 0


@pytest.mark.parametrize("name", MUTANTS)
def test_a_weakened_copy_is_noticed(name: str, build_dir: Path) -> None:
    status, replacements = MUTANTS[name]
    program = build_c(["ring/vectors.c"], into=build_dir, headers=weakened(build_dir, "vectors.h", replacements))
    outcome = race(program, ROUNDS_LONG)
    assert outcome.status == status, outcome

"""Handles of memory that was revoked, and granted again to the same frames, are worth nothing (U5; rule 25)."""

from pathlib import Path

import pytest

from tests.framework.build import build_c, weakened
from tests.framework.run import run

CYCLES, CYCLES_LONG = 20_000, 1_000_000
MUTANTS = {
    "a cached line outlives its map": ("validate.h", [("line->map_generation == d->map_generation", "true")]),
    "a copy once taken is believed": ("pair.h", [
        ("if (generation && generation == atomic_load_explicit(&copy->generation, memory_order_relaxed))",
         "if (atomic_load_explicit(&copy->generation, memory_order_relaxed))")]),
    "the generation of the endpoint is not compared": ("validate.h", [
        ("if (e->generation != r->endpoint_generation)", "if (false)")]),
    "the key is not compared": ("pair.h", [("if (r->key != t->key)", "if (false)")]),
    "what is withheld is translated": ("validate.h", [("if (!(word & right))", "if (false)")]),
}  # fmt: skip


def cycled(program: Path, cycles: int) -> dict[str, int]:
    outcome = run(program, cycles, deadline=600)
    assert outcome.status == 0, outcome
    return outcome.values()


def test_no_stale_handle_is_accepted(build_dir: Path, long: bool) -> None:
    cycles = CYCLES_LONG if long else CYCLES
    assert cycled(build_c(["ring/revoked.c"], into=build_dir), cycles) == {
        "accepted": 0, "refused": 0, "stale": 5 * cycles, "current": 2 * cycles,
    }  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_a_weakened_check_accepts_some(name: str, build_dir: Path) -> None:
    header, replacements = MUTANTS[name]
    headers = weakened(build_dir, header, replacements)
    program = build_c(["ring/revoked.c"], ["-Wno-unused", "-Wno-type-limits"], into=build_dir, headers=headers)
    assert cycled(program, 10)["accepted"] > 0, "not caught"

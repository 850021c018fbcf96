"""Translation entries while the monitor opens and closes them without pause (rules.md 8, 24, 25, tests 4, 28; pair.h).

A device believes a private copy only while it is whole, is that of the entry in force, and the entry is open: a copy
of an earlier life is worth nothing once the entry was closed, whatever was opened at the same place since. Each mutant
takes one of the steps away; the same program must find what it is for.
"""

import os
from pathlib import Path

import pytest

from pyx.abi import REASONS
from tests.framework.build import build_c, weakened
from tests.framework.processors import needs_two
from tests.framework.run import run

pytestmark = needs_two

READS = 500_000
READS_LONG = 100_000_000
SECONDS = 10
ATTEMPTS = 50  # another program may have the writer's processor for the whole of one
FINDINGS = ("torn", "mislabelled", "disorder", "late")

SECOND_LOOK = ("if (pv_translation_generation(entry) != generation || ", "if (")
EARLY = "    atomic_store_explicit(&entry->generation, generation, memory_order_release);\n"
MUTANTS = {
    "no second look": ("torn", [SECOND_LOOK]),
    "not closed while it is written": ("torn", [("    pv_translation_close(entry);\n    atomic_thread_fence",
                                                 "    atomic_thread_fence")]),
    "generation before the contents": ("torn", [
        ("    pv_words_store((uint64_t *)entry + first,",
         EARLY + "    pv_words_store((uint64_t *)entry + first,")]),
    "a copy once taken is believed": ("late", [
        ("if (generation && generation == atomic_load_explicit(&copy->generation, memory_order_relaxed))",
         "if (atomic_load_explicit(&copy->generation, memory_order_relaxed))")]),
    "any open entry will do": ("late", [
        ("if (generation && generation == atomic_load_explicit(&copy->generation, memory_order_relaxed))",
         "if (generation && atomic_load_explicit(&copy->generation, memory_order_relaxed))")]),
    "an entry is never closed": ("late", [
        ("    atomic_store_explicit(&entry->generation, 0, memory_order_seq_cst);", "    (void)entry;")]),
}


def raced(program: Path, reads: int, seconds: int = SECONDS) -> dict[str, int]:
    outcome = run(program, reads, os.getpid(), seconds, deadline=36000)
    assert outcome.status == 0, outcome
    return outcome.values()


def test_only_the_entry_in_force_is_believed(build_dir: Path, long: bool) -> None:
    program = build_c(["ring/translation.c"], into=build_dir)
    reads = READS_LONG if long else READS
    values = raced(program, reads)
    assert [values[name] for name in FINDINGS] == [0] * len(FINDINGS), values
    assert min(values["different"], values["refused"]) > reads // 1000, f"nothing was raced: {values}"


def test_address_sanitizer(build_dir: Path) -> None:
    """No copy is longer than its place, however the writer tears it."""
    program = build_c(["ring/translation.c"], ["-fsanitize=address,undefined", "-fno-sanitize-recover"], into=build_dir)
    assert raced(program, READS // 5)["torn"] == 0


@pytest.mark.parametrize("name", MUTANTS)
def test_weakened_copy_is_believed(name: str, build_dir: Path) -> None:
    finding, replacements = MUTANTS[name]
    headers = weakened(build_dir, "pair.h", replacements)
    program = build_c(["ring/translation.c"], ["-Wno-unused"], into=build_dir, headers=headers)
    assert any(raced(program, READS, 1)[finding] for _ in range(ATTEMPTS)), "not caught"


def test_a_key_of_an_earlier_life(build_dir: Path) -> None:
    """Never opened, opened, closed, opened again for the same memory: each look of the device finds the life in force,
    and a request with the old key is refused also by whoever had a copy of the old entry."""
    outcome = run(build_c(["ring/lives.c"], ["-fsanitize=address,undefined"], into=build_dir), deadline=60)
    assert outcome.status == 0, outcome
    assert outcome.values() == {
        "never": 0, "opened": 1, "own": 0, "foreign": REASONS["key_invalid"], "closed": 0, "again": 0, "reopened": 1,
        "extents": 2, "old_key": REASONS["key_invalid"], "new_key": 0,
    }

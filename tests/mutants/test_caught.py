"""Every mutant is caught, and the same tests pass where nothing is planted."""

from __future__ import annotations

import pytest

from tests.mutants.runner import judge, run, tree
from tests.mutants.table import MUTANTS

pytestmark = [pytest.mark.long, pytest.mark.alone]


def test_nothing_is_found_where_nothing_is_planted() -> None:
    tests = sorted({test for mutant in MUTANTS.values() for test in mutant.tests})
    with tree() as folder:
        failed, output = run(folder, tests)
    assert failed == [], output[-3000:]


@pytest.mark.parametrize("name", MUTANTS)
def test_caught(name: str) -> None:
    verdict = judge(name)
    print(f"caught by {verdict.failed} in {verdict.seconds:.0f} s")
    assert verdict.caught, f"{MUTANTS[name].why}\n{verdict.output[-2000:]}"

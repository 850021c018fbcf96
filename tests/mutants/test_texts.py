"""The table of mutants is true: each text is where it was, and each test that has to see it is there."""

from __future__ import annotations

import ast

import pytest

from tests.mutants.runner import ROOT, occurrences
from tests.mutants.table import MUTANTS

LEAST = 12  # so many defects at least are kept (rules.md)


def test_there_are_enough() -> None:
    assert len(MUTANTS) >= LEAST


@pytest.mark.parametrize("name", MUTANTS)
def test_text_occurs_once(name: str) -> None:
    mutant = MUTANTS[name]
    assert occurrences(mutant) == 1, f"{mutant.file} has changed: write this mutant anew, for {mutant.why}"
    assert mutant.new != mutant.old


@pytest.mark.parametrize("name", MUTANTS)
def test_its_tests_are_there(name: str) -> None:
    for test in MUTANTS[name].tests:
        file, _, function = test.partition("::")
        tree = ast.parse((ROOT / file).read_text())
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert not function or function.partition("[")[0] in functions, test

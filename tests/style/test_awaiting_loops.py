"""A loop that awaits goes over a copy of what others may change meanwhile: a role dies or comes back in any pause, and
a dictionary whose keys change ends the loop with an error, in a task that nobody may wait for."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VIEWS = ("values", "items", "keys")
FILES = sorted((ROOT / "hostd").glob("*.py"))


def shared(view: ast.expr) -> bool:
    """A view of a dictionary that an object has: a function's own has a bare name."""
    return (
        isinstance(view, ast.Call)
        and isinstance(view.func, ast.Attribute)
        and view.func.attr in VIEWS
        and isinstance(view.func.value, ast.Attribute)
    )


def awaits(*nodes: ast.AST) -> bool:
    return any(isinstance(one, ast.Await) for node in nodes for one in ast.walk(node))


def found(tree: ast.AST) -> Iterator[int]:
    """Lines of loops over such a view that await between two of its elements."""
    for node in ast.walk(tree):
        if isinstance(node, ast.For) and shared(node.iter) and awaits(*node.body):
            yield node.lineno
        if isinstance(node, ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp):
            parts = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
            within = [*parts, *(test for one in node.generators for test in one.ifs)]
            if shared(node.generators[0].iter) and awaits(*within):
                yield node.lineno


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_loops_that_await_go_over_a_copy(path: Path) -> None:
    lines = list(found(ast.parse(path.read_text(encoding="utf-8"))))
    assert not lines, f"{path.name}: lines {lines}: list(...) around what they go over"


def test_such_loops_are_found() -> None:
    text = """
async def one(self):
    for name in self.fabric.devices.values():
        await self.ask(name)
    a = [await self.ask(one) for one in self.records.values()]
    b = {one for one in self.records.values() if await self.ask(one)}
    for name in list(self.records.values()):
        await self.ask(name)
    for name in self.records.values():
        self.count(name)
"""
    assert sorted(found(ast.parse(text))) == [3, 5, 6]

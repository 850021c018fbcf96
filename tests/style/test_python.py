"""Python of the host: no resource tracker, no sleeps, no signals by number, no checks that -O removes (rules.md 7)."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.style.rules import HOST, ROOT
from tests.style.sources import matching

EVERYWHERE = ("hostd/**/*.py", "partitions/**/*.py", "tools/**/*.py", "tests/**/*.py", "setup.py")
#: who may signal by number: the parent of the processes, which has not reaped them yet
SIGNALLERS = {"hostd/processes.py", "hostd/keeper.py", "hostd/keeper_process.py", "hostd/child.py", "hostd/loader.py"}
#: asserts about a module's own constants, made when it is imported
CONSTANT_ASSERTS = {"hostd/metrics_table.py"}


def name_of(node: ast.AST) -> str:
    """`time.sleep` of the expression time.sleep; empty where it is none."""
    return ast.unparse(node) if isinstance(node, ast.Attribute | ast.Name) else ""


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def calls(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield name_of(node.func), node.lineno


def narrows(test: ast.expr) -> bool:
    """`x is not None` and `isinstance(x, T)`: what a type checker needs, no check of what somebody else said."""
    if isinstance(test, ast.Compare):
        return isinstance(test.ops[0], ast.IsNot) and ast.unparse(test.comparators[0]) == "None"
    return isinstance(test, ast.Call) and name_of(test.func) == "isinstance"


def complaints(path: Path, source: str) -> list[str]:
    """What the rules have against one file."""
    tree = ast.parse(source)
    host = any(path.match(glob) for glob in HOST) or path.parts[0] in ("hostd", "partitions")
    found = [f"{path}: imports {name}" for name in imports(tree) if name.startswith("multiprocessing.shared_memory")]
    if not host:
        return found
    found += [f"{path}:{line}: {name}() instead of an event or a deadline" for name, line in calls(tree)
              if name in ("time.sleep", "sleep")]
    if str(path) not in SIGNALLERS:
        found += [f"{path}:{line}: {name}() by number; use a pidfd" for name, line in calls(tree)
                  if name in ("os.kill", "os.killpg")]
    if str(path) not in CONSTANT_ASSERTS:
        found += [f"{path}:{node.lineno}: assert {ast.unparse(node.test)} vanishes under -O" for node in ast.walk(tree)
                  if isinstance(node, ast.Assert) and not narrows(node.test)]
    return found


@pytest.mark.parametrize("path", list(matching(EVERYWHERE)), ids=str)
def test_file(path: Path) -> None:
    assert complaints(path, (ROOT / path).read_text()) == []


@pytest.mark.parametrize(("source", "word"), [
    ("from multiprocessing.shared_memory import SharedMemory", "imports"),
    ("from multiprocessing import shared_memory", "imports"),
    ("import time\ntime.sleep(1)", "deadline"),
    ("import os\nos.kill(5, 9)", "pidfd"),
    ("def f(size):\n    assert size < 10", "vanishes"),
])
def test_planted_offence_is_seen(source: str, word: str) -> None:
    found = complaints(Path("hostd/planted.py"), source)
    assert len(found) == 1 and word in found[0]


def test_narrowing_is_no_offence() -> None:
    source = "def f(x):\n    assert x is not None\n    assert isinstance(x, int)\n    return x"
    assert complaints(Path("partitions/planted.py"), source) == []

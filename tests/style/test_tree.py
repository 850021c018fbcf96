"""The tree: ruff, a README and a purpose in every folder and file, sizes (style.md)."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.style.rules import LINES_MOST, LONG_FILES, ROOT
from tests.style.sources import package_folders, tracked


def test_ruff() -> None:
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "--quiet", "--no-cache", "."], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("folder", package_folders(), ids=str)
def test_folder_has_a_readme(folder: Path) -> None:
    assert (ROOT / folder / "README.md").is_file(), f"{folder}: what is it, how do its parts work together"


@pytest.mark.parametrize("path", [path for path in tracked() if path.suffix in (".py", ".pyx", ".pxd")], ids=str)
def test_module_says_what_it_is(path: Path) -> None:
    text = (ROOT / path).read_text()
    if path.suffix == ".py":
        assert not text.strip() or ast.get_docstring(ast.parse(text)), f"{path}: no docstring at the top"
    elif path.with_suffix(".pyx") not in tracked() or path.suffix == ".pyx":  # a class .pxd says it in its .pyx
        beginning = next(line for line in text.splitlines() if line and not line.startswith("# cython:"))
        assert beginning.startswith('"""'), f"{path}: no docstring at the top"


@pytest.mark.parametrize("path", [path for path in tracked() if path.suffix in (".h", ".c")], ids=str)
def test_c_file_says_what_it_is(path: Path) -> None:
    assert (ROOT / path).read_text().startswith("/* "), f"{path}: no comment at the top"


def test_readme_of_the_data_plane_names_every_file() -> None:
    """But no stub, and no .pxd of a module."""
    files = [path for path in tracked() if path.parent == Path("pyx") and path.suffix in (".h", ".pyx", ".pxd")]
    files = [path for path in files if path.suffix != ".pxd" or path.with_suffix(".pyx") not in tracked()]
    named = (ROOT / "pyx/README.md").read_text()
    assert [path.name for path in files if f"`{path.name}`" not in named] == []


def lines(path: Path) -> int:
    return len((ROOT / path).read_text().splitlines())


@pytest.mark.parametrize("path", [path for path in tracked() if path.suffix in (".py", ".pyx", ".h", ".c")], ids=str)
def test_file_is_not_too_long(path: Path) -> None:
    most = LONG_FILES.get(str(path), LINES_MOST)
    assert lines(path) <= most, f"{path}: {lines(path)} lines; split it by subject (at most {most})"


def test_list_of_long_files_is_true() -> None:
    assert [path for path in LONG_FILES if not (ROOT / path).is_file() or lines(Path(path)) <= LINES_MOST] == []

"""Every Cython module has a type stub, and stub and module agree (mypy.stubtest)."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.style.rules import ROOT
from tests.style.sources import matching

MODULES = [path.stem for path in matching(["pyx/*.pyx"])]
#: what Cython adds to modules and classes; C names of enums, which Python knows by the tables beside them; a method
#: that Python has from 3.12 on
ALLOWED = r"""
pyx\.abi\.(pv|PV)_.*
pyx\.\w+\.names
.*\.__test__
.*\.__reduce_cython__
.*\.__setstate_cython__
.*\.__pyx_.*
.*\.__buffer__
"""


def stubtest(modules: list[str], folder: Path, where: Path = ROOT) -> subprocess.CompletedProcess[str]:
    allowed = folder / "allowed"
    allowed.write_text(ALLOWED)
    # Classes of an extension are laid out by C; that nobody can derive from two of them is no promise of ours.
    command = [sys.executable, "-m", "mypy.stubtest", *modules, "--concise", "--allowlist", str(allowed),
               "--ignore-unused-allowlist", "--ignore-disjoint-bases"]
    return subprocess.run(command, cwd=where, capture_output=True, text=True)


@pytest.mark.parametrize("module", MODULES)
def test_module_has_a_stub(module: str) -> None:
    assert (ROOT / "pyx" / f"{module}.pyi").is_file()


def test_stubs_are_true(tmp_path: Path) -> None:
    with_stub = [f"pyx.{module}" for module in MODULES if (ROOT / "pyx" / f"{module}.pyi").is_file()]
    done = stubtest(with_stub, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_untrue_stub_is_seen(tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text("def f(x: int) -> int:\n    return x\n")
    (tmp_path / "planted.pyi").write_text("def f(x: int, y: int) -> int: ...\ndef g() -> None: ...\n")
    done = stubtest(["planted"], tmp_path, tmp_path)
    assert done.returncode != 0
    assert "planted.f" in done.stdout and "planted.g" in done.stdout

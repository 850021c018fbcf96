"""The annotations of all that is Python are true (mypy): a name that a class has no longer is found here first."""

import subprocess
import sys
from pathlib import Path

from tests.style.rules import ROOT

PACKAGES = ("hostd", "partitions", "tools")


def mypy(*words: str, where: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "mypy", *words], cwd=where, capture_output=True, text=True)


def test_types_are_true() -> None:
    done = mypy(*PACKAGES)
    assert done.returncode == 0, done.stdout + done.stderr


def test_untrue_type_is_seen(tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text("def size(disk: int) -> int:\n    return disk.size\n")
    done = mypy("planted.py", "--cache-dir", str(tmp_path / "cache"), where=tmp_path)
    assert done.returncode != 0
    assert 'has no attribute "size"' in done.stdout

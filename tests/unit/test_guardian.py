"""The leak check: a test run that leaves anything behind fails and names it; a clean one does not."""

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.framework import guardian
from tests.style.rules import ROOT

#: kind -> (what the inner test does, what the report must name). {mark} is unique to this test.
LEAKS = {
    "orphan": ("subprocess.Popen(['sh', '-c', 'setsid sleep 987 & exit']).wait()", "sleep 987"),
    "shared memory": ("open('/dev/shm/{mark}', 'w').close()", "shared-memory object {mark}"),
    "folder": ("os.mkdir('/tmp/{mark}')", "file or folder /tmp/{mark}"),
    "socket": ("s = socket.socket(socket.AF_UNIX); s.bind('/tmp/{mark}')", "file or folder /tmp/{mark}"),
    "mount": ("os.mkdir('/tmp/{mark}'); subprocess.run(['mount', '-t', 'tmpfs', 'none', '/tmp/{mark}'], check=True)",
              "mount /tmp/{mark}"),
    "network namespace": ("subprocess.run(['ip', 'netns', 'add', '{mark}'], check=True)", "network namespace {mark}"),
}
NEEDS_ROOT = {"mount", "network namespace"}


@pytest.fixture
def mark() -> Iterator[str]:
    """A name for what is left on purpose; whatever has it is removed afterwards."""
    name = f"partvisor-planted-{secrets.token_hex(4)}"
    yield name
    subprocess.run(["umount", f"/tmp/{name}"], capture_output=True)
    subprocess.run(["ip", "netns", "delete", name], capture_output=True)
    Path("/dev/shm", name).unlink(missing_ok=True)
    path = Path("/tmp", name)
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def inner_run(folder: Path, body: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_inner.py").write_text(f"import os, socket, subprocess\n\n\ndef test_inner():\n    {body}\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.conftest",
               "--rootdir", folder, folder / "test_inner.py"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("kind", LEAKS)
def test_leak_fails_the_run(kind: str, mark: str, tmp_path: Path) -> None:
    if kind in NEEDS_ROOT and (os.geteuid() != 0 or (kind == "network namespace" and not shutil.which("ip"))):
        pytest.skip("needs root and its tool")
    if guardian.other_runs():
        pytest.skip("beside another test run nobody can say whose an object is")
    body, named = (text.format(mark=mark) for text in LEAKS[kind])
    done = inner_run(tmp_path, body)
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    assert done.returncode == guardian.LEFT_BEHIND
    assert named in done.stderr


def test_orphan_is_ended(tmp_path: Path) -> None:
    inner_run(tmp_path, "subprocess.Popen(['sh', '-c', 'setsid sleep 986 & exit']).wait()")
    assert not [process for process in psutil.process_iter(["cmdline"]) if process.info["cmdline"] == ["sleep", "986"]]


def test_clean_run_passes(tmp_path: Path) -> None:
    done = inner_run(tmp_path, "subprocess.run(['true'], check=True)")
    assert done.returncode == 0, done.stderr
    assert "left behind" not in done.stderr or "another test run" in done.stderr


def test_failure_keeps_its_status(tmp_path: Path) -> None:
    assert inner_run(tmp_path, "assert False").returncode == 1

"""The leak check: a test run that leaves anything behind fails and names it; a clean one does not."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.framework import guardian
from tests.framework.leaks import Snapshot, leaks
from tests.style.rules import ROOT

pytestmark = pytest.mark.alone  # what tests beside it make would be its own

def socket_at(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)


def mount_at(path: str) -> None:
    os.mkdir(path)
    subprocess.run(["mount", "-t", "tmpfs", "none", path], check=True)


#: kind -> (makes one named so, what the report must say)
LEAKS = {
    "shared memory": (lambda mark: Path("/dev/shm", mark).touch(), "shared-memory object {mark}"),
    "folder": (lambda mark: os.mkdir(f"/tmp/{mark}"), "file or folder /tmp/{mark}"),
    "socket": (lambda mark: socket_at(f"/tmp/{mark}"), "file or folder /tmp/{mark}"),
    "mount": (lambda mark: mount_at(f"/tmp/{mark}"), "mount /tmp/{mark}"),
    "network namespace": (lambda mark: subprocess.run(["ip", "netns", "add", mark], check=True),
                          "network namespace {mark}"),
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
    (folder / "test_inner.py").write_text(f"import os, subprocess\n\n\ndef test_inner():\n    {body}\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.conftest",
               "--rootdir", folder, folder / "test_inner.py"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("kind", LEAKS)
def test_new_object_is_named(kind: str, mark: str) -> None:
    if kind in NEEDS_ROOT and (os.geteuid() != 0 or (kind == "network namespace" and not shutil.which("ip"))):
        pytest.skip("needs root and its tool")
    make, named = LEAKS[kind]
    before = Snapshot.take()
    make(mark)
    assert named.format(mark=mark) in leaks(before, [])
    assert named.format(mark=mark) not in leaks(Snapshot.take(), []), "what was there before is no leak"


def test_objects_of_another_living_process_are_not_ours() -> None:
    name = f"partvisor-{os.getpid()}-other"
    before = Snapshot.take()
    Path("/dev/shm", name).touch()
    try:
        assert f"shared-memory object {name}" not in leaks(before, [])
        assert f"shared-memory object {name}" in leaks(before, [os.getpid()])
    finally:
        Path("/dev/shm", name).unlink()


def test_left_object_fails_the_run(mark: str, tmp_path: Path) -> None:
    if guardian.other_runs():
        pytest.skip("beside another test run nobody can say whose an object is")
    done = inner_run(tmp_path, f"os.mkdir('/tmp/{mark}')")
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    assert done.returncode == guardian.LEFT_BEHIND
    assert f"file or folder /tmp/{mark}" in done.stderr


def test_orphan_fails_the_run_and_is_ended(tmp_path: Path) -> None:
    done = inner_run(tmp_path, "subprocess.Popen(['sh', '-c', 'setsid sleep 986 & exit']).wait()")
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    assert done.returncode == guardian.LEFT_BEHIND
    assert "sleep 986" in done.stderr
    assert not [process for process in psutil.process_iter(["cmdline"]) if process.info["cmdline"] == ["sleep", "986"]]


def test_clean_run_passes(tmp_path: Path) -> None:
    done = inner_run(tmp_path, "subprocess.run(['true'], check=True)")
    assert done.returncode == 0, done.stderr
    assert "left behind" not in done.stderr or "another test run" in done.stderr


def test_failure_keeps_its_status(tmp_path: Path) -> None:
    assert inner_run(tmp_path, "assert False").returncode == 1

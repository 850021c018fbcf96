"""hostd.haste: who follows a killed hostd goes before others, nobody else does, and it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hostd import runtime
from hostd.haste import PRIORITY
from hostd.paths import lock_state, prepare, resolve

ROOT = Path(__file__).resolve().parents[2]
#: what a process is, and what a thread of it, in haste and behind it
PROGRAM = """
import json, os, signal, sys, threading
from hostd import haste

def now():
    return [os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK, os.sched_getparam(0).sched_priority]

found = {}
haste.begin_where_needed(sys.argv[1:])
found["begun"], found["turn"] = now(), signal.getitimer(signal.ITIMER_PROF)[1]
thread = threading.Thread(target=lambda: found.update(thread=now()))
thread.start()
thread.join()
haste.end()
found["ended"], found["turn_ended"] = now(), signal.getitimer(signal.ITIMER_PROF)[1]
print(json.dumps(found))
"""
NORMAL = [os.SCHED_OTHER, 0]


def run(folder: Path, form: str) -> dict[str, Any]:
    words = [form.format("--runtime-dir", folder / "run"), form.format("--state-dir", folder / "state")]
    command = [sys.executable, "-c", PROGRAM, *" ".join(words).split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("form", ["{} {}", "{}={}"])
@pytest.mark.parametrize(("keeper", "hostd"), [(True, False), (True, True), (False, False)])
def test_who_follows_a_dead_one_hastes(tmp_path: Path, form: str, keeper: bool, hostd: bool, real_time: None) -> None:
    paths = resolve(tmp_path / "run", tmp_path / "state")
    prepare(paths)
    os.close(lock_state(paths))  # of an earlier one
    locks = [runtime.lock(paths.runtime)] if keeper else []
    locks += [lock_state(paths)] if hostd else []
    try:
        found = run(tmp_path, form)
    finally:
        for lock in locks:
            os.close(lock)
    hasty = keeper and not hostd
    assert found["begun"] == ([os.SCHED_RR, PRIORITY] if hasty else NORMAL) and (found["turn"] > 0) == hasty
    assert found["thread"] == found["ended"] == NORMAL and found["turn_ended"] == 0


def test_nothing_is_there(tmp_path: Path) -> None:
    assert run(tmp_path, "{} {}")["begun"] == NORMAL


def test_guests_of_its_processor_go_on(real_time: None) -> None:
    """While one in haste computes, a process of the normal class that is bound to the same processor does, too."""
    code = """
import os, time
from hostd import haste

def spent(pid):
    with open(f"/proc/{pid}/schedstat") as file:
        return int(file.read().split()[0])

os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
child = os.fork()
while child == 0:
    pass
haste.begin()
before, end = spent(child), time.process_time() + 0.3
while time.process_time() < end:
    pass
print(spent(child) - before)
os.kill(child, 9)
os.waitpid(child, 0)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0


@pytest.fixture
def real_time() -> None:
    """Skips where this machine does not allow it."""
    before = os.sched_getscheduler(0)
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(PRIORITY))
    except PermissionError:
        pytest.skip("no right to a real-time class")
    os.sched_setscheduler(0, before, os.sched_param(0))

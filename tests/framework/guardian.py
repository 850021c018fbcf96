"""The parent of a test run: adopts what the tests orphan, and fails the run when something was left behind.

pytest forks here before it collects anything; the child goes on as pytest, the parent becomes a subreaper that
waits for it. A separate process, because a subreaper must reap whatever it adopts at once (a zombie looks alive to
those who wait for its pid), and pytest itself cannot do so without stealing the exit status of its own children.
"""

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

import psutil

from tests.framework.leaks import Snapshot, descendants, describe, leaks

PR_SET_CHILD_SUBREAPER = 36
PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
NAME = "pv-guardian"
SETTLE_SECONDS = 2.0  # a process that was told to end just before the run's end may need that long
LEFT_BEHIND = 1       # exit status, as pytest has it for failed tests


def _prctl(option: int, value: int | bytes) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def guard() -> None:
    """Returns in the child, which runs the tests. The parent never returns: it exits with the run's status."""
    sys.stdout.flush()
    sys.stderr.flush()
    before = Snapshot.take()
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    own_name = Path("/proc/self/comm").read_text().strip()
    _prctl(PR_SET_NAME, NAME.encode())
    guardian = os.getpid()
    child = os.fork()
    if child == 0:
        _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != guardian:
            os._exit(1)
        _prctl(PR_SET_NAME, own_name.encode())
        return
    os._exit(_watch(child, before))


def _watch(child: int, before: Snapshot) -> int:
    # Ctrl-C and Ctrl-\ reach the whole foreground group; the child decides and we report afterwards.
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, frame: os.kill(child, received))
    status = _reap_until(child)
    processes, objects = _left_behind(before)
    if not processes and not objects:
        return status
    print("\nleft behind by this test run:", *processes, *objects, sep="\n  ", file=sys.stderr, flush=True)
    if not processes and other_runs():
        print("another test run goes on: these may be its own, so they are no failure", file=sys.stderr)
        return status
    return status or LEFT_BEHIND


def other_runs() -> bool:
    """Whether there is a guardian beside this one; one above it guards a test of this module, not another run."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return any(process.info["name"] == NAME and process.pid not in own for process in psutil.process_iter(["name"]))


def _reap_until(child: int) -> int:
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _left_behind(before: Snapshot) -> tuple[list[str], list[str]]:
    """Waits a moment for what is just ending, then names processes and objects left; kills the processes."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        _reap_ended()
        living = descendants(os.getpid())
        left = leaks(before, [os.getpid(), *(process.pid for process in living)])
        if not (living or left) or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    lines = [describe(process) for process in living]
    for process in living:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            pass
    return lines, left


def _reap_ended() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass

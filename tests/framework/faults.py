"""Entries of servers that die at a step of their own choosing: the fault plane of the control plane's tests.

A step is the begin of an SQL statement, a message to or from the keeper, or the publication of views; between two
of them a server only computes. Statements are also cut in the middle, every `PROGRESS` instructions of SQLite's
virtual machine. The process kills itself with SIGKILL at a step that it is told, and otherwise says how many steps a
request had.
"""

from __future__ import annotations

import os
import signal
import sqlite3
from typing import Any

from partitions import store
from partitions.skeleton import Context
from partitions.ultravisor import main, views
from partitions.ultravisor.keeper import Keeper

PROGRESS = 40  # instructions: some statements have a few of these points, most have none


class Steps:
    """Counts steps while armed, and dies at one: number `die_at`, or number `near` after the begin of commit number
    `commit` (0: at its begin)."""

    def __init__(self) -> None:
        self.armed = False

    def arm(self, die_at: int = 0, commit: int = 0, near: int = 0) -> None:
        self.number, self.commits, self.since = 0, 0, 0
        self.die_at, self.commit, self.near = die_at, commit, near
        self.armed = True

    def step(self, what: Any = None) -> int:
        if self.armed:
            self.number += 1
            self.since += 1
            if what == "COMMIT":
                self.commits, self.since = self.commits + 1, 0
            if self.number == self.die_at or (self.commits and (self.commits, self.since) == (self.commit, self.near)):
                os.kill(os.getpid(), signal.SIGKILL)
        return 0


class Faulty(main.Ultravisor):
    """Answers `arm`, which starts the count, and `steps`, which ends it."""

    steps = Steps()

    def handle_arm(self, message: dict[str, Any], _fds: list[int]) -> dict[str, Any]:
        self.steps.arm(**{name: message[name] for name in ("die_at", "commit", "near") if name in message})
        return {}

    def handle_steps(self, _message: dict[str, Any], _fds: list[int]) -> dict[str, Any]:
        self.steps.armed = False
        return {"steps": self.steps.number, "commits": self.steps.commits}


def ultravisor(context: Context) -> int:
    """The ultravisor, which dies where it is told to: `die_at` in the configuration counts from its start."""
    steps = Faulty.steps
    _observe(steps)
    if context.config.get("die_at"):
        steps.arm(context.config["die_at"])
    return Faulty(context).run()


def _observe(steps: Steps) -> None:
    connect = sqlite3.connect

    def observed(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        connection.set_trace_callback(steps.step)
        connection.set_progress_handler(steps.step, PROGRESS)  # called without an argument
        return connection

    store.sqlite3.connect = observed  # type: ignore[attr-defined]
    for owner, names in ((Keeper, ("send", "receive")), (views.Views, ("publish", "adopt_new", "forget"))):
        for name in names:
            setattr(owner, name, _counted(steps, getattr(owner, name)))


def _counted(steps: Steps, method: Any) -> Any:
    def counted(*arguments: Any) -> Any:
        steps.step()
        result = method(*arguments)
        steps.step()
        return result

    return counted

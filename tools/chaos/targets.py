"""The processes of the host under test, and how a blow reaches one: by a pidfd of a process that the host tells.

A pid from a list may be another process's by the time that a signal is sent. So the pidfd is opened first, then the
host is asked again: the same pid in the same role means that the pidfd is of that process.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Collection
from contextlib import suppress
from typing import Any

from hostd.errors import HostError
from tools.bench.host import BenchHost
from tools.chaos.faults import Blow
from tools.client import partition_path

LOOK = 0.02  # seconds between two looks at the host
TURN, SHARE = 0.01, 0.1  # of a slowed process: seconds of each turn, and the share of it in which it runs


class Target:
    """The process of a role, as long as this object lives."""

    def __init__(self, role: str, row: dict[str, Any], pidfd: int) -> None:
        self.role = role
        self.row = row
        self.pidfd = pidfd

    @property
    def pid(self) -> int:
        return int(self.row["pid"])

    def signal(self, number: signal.Signals) -> bool:
        """False: it has ended."""
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            return False
        return True

    def strike(self, blow: Blow) -> None:
        """Returns when the blow is over."""
        if blow.kind == "kill":
            self.signal(signal.SIGKILL)
            return
        end = time.monotonic() + blow.lasts
        try:
            if blow.kind == "stop":
                self.signal(signal.SIGSTOP)
                time.sleep(blow.lasts)
            while blow.kind == "slow" and time.monotonic() < end and self.signal(signal.SIGSTOP):
                time.sleep(TURN * (1 - SHARE))
                self.signal(signal.SIGCONT)
                time.sleep(TURN * SHARE)
        finally:
            self.signal(signal.SIGCONT)  # whatever happens here, nobody stays stopped

    def ended(self, seconds: float) -> bool:
        """Whether the process is gone, within so long: one that was killed needs a moment."""
        return bool(select.select([self.pidfd], [], [], seconds)[0])

    def close(self) -> None:
        os.close(self.pidfd)


def aim(host: BenchHost, roles: Collection[str]) -> dict[str, Target]:
    """Those of the roles that have a process at the moment. HostError where there is no role of a name."""
    found: dict[str, Target] = {}
    try:
        for role, row in _rows(host, roles).items():
            with suppress(ProcessLookupError):
                if row["pid"]:
                    found[role] = Target(role, row, os.pidfd_open(row["pid"]))
        for role, row in _rows(host, found).items():
            if row["pid"] != found[role].pid:
                found.pop(role).close()
    except BaseException:
        for target in found.values():
            target.close()
        raise
    return found


def _rows(host: BenchHost, roles: Collection[str]) -> dict[str, dict[str, Any]]:
    rows = {row["name"]: row for row in host.client.get("/v1/partitions")["partitions"]}
    if missing := sorted(set(roles) - set(rows)):
        raise HostError("not_found", f"no partition {missing[0]!r}; known: {', '.join(sorted(rows))}")
    return {role: rows[role] for role in roles}


def row(host: BenchHost, role: str) -> dict[str, Any]:
    """What the host says of a role. HostError where there is none of that name."""
    return dict(host.client.get(partition_path(role)))


def await_back(host: BenchHost, target: Target, died: bool, deadline: float) -> float | None:
    """Waits until the role has a running process, another one where the first has `died`; the time of it by the
    monotonic clock, None past `deadline`."""
    while time.monotonic() < deadline:
        try:
            now = row(host, target.role)
            if now["state"] == "running" and now["pid"] and (now["pid"] != target.pid or not died):
                return time.monotonic()
        except HostError as error:  # while hostd itself is away
            if error.code not in ("unreachable", "timeout"):
                raise
        time.sleep(LOOK)
    return None

"""What hostd remembers of one process of the host, partition or not, and the row that its API shows of it."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import psutil

from hostd import procfs
from hostd.async_wire import AsyncWire
from hostd.exports import Export

LOG_MAX = 256 << 10  # bytes kept of what a process wrote; older lines are dropped (rule 39)
ENDED = ("stopped", "failed")
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Record:
    """One process. `plan` is the ultravisor's; `number` the partition id, 0 for keeper, loader and hostd."""

    name: str
    type: str
    number: int = 0
    state: str = "defined"
    process: int = 0  # the keeper's id
    pid: int | None = None
    start_ticks: int | None = None
    pidfd: int | None = None
    exit_status: dict[str, int] | None = None
    sandbox: dict[str, Any] = field(default_factory=dict)
    sandbox_wanted: str = "none"
    handed: dict[str, int] = field(default_factory=dict)  # descriptors that its process made for the monitor, by name
    trapped: bool = False  # the keeper holds what the monitor answers its page faults with
    view: dict[str, Any] = field(default_factory=dict)  # what the next monitor needs to show it the same hardware
    plan: dict[str, Any] = field(default_factory=dict)
    wire: AsyncWire | None = None
    behind: dict[str, Record] = field(default_factory=dict)  # roles that it asks to answer hostd, by name
    absence: Any = None  # of a role that is started again when it dies (hostd.asking)
    spec: Any = None
    queues: list[int] = field(default_factory=list)  # numbers at the I/O partition
    served: dict[int, list[int]] = field(default_factory=dict)  # the same by generation of the endpoint
    connections: dict[int, Any] = field(default_factory=dict)  # of endpoints, by generation (hostd.connections)
    hot: set[int] = field(default_factory=set)  # generations of endpoints that came while the guest ran
    leaving: dict[str, Any] | None = None  # an endpoint that is being detached: {"endpoint": name, "decision"}
    cutting: dict[str, Any] | None = None  # one whose queue pair is being revoked, likewise
    silent: bool = False  # its call ring is revoked
    silences: int = 0  # times that it was, or was granted again
    lifecycle: Any = None  # the wire to a guest: its reports, and endpoints that come and go
    recorded: asyncio.Event | None = None  # of a guest: the database knows its process, or never will
    attached: bool = False
    opened: bool = False  # the monitor knows it: so does the next one
    copied: bool = False  # the monitor maps its memory, for the copy path
    stop_asked: bool = False
    untold: str | None = None  # the state in which it ended, where the database did not hear of it
    restarts: int = 0  # times that its process was started again
    scheduled: bool = False  # it is a world of its own
    assigned: list[str] = field(default_factory=list)  # devices that a guest has to itself
    revocations: dict[int, Any] = field(default_factory=dict)  # of its memory, by address (hostd.revocation)
    withdrawals: dict[str, Any] = field(default_factory=dict)  # of endpoints and channels (hostd.withdrawal)
    held: bool = False  # its world stands, by hand (hostd.vectors)
    processors: int = 0  # that a guest may run on
    export: Export | None = None  # the socket that its disks are served on
    started_ns: int | None = None
    reports: int = 0
    log: deque[bytes] = field(default_factory=deque)
    log_size: int = 0

    def write_log(self, data: bytes) -> None:
        self.log.append(data)
        self.log_size += len(data)
        while self.log_size > LOG_MAX and len(self.log) > 1:
            self.log_size -= len(self.log.popleft())

    def log_text(self) -> str:
        return b"".join(self.log).decode(errors="replace")

    def row(self, boot_time: float) -> dict[str, Any]:
        """As hostd.interface describes it."""
        cpu, memory = usage(self.pid if self.exit_status is None else None)
        return {
            "name": self.name,
            "id": self.number,
            "type": self.type,
            "state": self.state,
            "pid": self.pid if self.exit_status is None else None,
            "start_time": None if self.start_ticks is None else boot_time + self.start_ticks / CLOCK_TICKS,
            "cpu_seconds": cpu,
            "memory": memory,
            "world": self.number & 0xFFFF if self.number else None,
            "exit_status": self.exit_status,
            "restarts": self.restarts,
            "quarantine": sum(one.size for one in self.revocations.values() if one.state == "quarantine"),
            "sandbox": sandbox_state(self.sandbox_wanted, self.sandbox),
            "endpoints": [
                {
                    "index": endpoint["index"],
                    "name": endpoint["name"],
                    "kind": endpoint["kind"],
                    "device": endpoint["device"],
                    "path": endpoint["path"],
                    "wanted": endpoint["wanted"],
                    "weight": endpoint["weight"],
                    "mac": endpoint["mac"] or "",
                    "connection": self._connection(endpoint["generation"]),
                }
                for endpoint in self.plan.get("endpoints", [])
            ],
        }

    def _connection(self, generation: int) -> dict[str, Any] | None:
        connection = self.connections.get(generation)
        return None if connection is None else connection.row()


def is_python(word: str) -> bool:
    """Is the first word of a program MODULE:FUNCTION, a Python guest?"""
    module, colon, function = word.partition(":")
    return bool(colon) and function.isidentifier() and all(part.isidentifier() for part in module.split("."))


def sandbox_state(wanted: str, report: dict[str, Any]) -> str:
    """full, reduced or off, from what the new process reported of its confinement."""
    if wanted == "none" or not report:
        return "off"
    layers = [report.get("seccomp"), report.get("no_new_privileges")]
    if wanted == "guest":
        layers += [report.get("uid"), report.get("pivot"), len(report.get("namespaces", [])) >= 5]
    return "full" if all(layers) else "reduced"


def usage(pid: int | None) -> tuple[float, int]:
    """CPU seconds and resident bytes of a living process, as the kernel counts them; zeros for a dead one."""
    if pid is None:
        return 0.0, 0
    try:
        process = psutil.Process(pid)
        times = process.cpu_times()
        return times.user + times.system, process.memory_info().rss
    except psutil.Error:
        return 0.0, 0


def own_record(name: str, pid: int) -> Record:
    """The record of a process that the keeper has not started."""
    process = psutil.Process(pid)
    state = "running" if process.is_running() else "failed"
    return Record(name, name, state=state, pid=pid, start_ticks=procfs.start_time(pid))

"""What is told of a role that has not come back: its state and process, and why, in the host's own words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hostd.errors import HostError
from tools.bench.host import BenchHost
from tools.chaos.targets import Target, row

LAST = 5  # events or lines of a log that are told
TAIL = 8192  # bytes of the end of hostd's log that are looked at
FACTS = ("sequence", "time", "kind", "partition")  # of every event


@dataclass(frozen=True)
class Away:
    """`role` as the campaign calls it, `struck` the process that was struck; state and pid of now, None where nobody
    says."""

    role: str
    struck: int
    state: str | None
    pid: int | None
    why: str

    @property
    def text(self) -> str:
        return f"{self.role} (pid {self.struck} was struck) is {self.state or 'unknown'}, pid {self.pid}: {self.why}"


def look(host: BenchHost, role: str, target: Target, error: HostError | None = None) -> Away:
    """`error`: what the host answered when it was asked for the role, where that was not its row."""
    state = pid = None
    told = [] if error is None else [str(error)]
    try:
        now = row(host, target.role)
        state, pid = now["state"], now["pid"]
        told += _events(host, target.role)
    except (HostError, OSError) as failure:
        told = [str(failure), *_lines(host)]
    return Away(role, target.pid, state, pid, "; ".join(told) or "no reason is known")


def _events(host: BenchHost, name: str) -> list[str]:
    """The last ones that are about it, and the last errors that are about nobody."""
    found = [
        event for event in host.client.lines("/v1/events")
        if event.get("partition") == name or event["kind"] == "error" and "partition" not in event
    ]  # fmt: skip
    return [f"{event['kind']} {_facts(event)}".strip() for event in found[-LAST:]]


def _facts(event: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in event.items() if name not in FACTS)


def _lines(host: BenchHost) -> list[str]:
    """The end of hostd's log, which nobody needs to be asked for."""
    try:
        with open(host.paths.log, "rb") as file:
            file.seek(max(0, host.paths.log.stat().st_size - TAIL))
            lines = file.read().decode(errors="replace").splitlines()[-LAST:]
    except OSError as error:
        return [f"its log cannot be read: {error}"]
    return [f"its log ends: {' | '.join(lines)}"] if lines else []

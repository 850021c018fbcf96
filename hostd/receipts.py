"""Receipts of what is taken from a running guest: what, by which generation, when and how (U5, A3; design.md 3).

Whoever may still act under it is a holder: the monitor, a device, a channel server. Each lets go by its own word, or
its process has ended, which a receipt tells apart. The guest is none: what it holds leads nowhere by then.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from hostd.errors import HostError
from hostd.records import Record
from hostd.wire import RemoteError

Row = dict[str, Any]


def undecided(record: Record, deadline: float) -> HostError:
    text = f"the decision took longer than {deadline:g} s; ask again: what was begun goes on"
    return HostError("timeout", f"{record.name}: {text}")


def refused(record: Record, error: RemoteError) -> HostError:
    """A role's refusal for the caller: it names the guest, once."""
    text = error.message if error.message.startswith(record.name) else f"{record.name}: {error.message}"
    return HostError(error.code, text, **error.details)


@dataclass(kw_only=True)
class Receipt:
    """`generation`: of what is taken, no later request has it. `stages`: seconds from the request to each state.
    `holders`: the same to their having let go; None: they have not. `processes`: theirs at the begin, by the keeper's
    numbers."""

    kind: str
    begin: float
    generation: int = 0
    decision: int | None = None
    state: str = "revoking"
    holders: dict[str, float | None] = field(default_factory=dict)
    processes: dict[str, int] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    stages: dict[str, float] = field(default_factory=dict)
    task: asyncio.Task[None] | None = None

    def since(self) -> float:
        return time.monotonic() - self.begin

    def reach(self, state: str) -> None:
        self.stages[state] = self.since()

    def hold(self, roles: Iterable[Record]) -> None:
        """These have to let go."""
        for role in roles:
            self.holders[role.name] = None
            self.processes[role.name] = role.process

    def let_go(self, role: Record) -> None:
        if role.process != self.processes[role.name] or role.exit_status is not None:
            self.ended.add(role.name)
        self.holders[role.name] = self.since()

    async def settled(self, record: Record, deadline: float, begin: float) -> bool:
        """Waits until all is done, or `deadline` seconds after `begin`. HostError where it was refused or failed, or
        has not even been decided by then: asked again, it goes on."""
        assert self.task is not None
        await asyncio.wait({self.task}, timeout=max(0.0, deadline - (time.monotonic() - begin)))
        if self.task.done():
            self.task.result()
            return True
        if not self.stages:
            raise undecided(record, deadline)
        return False

    def subject(self) -> Row:
        raise NotImplementedError

    def row(self, record: Record, roles: Iterable[Record]) -> Row:
        pids = {role.name: role.pid for role in roles}
        return {
            "name": record.name,
            "id": record.number,
            "kind": self.kind,
            **self.subject(),
            "generation": self.generation,
            "state": self.state,
            "how": "forced" if self.ended else "cooperative",
            "stages": dict(self.stages),
            "holders": [
                {"name": name, "pid": pids.get(name), "released": seconds, "ended": name in self.ended}
                for name, seconds in self.holders.items()
            ],
            "decision": self.decision,
        }

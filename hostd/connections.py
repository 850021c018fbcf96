"""How each endpoint is connected to whoever serves it (U12, rules.md 23 and 38): state, cause, age.

    connected      its own I/O partition serves it, and another one stands by
    degraded       it is served, but nobody stands by
    fenced         who served it is cut off, and nobody serves yet; or a role is given up, and the error says which
    failed_over    the standby serves it
    reconnecting   what it needs has died, and the next one is being started

    death of the server: connected -> fenced -> failed_over          (its own clients)
                         connected -> degraded -> connected          (those of the other one)
    of both:             connected -> reconnecting -> fenced -> failed_over or connected
    of monitor, device:  connected -> reconnecting -> connected

On the path `direct` only the device counts. A state is a function of who lives and who serves what, so whoever learns
of those, also a daemon that was started again, has the states. Each change is the event `connection`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from hostd.events import Event, EventLog
from hostd.fabric import Fabric
from hostd.records import ENDED, Record

Row = dict[str, Any]
STATES = ("connected", "degraded", "reconnecting", "failed_over", "fenced")
# `attached`, `recovered`: of a sound connection, the first one or a later one. The rest: who is missing, or why
# somebody else serves (as the monitor says).
CAUSES = ("attached", "recovered", "standby", "server", "monitor", "device", "death", "hang", "planned", "given_up")
BY_SERVER = ("copy", "redirect")  # paths that need one


@dataclass(frozen=True)
class Connection:
    """Of one endpoint. `since`: seconds of the monotonic clock; `changes`: how often each state was entered;
    `failovers`: takeovers of its server, by the path in force."""

    state: str
    cause: str
    error: str | None
    since: float
    changes: Mapping[str, int]
    failovers: Mapping[str, int]

    def row(self) -> Row:
        """{"state", "cause", "age": seconds, "error": what is to be done or None, "changes": {state: count},
        "failovers": {path: count}}."""
        return {
            "state": self.state, "cause": self.cause, "age": max(0.0, time.monotonic() - self.since),
            "error": self.error, "changes": {**self.changes}, "failovers": {**self.failovers},
        }  # fmt: skip


class Offices(Protocol):
    """What is known of them (hostd.io_life)."""

    def vacated(self, name: str) -> str | None:
        """Why nobody serves an office now; None: somebody does."""

    def raised(self, name: str) -> bool:
        """Is nobody serving it because somebody is about to?"""

    def cause(self, name: str) -> str:
        """Of the last takeover."""


Found = tuple[str, str, str | None]  # state, cause, error
_SOUND: Found = ("connected", "recovered", None)


class Connections:
    """Of all endpoints of guests; `records`: all partitions by name."""

    def __init__(self, fabric: Fabric, records: Mapping[str, Record], offices: Offices, events: EventLog) -> None:
        self._fabric = fabric
        self._records = records
        self._offices = offices
        self._events = events

    def hear(self, event: Event) -> None:
        """Whatever has happened may have changed a state: the events tell of every death, start and change of path."""
        if event["kind"] != "connection":
            self.refresh()

    def refresh(self, at: float | None = None) -> None:
        """Compares all states with what is so now, `at` that time of the monotonic clock (default: now)."""
        for record in list(self._records.values()):
            if record.type == "guest":
                self._refresh(record, time.monotonic() if at is None else at)

    def taken_over(self, office: str) -> None:
        """Counts a takeover for each endpoint whose path the server of that office is on."""
        for record in list(self._records.values()):
            for endpoint in record.plan.get("endpoints", []):
                number, path = endpoint["generation"], endpoint["path"]
                before = record.connections.get(number)
                if endpoint["server"] == office and path in BY_SERVER and before is not None:
                    counts = {**before.failovers, path: before.failovers[path] + 1}
                    record.connections = {**record.connections, number: replace(before, failovers=counts)}

    def _refresh(self, record: Record, at: float) -> None:
        living: dict[int, Connection] = {}
        if record.attached and record.state not in ENDED:
            for endpoint in record.plan["endpoints"]:
                if not endpoint.get("unplugged"):
                    number = endpoint["generation"]
                    living[number] = self._next(record, endpoint, record.connections.get(number), at)
        if living or record.connections:
            record.connections = living  # in one step: the metrics server reads it from its own thread

    def _next(self, record: Record, endpoint: Row, before: Connection | None, at: float) -> Connection:
        state, cause, error = self._found(endpoint)
        if before is None:
            changes = {**dict.fromkeys(STATES, 0), "connected": 1}
            before = Connection("connected", "attached", None, at, changes, dict.fromkeys(BY_SERVER, 0))
            if state == "connected":
                return before
        elif (before.state, before.error) == (state, error) and (before.cause == cause or state == "connected"):
            return before
        since, changes = before.since, {**before.changes}
        if before.state != state:
            since, changes = max(at, since), {**changes, state: changes[state] + 1}
        self._events.publish(
            "connection", partition=record.name, endpoint=endpoint["name"], device=endpoint["device"], state=state,
            cause=cause, before=before.state, seconds=max(0.0, at - before.since), error=error,
        )  # fmt: skip
        return replace(before, state=state, cause=cause, error=error, since=since, changes=changes)

    def _found(self, endpoint: Row) -> Found:
        """What is so now."""
        device = self._fabric.devices.get(endpoint["device"])
        if device is None or _down(device):
            return _gone(device, "device")
        if endpoint["path"] not in BY_SERVER or endpoint["server"] is None:
            return _SOUND
        if not self._fabric.loaded or _down(self._fabric.monitor):
            return _gone(self._fabric.monitor if self._fabric.loaded else None, "monitor")
        return self._served(endpoint["server"])

    def _served(self, office: str) -> Found:
        servers = list(self._fabric.servers.values())
        seat = self._fabric.serving.get(office, 0)
        standby = servers[1 - seat]
        why = self._offices.vacated(office)
        if why is not None:
            if self._offices.raised(office) or not all(map(_down, servers)):
                return "fenced", why, None
            if all(map(_lost, servers)):
                return "fenced", "given_up", _error(servers[seat])
            return "reconnecting", "server", None
        if servers[seat].name != office:
            return "failed_over", self._offices.cause(office), _error(standby) if _lost(standby) else None
        if _down(standby):
            return "degraded", "standby", _error(standby) if _lost(standby) else None
        return _SOUND


def _down(record: Record) -> bool:
    return record.exit_status is not None or (record.absence is not None and bool(record.absence.absent))


def _lost(record: Record) -> bool:
    """Nobody starts it again."""
    return _down(record) and (record.absence is None or bool(record.absence.given_up))


def _error(record: Record) -> str:
    return f"{record.name} died again and again and is not started any more; `hostctl restart {record.name}` starts it"


def _gone(record: Record | None, cause: str) -> Found:
    if record is not None and _lost(record):
        return "fenced", "given_up", _error(record)
    return "reconnecting", cause, None

"""Refused system calls of guests, as hostd sees them: who answers them, and the event of each first one (U16).

A guest's filter has a listener, which its process hands out before its entry. The monitor answers there; the keeper
holds it too, so that calls wait for the next monitor instead of going uncounted.
"""

from __future__ import annotations

from hostd.events import EventLog
from hostd.fabric import Fabric, ask
from hostd.records import Record
from hostd.seccomp import refusal_reason
from hostd.syscalls import call_name
from hostd.wire import Message, close_fds

HANDED = "refusals"  # name of the listener among the descriptors that a new process hands out


class Refusals:
    """`records`: of all processes, by name; the supervisor's."""

    def __init__(self, fabric: Fabric, events: EventLog, records: dict[str, Record]) -> None:
        self._fabric = fabric
        self._events = events
        self._records = records
        self._held: set[str] = set()  # keys under which the keeper has listeners

    async def watch(self, record: Record) -> None:
        """Has the monitor answer the calls that the filter of a new guest refuses."""
        listener = record.handed.pop(HANDED, None)
        if listener is None:
            return
        try:
            await self._fabric.keeper.hold(_key(record), [listener])
            self._held.add(_key(record))
            await ask(self._fabric.monitor, "watch_calls", {"partition": record.number}, [listener])
        finally:
            close_fds([listener])

    async def release(self, record: Record) -> None:
        """The keeper lets the listener go: of a guest that is removed, or where no monitor will answer it any more.
        Refused calls fail with ENOSYS then, and nobody waits. Safe to call twice."""
        if _key(record) in self._held:
            self._held.discard(_key(record))
            await self._fabric.keeper.release(_key(record))

    async def monitor_ended(self) -> None:
        for record in [one for one in self._records.values() if one.type == "guest" and one.process]:
            await self.release(record)

    def hear(self, message: Message) -> None:
        """The monitor refused a guest a call for the first time; further ones are counted alone."""
        record = next((one for one in self._records.values() if one.number == message["partition"]), None)
        if record is not None:
            call = call_name(message["number"])
            self._events.publish("refused_call", partition=record.name, call=call, reason=refusal_reason(call))


def _key(record: Record) -> str:
    return f"{record.name}:{record.process}:{HANDED}"

"""What guests are refused, as hostd sees it: who answers, and the event of each first refusal (U16, H8).

A privileged instruction is refused by the processor; the dying process names it by a call that no kernel has.

A guest's filter has a listener, and trapped partition memory a userfaultfd, which its process hands out before its
entry. The monitor answers there; the keeper holds both too, so that calls and touches wait for the next monitor.
"""

from __future__ import annotations

from hostd.events import EventLog
from hostd.fabric import Fabric, ask
from hostd.memory_region import HANDED as MEMORY
from hostd.records import Record
from hostd.seccomp import refusal_reason
from hostd.syscalls import call_name, instruction_name
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
        """Has the monitor answer the calls that the filter of a new guest refuses, and touches of its memory."""
        handed = {name: record.handed.pop(name) for name in (HANDED, MEMORY) if name in record.handed}
        try:
            for name, descriptor in handed.items():
                await self._fabric.keeper.hold(_key(record, name), [descriptor])
                self._held.add(_key(record, name))
            if HANDED in handed:
                await ask(self._fabric.monitor, "watch_calls", {"partition": record.number}, [handed[HANDED]])
            if MEMORY in handed:
                await self._watch_memory(record, handed[MEMORY])
        finally:
            close_fds(handed.values())

    def resume(self, key: str) -> None:
        """The keeper has this since an earlier hostd."""
        if key.rpartition(":")[2] in (HANDED, MEMORY):
            self._held.add(key)

    async def watch_again(self, record: Record) -> None:
        """The same for a monitor that follows one that was killed."""
        for name in (HANDED, MEMORY):
            held = await self._fabric.keeper.get_held(_key(record, name)) if _key(record, name) in self._held else None
            try:
                if held and name == HANDED:
                    await ask(self._fabric.monitor, "watch_calls", {"partition": record.number}, held)
                elif held:
                    await self._watch_memory(record, held[0])
            finally:
                close_fds(held or [])

    async def _watch_memory(self, record: Record, faults: int) -> None:
        maps = await self._fabric.keeper.get_segments([record.plan["map"]], read_only=True)
        message = {"partition": record.number, "pages": record.plan["map_pages"]}
        try:
            await ask(self._fabric.monitor, "watch_memory", message, [faults, *maps])
        finally:
            close_fds(maps)

    async def release(self, record: Record, name: str = HANDED) -> None:
        """The keeper lets a descriptor go: of a guest that is removed, or where no monitor will answer it any more.
        Refused calls fail with ENOSYS then, and nobody waits. Safe to call twice."""
        if _key(record, name) in self._held:
            self._held.discard(_key(record, name))
            await self._fabric.keeper.release(_key(record, name))

    async def forget(self, record: Record) -> None:
        """The guest is removed."""
        for name in (HANDED, MEMORY):
            await self.release(record, name)

    async def monitor_ended(self) -> None:
        """No monitor follows: refused calls fail from now on; touches of trapped memory wait, for without a look nobody
        lets them pass."""
        for record in [one for one in self._records.values() if one.type == "guest" and one.process]:
            await self.release(record)

    def counts(self, record: Record) -> dict[str, int]:
        """How often a guest was refused what: {system call or instruction: count}, and `touches` of its memory."""
        rows = [row for _, reader in self._fabric.readers if reader.kind == "trap" for row in reader.rows()]
        found: dict[str, int] = {}
        for counters in [row["counters"] for row in rows if row["partition"] == record.number]:
            for number, count in counters.get("refused_calls", {}).items():
                instruction = instruction_name(int(number))
                name = call_name(int(number)) if instruction is None else f"{instruction} (instruction)"
                found[name] = found.get(name, 0) + count
            found |= {"touches": counters["refused"]} if counters["refused"] else {}
        return found

    def hear(self, message: Message) -> None:
        """The monitor refused a guest something for the first time; further refusals are counted alone."""
        record = next((one for one in self._records.values() if one.number == message["partition"]), None)
        if record is not None and message["kind"] == "memory":
            self._events.publish("refused_touch", partition=record.name, gpa=message["number"])
        elif record is not None and (instruction := instruction_name(message["number"])) is not None:
            self._events.publish("refused_instruction", partition=record.name, instruction=instruction)
        elif record is not None:
            call = call_name(message["number"])
            self._events.publish("refused_call", partition=record.name, call=call, reason=refusal_reason(call))


def _key(record: Record, name: str) -> str:
    return f"{record.name}:{record.process}:{name}"

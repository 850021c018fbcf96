"""Simulated lines of NICs whose guests run: set, changed and ended, while frames are on them (U9)."""

from __future__ import annotations

import asyncio
from typing import Any

from hostd.errors import HostError
from hostd.events import EventLog
from hostd.fabric import Fabric
from hostd.manifest import PartitionSpec
from hostd.manifest_lines import Line
from hostd.notes import Noting
from hostd.path_changes import endpoint_of
from hostd.records import Record
from hostd.wire import RemoteError

Row = dict[str, Any]


class LineLife(Noting):
    """Part of the supervisor."""

    events: EventLog
    fabric: Fabric
    _plugging: asyncio.Lock

    def _record(self, name: str) -> Record:
        raise NotImplementedError

    async def set_line(self, name: str, nic: str, line: Line | None, *, actor: str) -> Row:
        """{"partition", "endpoint", "line", "before"}, lines as in a manifest, null: none. What is on the line of the
        NIC arrives when it would have; what the guest sends from now on is on the new one, behind it."""
        async with self._plugging:  # whoever plugs a NIC writes the same specification
            record = self._record(name)
            known = {one.name: one.line for one in getattr(record.spec, "nics", ())}  # a role has none
            if nic not in known:
                raise HostError("not_found", f"{name} has no NIC {nic!r}; known: {', '.join(known) or 'none'}")
            if not record.attached:
                raise HostError("state", f"{name} has ended: nothing of it is sent any more")
            before = known[nic]
            # First on record: whoever dies meanwhile, the next one goes on with this line.
            record.spec = _with(record.spec, nic, line)
            endpoint_of(record, nic)["line_untold"] = True
            await self.note(record)
            try:
                await self._tell_line(record, nic, line)
            except RemoteError as error:
                record.spec = _with(record.spec, nic, before)
                raise HostError(error.code, f"{name}: {error.message}", **error.details) from error
            finally:
                await self.note(record)
        facts = {"line": _plain(line), "before": _plain(before)}
        self.events.publish("line", partition=name, endpoint=nic, actor=actor, **facts)
        return {"partition": name, "endpoint": nic, **facts}

    async def resume_lines(self, record: Record) -> None:
        """What an earlier hostd may not have come to tell."""
        for nic in [one for one in record.spec.nics if endpoint_of(record, one.name).get("line_untold")]:
            await self._tell_line(record, nic.name, nic.line)
            await self.note(record)

    async def _tell_line(self, record: Record, nic: str, line: Line | None) -> None:
        endpoint = endpoint_of(record, nic)
        await self.fabric.wiring.set_line(self.fabric.devices[endpoint["device"]], endpoint["port"], line)
        endpoint.pop("line_untold")


def _with(spec: PartitionSpec, name: str, line: Line | None) -> PartitionSpec:
    nics = [nic.model_copy(update={"line": line}) if nic.name == name else nic for nic in spec.nics]
    return spec.model_copy(update={"nics": nics})


def _plain(line: Line | None) -> Row | None:
    return None if line is None else line.model_dump(mode="json")

"""Wires that come and go while the host runs, as the API asks for them (U9)."""

from __future__ import annotations

from typing import Any

from hostd.errors import HostError
from hostd.events import EventLog
from hostd.fabric import Fabric
from hostd.manifest_checks import entries
from hostd.manifest_wires import Wire, check_wires
from hostd.notes import Noting


class WireLife(Noting):
    """Part of the supervisor."""

    events: EventLog
    fabric: Fabric

    async def add_wire(self, device: str, wire: Wire) -> dict[str, Any]:
        """{"device", "name"} once it is there. Wires of running hosts are not part of the exported manifest."""
        record = self._nic(device)
        document = {"devices": [{"kind": "nic", "wires": [wire.model_dump(exclude_none=True)]}]}
        found = next(check_wires(entries(document, "devices")), None)
        if found is not None:
            where = ".".join(map(str, found.path[4:]))
            raise HostError("invalid", f"wire {wire.name}: {where} {found.message}")
        if any(one.device == device and one.wire.name == wire.name for one in self.fabric.wiring.placed):
            raise HostError("conflict", f"{device} has a wire {wire.name} already")
        await self.fabric.wiring.add(record, wire)
        await self.note_wires()
        self.events.publish("wire", device=device, wire=wire.name)
        return {"device": device, "name": wire.name}

    async def remove_wire(self, device: str, name: str) -> dict[str, Any]:
        """{"device", "name"}; code `not_found` where there is none that was not made for a partition."""
        record, wiring = self._nic(device), self.fabric.wiring
        known = [one for one in wiring.placed if one.device == device and one.partition is None]
        placed = next((one for one in known if one.wire.name == name), None)
        if placed is None:
            names = ", ".join(one.wire.name for one in known) or "none"
            raise HostError("not_found", f"{device} has no wire {name!r} of its own; known: {names}")
        await wiring.remove(record, placed)
        await self.note_wires()
        return {"device": device, "name": name}

    def wire_names(self) -> dict[tuple[str, int], str]:
        """Of all wires, by device and port; a partition's own is named after it. Safe from any thread."""
        return {
            (one.device, one.number): one.name for one in list(self.fabric.wiring.placed)
        }

    def _nic(self, device: str) -> Any:
        record = self.fabric.devices.get(device)
        if record is None:
            known = ", ".join(sorted(self.fabric.devices)) or "none"
            raise HostError("not_found", f"no device {device!r}; known: {known}")
        return record

"""What NICs of a partition may leave to their device: device and path and policy and peer, told anew when one of them
changes (A2).

A peer is what lies behind a wire of the device's switch. What its kind, or the host's description, does not take as it
is, is withheld from the endpoints whose frames can reach it, and their drivers do it: from the next frame on, and so
back when the wire has gone. Between partitions the device finishes what a receiver does not take, so nobody withholds
anything there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from operator import or_
from typing import Any

from hostd.asking import ask, reviving
from hostd.records import Record
from hostd.wiring import Wiring
from pyx import abi

Row = dict[str, Any]
SOURCES = ("device", "path", "policy", "peer")


class Offloads:
    """Part of the fabric, which owns what is named here."""

    devices: dict[str, Record]
    slots: dict[str, int]
    wiring: Wiring
    weakness: dict[str, dict[str, list[str]]]  # what the fault plane takes from a device: {"withhold", "lie"}

    @property
    def loaded(self) -> bool:
        raise NotImplementedError

    @property
    def monitor(self) -> Record:
        raise NotImplementedError

    async def offered(self, device: str) -> Row:
        """{"withheld": bits of a device, "peer": {port: bits}}, as the monitor takes it."""
        absence = self.devices[device].absence
        if absence is not None and absence.given_up:
            return {"withheld": reduce(or_, abi.OFFLOADS.values()), "peer": {}}  # until there is the next one
        told = await ask(self.devices[device], "offloads", {})
        peer = {port: reduce(or_, by.values()) for port, by in told["peers"].items()}
        return {"withheld": told["withheld"], "peer": peer}

    async def negotiate(self, device: str, renewed: bool = False) -> None:
        """Tells the monitor, and so the guests, what a device and its wires withhold now. `renewed`: the device has
        another process, and drivers believe it what its probes show."""
        if any(one is self.devices[device] for one in reviving.get()):
            return  # it is told of once the device is there: the monitor may be waiting for that itself
        if self.loaded and device in self.slots:
            message = {"device": self.slots[device], "renewed": renewed, **await self.offered(device)}
            await ask(self.monitor, "set_offloads", message)

    async def negotiate_for(self, endpoints: Iterable[Row]) -> None:
        """New endpoints, at devices with wires that withhold something."""
        for device in {endpoint["device"] for endpoint in endpoints}:
            if self.wiring.withholds(device):
                await self.negotiate(device)

    async def weaken(self, device: str, offloads: Sequence[str], lies: bool, later: bool) -> None:
        """A fault on purpose: a NIC no longer does these offloads, and neither do its next processes. Its endpoints are
        told, or it lies. `later`: the process that it has now still does them."""
        kind = "lie" if lies else "withhold"
        if not later:
            await ask(self.devices[device], kind, {"offloads": list(offloads)})
        self.weakness.setdefault(device, {"withhold": [], "lie": []})[kind] = list(offloads)
        if not (lies or later):
            await self.negotiate(device)

    async def capabilities(self, record: Record) -> Row:
        """{"partition", "capabilities": [{"endpoint", "device", "path", "capability", "granted", "withheld_by": [...],
        "peers": names of the wires that do, "proved": True, False, None}]}: the monitor's table, and the partition's
        own word on what its probes showed."""
        rows: list[Row] = []
        told = (await ask(self.monitor, "offloads", {"partition": record.number}))["offloads"]
        for endpoint in record.plan["endpoints"]:
            words = told.get(str(endpoint["index"]))
            peers = await self._peers(endpoint) if words and words["peer"] else {}
            for name, bit in abi.OFFLOADS.items() if words else ():
                proved = True if words["proved"] & bit else False if words["disproved"] & bit else None
                rows.append({
                    "endpoint": endpoint["name"], "device": endpoint["device"], "path": endpoint["path"],
                    "capability": name, "granted": bool(words["granted"] & bit),
                    "withheld_by": [source for source in SOURCES if words[source] & bit],
                    "peers": [peer for peer, bits in peers.items() if words["peer"] & bits & bit], "proved": proved,
                })  # fmt: skip
        return {"partition": record.name, "capabilities": rows}

    async def _peers(self, endpoint: Row) -> dict[str, int]:
        """Wires that withhold something from an endpoint, by name, and what."""
        told = (await ask(self.devices[endpoint["device"]], "offloads", {}))["peers"].get(str(endpoint["port"]), {})
        names = {one.number: one.name for one in self.wiring.placed if one.device == endpoint["device"]}
        return {names[int(wire)]: bits for wire, bits in told.items() if int(wire) in names}

"""The fault plane: faults on purpose in the data plane, scripted and seeded; off until somebody arms it (rules.md 40).

A script is a list of faults. Those of requests strike at the device of an endpoint, in pyx/faulty.pyx; `hung` makes the
data thread of any role stand still at once. What a rule strikes is a function of the seed and of the number of the
request, so the same script and the same requests give the same log.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hostd.asking import ask, release
from hostd.errors import HostError
from hostd.events import EventLog
from hostd.fabric import Fabric
from hostd.fault_script import Fault, Script
from hostd.records import Record
from pyx.faulty import RULES_MAX


class FaultPlane:
    """What is armed at the present, by device."""

    def __init__(self, fabric: Fabric, records: Mapping[str, Record], events: EventLog) -> None:
        self._fabric = fabric
        self._records = records
        self._events = events
        self._script: Script | None = None
        self._armed: dict[str, list[Fault]] = {}  # device -> its rules, as they are numbered there

    async def arm(self, script: Script) -> dict[str, Any]:
        """In place of what was armed. HostError `not_found` for a partition, endpoint or role that is not there; then
        nothing is armed. As `show`, with "hung": roles that stand still from now on, and for how long."""
        hung = [(self._role(fault.role or ""), fault) for fault in script.faults if fault.kind == "hung"]
        rules: dict[str, list[dict[str, Any]]] = {}
        armed: dict[str, list[Fault]] = {}
        for fault in script.faults:
            if fault.kind != "hung":
                endpoint = self._endpoint(fault)
                rules.setdefault(endpoint["device"], []).append(_rule(fault, endpoint["port"]))
                armed.setdefault(endpoint["device"], []).append(fault)
        for device, wanted in rules.items():
            if len(wanted) > RULES_MAX:
                raise HostError("invalid", f"{len(wanted)} faults at {device}; at most {RULES_MAX}")
        await self.clear()
        self._script = script
        for device, wanted in rules.items():
            self._armed[device] = armed[device]
            await ask(self._fabric.devices[device], "arm_faults", {"rules": wanted, "seed": script.seed})
        for role, fault in hung:
            await ask(role, "hang", {"nanoseconds": round(fault.seconds * 1e9)})
        self._events.publish("faults", armed=len(script.faults), seed=script.seed)
        return {**await self.show(), "hung": [{"role": role.name, "seconds": fault.seconds} for role, fault in hung]}

    async def clear(self) -> dict[str, Any]:
        """Nothing strikes any more; completions that are held back are given."""
        cleared = sum(len(faults) for faults in self._armed.values())
        for device in self._armed:
            await release(self._fabric.devices[device], "clear_faults", {})
        self._armed.clear()
        self._script = None
        if cleared:
            self._events.publish("faults", armed=0, cleared=cleared)
        return {"cleared": cleared}

    async def show(self) -> dict[str, Any]:
        """{"seed", "faults": [fault with "seen" and "struck"], "log": [{"fault", "number", ...}]}: `fault` counts from
        0 in `faults`. A device that has died since has forgotten its own: they are told without counts."""
        faults: list[dict[str, Any]] = []
        log: list[dict[str, Any]] = []
        for device, armed in list(self._armed.items()):
            told = await ask(self._fabric.devices[device], "struck_faults", {})
            for number, fault in enumerate(armed):
                counts = told["rules"][number] if number < len(told["rules"]) else {}
                faults.append({**fault.model_dump(exclude_none=True), "device": device, **counts})
            first = len(faults) - len(armed)
            log += [{"fault": first + line.pop("rule"), **line} for line in told["log"]]
        return {"seed": self._script.seed if self._script else None, "faults": faults, "log": log}

    def _role(self, name: str) -> Record:
        roles = {role.name: role for role in self._fabric.roles()}
        if name not in roles:
            raise HostError("not_found", f"{name!r} is no part of the data plane; known: {', '.join(roles)}")
        return roles[name]

    def _endpoint(self, fault: Fault) -> dict[str, Any]:
        record = self._records.get(fault.partition or "")
        ends = {end["name"]: end for end in (record.plan.get("endpoints") or [])} if record is not None else {}
        if fault.endpoint not in ends:
            known = ", ".join(ends) or "none"
            raise HostError("not_found", f"no endpoint {fault.endpoint!r} at {fault.partition!r}; known: {known}")
        return ends[fault.endpoint]


def _rule(fault: Fault, port: int) -> dict[str, Any]:
    return {
        "kind": fault.kind, "port": port, "operation": fault.operation or "", "after": fault.after,
        "most": fault.count, "chance": fault.chance, "nanoseconds": round(fault.seconds * 1e9),
    }  # fmt: skip

"""Defects of the real control plane, each planted once by changing a line of its source: seeds must find them all."""

from __future__ import annotations

import importlib
import inspect
import textwrap
import types
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Defect:
    """`old` occurs exactly once in the method, and `new` stands in its place."""

    module: str
    method: str  # CLASS.NAME
    old: str
    new: str
    why: str

    def plant(self) -> None:
        owner, _, name = self.method.partition(".")
        cls = getattr(importlib.import_module(self.module), owner)
        real = cls.__dict__[name]
        source = textwrap.dedent(inspect.getsource(real))
        if source.count(self.old) != 1:
            raise ValueError(f"{self.method}: the text to change occurs {source.count(self.old)} times: {self.old!r}")
        code = compile(source.replace(self.old, self.new), f"<{self.why}>", "exec", dont_inherit=True, flags=_FUTURE)
        found: dict[str, Any] = {}
        exec(code, real.__globals__, found)  # defaults and annotations are those of the module
        setattr(cls, name, types.FunctionType(found[name].__code__, real.__globals__, name, real.__defaults__))
        getattr(cls, name).__kwdefaults__ = real.__kwdefaults__


_FUTURE = importlib.import_module("__future__").annotations.compiler_flag

DEFECTS = {
    "spawned while the kernel comes": Defect(
        "hostd.supervisor", "Supervisor.spawn", "not self._loading.complete or self._moving.locked()",
        "not self.fabric.loaded", "a partition is placed before its I/O partitions are known",
    ),
    "the next monitor does not know the guests": Defect(
        "hostd.adoption", "Adoption._tables", "if one.opened]", 'if one.opened and one.type != "guest"]',
        "partitions that the dead monitor knew are unknown to the next one",
    ),
    "an end is not recorded": Defect(
        "hostd.supervisor", "Supervisor._after_end", 'record.type != "ultravisor":', 'record.type == "ultravisor":',
        "the database keeps a partition running whose process has ended",
    ),
    "a device keeps the ports of the dead": Defect(
        "hostd.fabric", "Fabric.detach", "record.plan[\"endpoints\"]", "record.plan[\"endpoints\"][1:]",
        "an endpoint stays attached after its partition has gone",
    ),
    # These only a death of hostd shows.
    "guests are not noted": Defect(
        "hostd.supervisor", "Supervisor._notify", "await self.note(record)", "pass",
        "the next hostd does not know what runs, and ends it",
    ),
    "what was only begun stays": Defect(
        "hostd.leftovers", "Leftovers.remove", 'if row["id"] not in numbers', "if not row",
        "a partition whose start the dead hostd had begun is nobody's",
    ),
    # These only a death of the role that they are about.
    "command asks the dead operations": Defect(
        "hostd.control_life", "ControlLife._follow", '{"service": record.name}', '{"service": "ultravisor"}',
        "command is given the next operations' wire as that of the ultravisor",
    ),
    "the next device has no office": Defect(
        "hostd.device_life", "Devices._follow", "await fabric.connect_device(server, record)", "pass",
        "I/O partitions post to the rings of the dead device, which nobody reads",
    ),
    "an unanswered change is done twice": Defect(
        "partitions.ultravisor.transactions", "Transactions._stored_answer", "if row is None:", "if row or not row:",
        "what is asked again after the death of who was to answer is no replay",
    ),
}

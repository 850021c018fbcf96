"""The resource database once more, as plain Python sets and dictionaries, written from the requirements alone.

It says of each transaction whether it must be accepted, and what the contents are afterwards. It shares no code and
no table with the ultravisor. Frames are members of a set per owner, so that an overlap is a common member and not
an arithmetic of borders.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

FIRST = 65536
# from: to; what is not here is refused
MOVES = {
    "defined": {"starting", "failed"},
    "starting": {"running", "stopping", "stopped", "failed"},
    "running": {"stopping", "stopped", "failed"},
    "stopping": {"stopped", "failed"},
    "stopped": {"starting"},
    "failed": {"starting"},
}
ALIVE = {"starting", "running", "stopping"}


@dataclass
class Endpoint:
    kind: str
    mac: str | None
    file: str | None
    sectors: set[int]
    read_only: bool
    path: str = "redirect"
    wanted: str = "redirect"


@dataclass
class Guest:
    pages: int  # room of its partition map
    state: str = "defined"
    process: int | None = None
    memory: list[list[int]] = field(default_factory=list)  # frames of each extent, in the order of addresses
    limbo: list[list[int]] = field(default_factory=list)  # given up, not yet dropped by the keeper
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    removed: bool = False  # waits for the keeper


class Refused(Exception):
    """The model's verdict."""


def need(condition: bool) -> None:
    if not condition:
        raise Refused


@dataclass
class Model:
    frames: int
    guests: dict[str, Guest] = field(default_factory=dict)

    def after(self, operations: list[dict[str, Any]], keeper_answers: bool) -> Model | None:
        """The contents after a transaction; None where it must be refused."""
        result = copy.deepcopy(self)
        gives_up = False
        try:
            for operation in operations:
                name = operation["op"].replace(".", "_")
                gives_up |= bool(getattr(result, name)(operation))
        except Refused:
            return None
        if gives_up and keeper_answers:
            result.settle()
        return result

    def settle(self) -> None:
        """The keeper has dropped everything that was given up."""
        self.guests = {name: guest for name, guest in self.guests.items() if not guest.removed}
        for guest in self.guests.values():
            guest.limbo = []

    def taken(self) -> set[int]:
        return {
            frame for guest in self.guests.values() for extent in guest.memory + guest.limbo for frame in extent
        }

    def living(self, name: str) -> Guest:
        guest = self.guests.get(name)
        if guest is None or guest.removed:
            raise Refused
        return guest

    # -- operations; true where something was given up

    def partition_create(self, operation: dict[str, Any]) -> bool:
        need(operation["name"] not in self.guests)
        guest = Guest(operation["memory_maximum"] // 4096)
        self.take(guest, operation["extents"])
        self.guests[operation["name"]] = guest
        for endpoint in operation["endpoints"]:
            self.attach(guest, endpoint)
        return False

    def take(self, guest: Guest, extents: list[dict[str, int]]) -> None:
        for extent in extents:
            wanted = list(range(extent["frame"], extent["frame"] + extent["frames"]))
            need(all(FIRST <= frame < FIRST + self.frames for frame in wanted))
            need(not set(wanted) & self.taken() and not set(wanted) & {f for own in guest.memory for f in own})
            guest.memory.append(wanted)
        need(sum(map(len, guest.memory)) <= guest.pages)
        # Addresses that were given up are free only when their segments are gone.
        need(not guest.limbo or not extents)

    def partition_remove(self, operation: dict[str, Any]) -> bool:
        guest = self.living(operation["partition"])
        need(guest.state not in ALIVE)
        guest.removed = True
        guest.endpoints = {}
        guest.limbo += guest.memory
        guest.memory = []
        return True

    def partition_state(self, operation: dict[str, Any]) -> bool:
        guest, target = self.living(operation["partition"]), operation["state"]
        if target != guest.state:
            need(target in MOVES[guest.state])
            need(target != "running" or guest.process is not None)
            guest.state = target
            if target not in ALIVE:
                guest.process = None
        return False

    def process_record(self, operation: dict[str, Any]) -> bool:
        guest, pid = self.living(operation["partition"]), operation["pid"]
        if guest.process != pid:
            need(guest.process is None)
            need(pid not in {other.process for other in self.guests.values()})
            if guest.state not in ALIVE:
                guest.state = "starting"
            guest.process = pid
        return False

    def memory_assign(self, operation: dict[str, Any]) -> bool:
        guest = self.living(operation["partition"])
        need(guest.state not in ALIVE)
        self.take(guest, operation["extents"])
        return False

    def memory_release(self, operation: dict[str, Any]) -> bool:
        guest = self.living(operation["partition"])
        need(guest.state not in ALIVE)
        ends = [0]
        for extent in guest.memory:
            ends.append(ends[-1] + len(extent) * 4096)
        need(operation["memory"] in ends)
        kept = ends.index(operation["memory"])
        gone = guest.memory[kept:]
        del guest.memory[kept:]
        guest.limbo += gone
        return bool(gone)

    def endpoint_attach(self, operation: dict[str, Any]) -> bool:
        self.attach(self.living(operation["partition"]), operation)
        return False

    def attach(self, guest: Guest, wanted: dict[str, Any]) -> None:
        need(wanted["name"] not in guest.endpoints)
        others = [entry for other in self.guests.values() for entry in other.endpoints.values()]
        others += guest.endpoints.values()
        if wanted["kind"] == "nic":
            need(wanted["mac"] not in {entry.mac for entry in others})
            guest.endpoints[wanted["name"]] = Endpoint("nic", wanted["mac"], None, set(), False)
            guest.endpoints[wanted["name"]].wanted = wanted.get("path", "redirect")
            return
        first = wanted["offset"] // 512
        sectors = set(range(first, first + wanted["length"] // 512))
        if not wanted["read_only"]:
            for entry in others:
                need(entry.file != wanted["file"] or entry.read_only or not entry.sectors & sectors)
        guest.endpoints[wanted["name"]] = Endpoint("disk", None, wanted["file"], sectors, wanted["read_only"])
        guest.endpoints[wanted["name"]].wanted = wanted.get("path", "redirect")

    def endpoint_grow(self, operation: dict[str, Any]) -> bool:
        endpoint = self.living(operation["partition"]).endpoints.get(operation["name"])
        need(endpoint is not None and endpoint.kind == "disk")
        assert endpoint is not None
        first, sectors = min(endpoint.sectors), operation["length"] // 512
        wanted = set(range(first, first + sectors))
        need(endpoint.sectors <= wanted)
        others = [entry for guest in self.guests.values() for entry in guest.endpoints.values()]
        for entry in others if not endpoint.read_only else ():
            if entry is endpoint:
                continue
            need(entry.file != endpoint.file or entry.read_only or not entry.sectors & wanted)
        endpoint.sectors = wanted
        return False

    def endpoint_path(self, operation: dict[str, Any]) -> bool:
        guest = self.living(operation["partition"])
        need(operation["name"] in guest.endpoints)
        guest.endpoints[operation["name"]].wanted = operation["path"]
        return False

    def endpoint_path_settle(self, operation: dict[str, Any]) -> bool:
        self.endpoint_path(operation)
        endpoint = self.guests[operation["partition"]].endpoints[operation["name"]]
        endpoint.path = endpoint.wanted
        return False

    def endpoint_detach(self, operation: dict[str, Any]) -> bool:
        guest = self.living(operation["partition"])
        need(operation["name"] in guest.endpoints and guest.state not in ALIVE)
        del guest.endpoints[operation["name"]]
        return True

"""The checks of `hostctl status`: processes, invariants and memory maps against the resource database (U1, U4).

What each process may map is design.md section 2, written once more here as code, from the plans that the
ultravisor gave out; what it does map is the kernel's word.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from hostd import mapcheck
from hostd.fabric import Fabric, ask
from hostd.keeper import Keeper
from hostd.records import Record, is_python
from hostd.role_segments import seats
from hostd.wire import RemoteError, close_fds

LOOKS, PERIOD = 10, 0.02  # at what is being replaced; seconds between two

Row = dict[str, Any]
Grants = dict[str, dict[int, str]]  # process -> segment -> "r" or "rw"


class Checks:
    """One round of checks over a host."""

    def __init__(
        self, records: dict[str, Record], fabric: Fabric, keeper: Keeper, channels: list[tuple[str, str, int]]
    ) -> None:
        self.records = records
        self.channels = channels  # control channels: client, server, segment
        self.fabric = fabric
        self.keeper = keeper

    async def run(self) -> list[Row]:
        """Rows {"name", "ok", "detail"}; a mismatch is not ok, and neither is a database that cannot be asked."""
        try:
            checks = await self._database()
        except RemoteError as error:
            checks = [{"name": "resource database", "ok": False, "detail": error.message}]
        for _ in range(LOOKS):
            try:
                return checks + await self._maps()
            except RemoteError as error:
                if error.code != "not_found":
                    raise
                gone = error.message  # it was replaced between two questions
            await asyncio.sleep(PERIOD)
        return [*checks, {"name": "memory maps", "ok": False, "detail": gone}]

    async def _database(self) -> list[Row]:
        command = self.records["command"]
        rows = (await ask(command, "query", {"what": "partitions", "limit": 500}))["partitions"]
        checks = [self._process(row) for row in rows]
        violations = (await ask(command, "check", {}))["violations"]
        detail = str(violations) if violations else "invariants hold"
        checks.append({"name": "resource database", "ok": not violations, "detail": detail})
        return checks

    def _process(self, row: Row) -> Row:
        record = self.records.get(row["name"])
        mine = (record.state, record.pid if record.exit_status is None else None) if record else None
        theirs = (row["state"], row.get("pid"))
        agreed = mine == theirs
        detail = f"{theirs[0]}, pid {theirs[1]}" if agreed else f"database says {theirs}, hostd {mine}"
        # A guest may have ended; a host without one of its roles is no whole host.
        ok = agreed and (row["type"] == "guest" or row["state"] == "running")
        return {"name": f"process of {row['name']}", "ok": ok, "detail": detail}

    async def _maps(self) -> list[Row]:
        expected = self._expected()
        segments = sorted({segment for grants in expected.values() for segment in grants})
        descriptors = await self.keeper.get_segments(segments, read_only=True)
        try:
            identities = {segment: mapcheck.identity_of(fd) for segment, fd in zip(segments, descriptors, strict=True)}
        finally:
            close_fds(descriptors)
        return [self._map(name, grants, identities) for name, grants in expected.items()]

    def _map(self, name: str, grants: dict[int, str], identities: dict[int, mapcheck.Identity]) -> Row:
        pid = self._pid(name)
        try:
            return mapcheck.compare(name, grants, mapcheck.mapped(pid), identities)
        except PermissionError:
            return {"name": f"memory map of {name}", "ok": True, "detail": "skipped: reading it needs root"}
        except (FileNotFoundError, ProcessLookupError):
            return {"name": f"memory map of {name}", "ok": False, "detail": f"process {pid} is gone"}

    def _pid(self, name: str) -> int:
        if name == "hostd":
            return os.getpid()
        if name == "keeper":
            return self.keeper.pid
        pid = self.records[name].pid
        assert pid is not None
        return pid

    def _expected(self) -> Grants:
        """What design.md section 2 lets every living process map."""
        living = [name for name, record in self.records.items() if record.exit_status is None and record.pid]
        grants: Grants = {name: {} for name in ["hostd", "keeper", *living]}
        self._of_roles(grants)
        for record in self.records.values():
            self._of_partition(record, grants)
        for client, server, segment in self.channels:
            mapcheck.add(grants.setdefault(client, {}), "rw", [segment])
            mapcheck.add(grants.setdefault(server, {}), "rw", [segment])
        return {name: grants[name] for name in grants if name in ("hostd", "keeper", *living)}

    def _of_roles(self, grants: Grants) -> None:
        own = {name: identity for name, (identity, _) in self.fabric.segments.items()}

        def grant(name: str, rights: str, *segments: str) -> None:
            mapcheck.add(grants.setdefault(name, {}), rights, [own[segment] for segment in segments])

        loaded = self.fabric.loaded
        for role in (*(["monitor"] if loaded else []), *self.fabric.servers, *self.fabric.devices):
            grant(role, "rw", f"bell:{role}", f"statistics:{role}")
            grant("hostd", "r", f"statistics:{role}")
        for device in self.fabric.devices:
            grant(device, "r", f"translation:{device}")
            grant(device, "rw", f"vectors:{device}", f"ledger:{device}")
            grant("hostd", "r", f"vectors:{device}")
            if not loaded and device in self.fabric.host_managed:
                grant("console", "rw", f"translation:{device}", f"vectors:{device}")
        if not loaded:
            return
        if self.fabric.charging:
            grant("monitor", "r", *(f"statistics:{role}" for role in (*self.fabric.servers, *self.fabric.devices)))
        worlds = [name for name in own if name.startswith("statistics:world")]
        threads = ["statistics:view", "statistics:traps", *worlds]
        grant("monitor", "rw", "kernel", "vectors:monitor", *threads)
        grant("hostd", "r", "vectors:monitor", *threads)
        for server in self.fabric.servers:
            for seat, process in zip(seats(server), self.fabric.servers, strict=True):
                grant(process, "r", "kernel")
                grant(process, "rw", seat, f"bell:{server}", f"statistics:{server}", f"vectors:{server}")
            grant("monitor", "rw", *seats(server))
            grant("monitor", "rw", f"vectors:{server}")
            grant("hostd", "r", f"vectors:{server}")
        for device in self.fabric.devices:
            # What a device may touch over queue pairs is the monitor's to write.
            grant(device, "r", "kernel")
            grant("monitor", "rw", f"bell:{device}", f"translation:{device}", f"vectors:{device}")
            for server in self.fabric.servers:
                grant("monitor", "rw", f"requests:{server}:{device}")
                grant(device, "rw", f"requests:{server}:{device}", f"completions:{server}:{device}", f"bell:{server}")
                for process in self.fabric.servers:
                    grant(process, "rw", f"completions:{server}:{device}")

    def _of_partition(self, record: Record, grants: Grants) -> None:
        plan = record.plan

        def grant(name: str, rights: str, *segments: int | None) -> None:
            mapcheck.add(grants.setdefault(name, {}), rights, segments)

        call = plan["call"]["segment"] if plan["call"] else None
        grant("ultravisor", "rw", plan["view"], plan["map"])
        loaded = self.fabric.loaded
        if loaded and plan["view"] is not None and (record.attached or record.type != "guest"):
            grant("monitor", "r", plan["view"], plan["map"])
            grant("monitor", "rw", call, plan["events"])
        if loaded and record.type == "command":
            grant(record.name, "rw", call, plan["events"])
        if record.type == "io":  # one serves, the others stand by
            for process in self.fabric.servers:
                grant(process, "rw", call, plan["events"])
        memory = [extent["segment"] for extent in plan["memory"]]
        if record.type == "io":  # buffers of the copy path
            for role in ("monitor", *self.fabric.devices):
                grant(role, "rw", *memory)
        if record.type not in ("guest", "console"):
            return
        # An unmodified program maps nothing; where it has NICs, the process above it does, which drives them.
        if record.type == "console" or is_python(record.spec.program[0]) or record.spec.nics:
            grant(record.name, "rw", *memory, call, plan["events"])
            for endpoint in plan["endpoints"]:
                rights = "rw?" if endpoint["generation"] in record.hot else "rw"  # it maps what came when it looks
                grant(record.name, rights, endpoint["pair"]["segment"], *(end["channel"] for end in endpoint["queues"]))
        if record.attached:
            # The monitor copies for the copy path, and has nothing to do with a guest's memory otherwise.
            if any("copy" in (endpoint["path"], endpoint["wanted"]) for endpoint in plan["endpoints"]):
                grant("monitor", "rw", *memory)
            for endpoint in plan["endpoints"]:
                grant(endpoint["device"], "rw", *memory, endpoint["pair"]["segment"], plan["events"])
                for process in self.fabric.servers if endpoint["server"] is not None else ():
                    grant(process, "rw", plan["events"])
                    for queue in endpoint["queues"]:
                        grant(process, "rw", queue["channel"], queue["ledger"])

"""What is promised after a seed: asked of a host in which nothing bad happens any more."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hostd.manifest import Disk, Nic, PartitionSpec
from hostd.notes import PREFIX, RECORD
from hostd.records import ENDED, Record
from hostd.role_segments import LABEL
from tests.simulation import roles
from tests.simulation.host import Host
from tests.simulation.programs import SimulatedUltravisor
from tests.simulation.world import World

QUIET = 15.0  # seconds without faults, after which the host has to be well
MEMORY = 2 << 20  # of a guest


@dataclass
class Outcome:
    seed: int
    faults: list[str] = field(default_factory=list)  # broken promises
    story: list[str] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=dict)  # by result
    deaths: int = 0
    hostd: int = 0  # deaths of hostd
    given_up: int = 0  # a role was, so nothing is promised of the host's health


class Promises:
    """Broken ones become `outcome.faults`."""

    def __init__(self, world: World, host: Host, outcome: Outcome) -> None:
        self._world, self._host, self._outcome = world, host, outcome

    async def check(self) -> None:
        world, supervisor, faults = self._world, self._host.supervisor, self._outcome.faults
        self._check_terms()
        if supervisor is None:
            faults.append(f"there is no hostd after {QUIET:g} s without faults")
            return
        spent = [one.name for one in supervisor.records.values() if one.absence is not None and one.absence.given_up]
        if spent:  # one that dies again and again is given up, by its budget, until the next load
            world.note(f"given up: {', '.join(spent)}")
            self._outcome.given_up = 1
            return
        try:
            if not supervisor._loading.complete:
                await self._host.call(lambda host: host.load())
            spec = PartitionSpec(name="last", program=["work:main"], memory=MEMORY,
                                 disks=[Disk(name="vda", size=1 << 20)], nics=[Nic(name="eth0")])  # fmt: skip
            row = await self._host.call(lambda host: host.spawn(spec, key="last", actor="test"))
            assert row["pid"]
            found = (await self._ask("check", {}))["violations"]
            faults += [f"database: {text}" for text in found]
            await self._check_partitions()
            self._check_commits()
            self._check_data_plane()
            self._check_keeper()
        except Exception as error:
            faults.append(f"the host is not well after {QUIET:g} s without faults: {type(error).__name__}: {error}")
        roles_down = [
            record.name for record in supervisor.records.values()
            if record.type != "guest" and (record.state != "running" or record.exit_status is not None)
        ]  # fmt: skip
        faults += [f"{name} does not run" for name in roles_down]
        faults += world.errors[len(faults):]

    async def _ask(self, op: str, message: dict[str, Any]) -> dict[str, Any]:
        reply, _ = await self._records["command"].wire.request({"op": op, **message})
        return reply

    @property
    def _records(self) -> dict[str, Record]:
        assert self._host.supervisor is not None
        return self._host.supervisor.records

    def _check_terms(self) -> None:
        """No epoch twice, and each office's rise."""
        last: dict[int, int] = {}
        for office, epoch, seat in self._world.terms:
            if epoch <= last.get(office, 0):
                self._outcome.faults.append(f"office {office:#x}: epoch {epoch} (seat {seat}) after {last[office]}")
            last[office] = epoch

    async def _check_partitions(self) -> None:
        """Database, records and living processes say the same."""
        world, records, faults = self._world, self._records, self._outcome.faults
        rows = {row["name"]: row for row in (await self._ask("query", {"what": "partitions"}))["partitions"]}
        for name in sorted(rows.keys() ^ records.keys()):
            faults.append(f"{name} is known to {'the database' if name in rows else 'hostd'} alone")
        living = {one.pid: one.name for one in world.keeper.processes.values() if one.alive}
        for name in sorted(rows.keys() & records.keys()):
            record, row = records[name], rows[name]
            if record.number != row["id"]:
                faults.append(f"{name}: hostd has partition {record.number:#x}, the database {row['id']:#x}")
            if record.state != row["state"]:
                faults.append(f"{name} is {record.state} for hostd and {row['state']} in the database")
            if record.state not in ENDED and living.pop(row["pid"], None) != name:
                faults.append(f"{name}: no process {row['pid']} of it lives")
        faults += [f"process {pid} ({name}) lives, and is on no record" for pid, name in living.items()]

    def _check_commits(self) -> None:
        """No change that was answered is lost, whatever died afterwards."""
        (ultravisor,) = self._world.processes(SimulatedUltravisor)
        known = dict(ultravisor.program._database.execute("SELECT key, version FROM answer").fetchall())
        for key, version in self._world.committed.items():
            if known.get(key) != version:
                self._outcome.faults.append(f"the change {key} was answered as {version}, and is {known.get(key)}")

    def _check_data_plane(self) -> None:
        """Monitor, devices and I/O partitions serve those that live, and nobody else."""
        world, records, faults = self._world, self._records, self._outcome.faults
        guests = [one for one in records.values() if one.type == "guest" and one.state not in ENDED]
        monitor = world.monitor()
        wanted = {one.number for one in records.values() if one.opened}
        if monitor is None or set(monitor.opened) != wanted:
            faults.append(f"the monitor knows {sorted(monitor.opened) if monitor else None}, not {sorted(wanted)}")
        offices = {one.number for one in records.values() if one.type == "io"}
        for device in world.processes(roles.Device):
            found = {owner for owner, _ in device.ports.values()} - {records["console"].number}
            expected = {one.number for one in guests for end in one.plan["endpoints"] if end["device"] == device.name}
            if found != expected:
                faults.append(f"{device.name} serves {sorted(found)}, not {sorted(expected)}")
            if not device.connected == device.lent == offices:
                faults.append(f"{device.name} is connected to {sorted(device.connected)}, not {sorted(offices)}")
        seats = {process.name: process for process in world.processes(roles.IoPartition)}
        for guest in guests:
            office = records[guest.plan["endpoints"][0]["server"]].number if guest.plan["endpoints"] else None
            numbers = [number for numbers in guest.served.values() for number in numbers]
            for name, process in seats.items():
                missing = [number for number in numbers if process.queues[office].get(number) != guest.number]
                if missing:
                    faults.append(f"{name} does not serve the queues {missing} of {guest.name}")

    def _check_keeper(self) -> None:
        """It keeps nothing that is nobody's."""
        keeper, records, faults = self._world.keeper, self._records, self._outcome.faults
        assert keeper is not None and self._host.supervisor is not None
        owners = {f"{one.name}:{one.process}" for one in records.values()}
        for key in keeper.held:
            noted = key.removeprefix(PREFIX + RECORD) if key.startswith(PREFIX + RECORD) else None
            if noted is not None and noted not in records:
                faults.append(f"there is a note of {noted}, which is on no record")
            if not key.startswith(PREFIX) and ":".join(key.split(":")[:2]) not in owners:
                faults.append(f"{key} is held for nobody")
        known = {one.process for one in records.values()}
        faults += [f"process {one.identity} ({one.name}) is nobody's" for one in keeper.processes.values()
                   if one.identity not in known]  # fmt: skip
        mine = {identity for identity, _ in self._host.supervisor.fabric.segments.values()}
        faults += [f"segment {row['label']} is nobody's" for row in keeper.segments.segments.values()
                   if row["label"].startswith(LABEL) and row["id"] not in mine]  # fmt: skip

"""One seed: a loaded host, a few callers of its API, faults at every step; then no more faults, and what is left.

A world is booted once; each seed goes on from there in a process of its own, so that nothing of one reaches the next
one, and a seed alone is what it was among a thousand.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import shutil
import sys
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hostd import pulse
from hostd.errors import HostError
from hostd.manifest import Device, Disk, Manifest, Nic, PartitionSpec, Policy
from hostd.notes import PREFIX, RECORD
from hostd.paths import Paths
from hostd.records import ENDED, Record
from hostd.role_segments import LABEL
from hostd.supervisor import Supervisor
from hostd.wire import RemoteError, WireError
from tests.simulation import roles
from tests.simulation.chance import Chance
from tests.simulation.defects import Defect
from tests.simulation.host import Host
from tests.simulation.processes import Program
from tests.simulation.world import World

HOST = {
    "memory": 256 << 20, "processors": {"infrastructure": [1], "guests": [0]}, "hardware": "built",
    "metrics": None,
}  # fmt: skip
MEMORY = 2 << 20
CALLERS, CALLS = 3, 3  # at once; of each
NAMES = ("red", "green", "blue")
PATHS = ("redirect", "direct", "copy")
REAPED = 1.0  # seconds between two processes that die between their requests
CALL_LIMIT = 400.0  # seconds: every wait of hostd's for a role ends within 30, and a call makes a few
PULSE = 2.0  # seconds between two looks at the roles: with those of a real host a seed takes twice as long
QUIET = 15.0  # seconds without faults, after which the host has to be well
REFUSALS = (HostError, RemoteError, WireError, OSError, EOFError)  # as the API turns them into answers


@dataclass
class Outcome:
    seed: int
    faults: list[str] = field(default_factory=list)  # broken promises
    story: list[str] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=dict)  # by result
    deaths: int = 0
    hostd: int = 0  # deaths of hostd
    given_up: int = 0  # a role was, so nothing is promised of the host's health


class Simulation:
    """A host that was booted and loaded; `run(seed)` goes on from there."""

    def __init__(self, folder: Path) -> None:
        pulse.PERIOD = PULSE
        self._world = World(folder, 1 << 32)  # no story has this seed: a key that was drawn here is never drawn again
        (folder / "run").mkdir(parents=True)
        (folder / "state").mkdir()
        with self._world.inside():
            self._host: Host = self._world.loop.run_until_complete(self._up(folder))
        gc.freeze()  # the processes of the seeds share its pages

    async def _up(self, folder: Path) -> Host:
        manifest = Manifest.model_validate({"version": 1, "host": HOST}).model_copy(
            update={
                "devices": [Device(name="nic0", kind="nic"), Device(name="disk0", kind="disk")],
                "policies": [Policy(name="default", memory_limit=128 << 20, partitions_limit=16)],
            }
        )
        host = Host(self._world, manifest, Paths(folder / "run", folder / "state"))
        await host.up()
        return host

    def run(self, seed: int, defect: Defect | None = None) -> Outcome:
        """In a process of its own; with a `defect` planted there, where one is named."""
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.close(read)
                gc.disable()
                if defect is not None:
                    defect.plant()
                outcome = self._tell(seed)
                with os.fdopen(write, "w") as stream:
                    json.dump(outcome.__dict__, stream)
                status = 0
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
            finally:
                os._exit(status)
        os.close(write)
        with os.fdopen(read) as stream:
            text = stream.read()
        _, status = os.waitpid(pid, 0)
        if status:
            return Outcome(seed, [f"the simulation itself failed: {status:#x}"])
        return Outcome(**json.loads(text))

    def _tell(self, seed: int) -> Outcome:
        world = self._world
        world.chance, world.story = Chance(seed), []
        folder = world.folder.with_name(f"{world.folder.name}-{os.getpid()}")
        shutil.copytree(world.folder, folder)
        world.files = folder
        try:
            with world.inside():
                for program in world.processes(Program):
                    program.reopen()
                return world.loop.run_until_complete(Story(world, self._host, seed).run())
        finally:
            shutil.rmtree(folder)


class Story:
    def __init__(self, world: World, host: Host, seed: int) -> None:
        self._world, self._host = world, host
        self._random = world.chance.random
        self._outcome = Outcome(seed)
        self._since = host.logs[-1].last

    async def run(self) -> Outcome:
        world, outcome = self._world, self._outcome
        world.chance.faults = True
        callers = [asyncio.create_task(self._caller(number)) for number in range(CALLERS)]
        reaper = asyncio.create_task(self._reap())
        await asyncio.gather(*callers)
        reaper.cancel()
        world.chance.faults = False
        await asyncio.sleep(QUIET)
        outcome.faults += [f"nobody waits for it: {text}" for text in world.errors]
        outcome.faults += [f"asked for what no caller may: {text}" for text in world.refusals]
        outcome.faults += world.descriptors.faults
        await self._check()
        outcome.faults += world.faults
        outcome.hostd = self._host.deaths
        outcome.story = sorted([*world.story, *self._events()])
        outcome.deaths = sum("dies" in line for line in world.story)
        return outcome

    async def _reap(self) -> None:
        """Processes die and stand still between their requests, too."""
        chance = self._world.chance
        while True:
            await asyncio.sleep(self._random.expovariate(1 / REAPED))
            mortal = [one for one in self._world.keeper.processes.values() if one.alive and one.mortal]
            if mortal and self._random.random() < 0.3:
                self._random.choice(mortal).stand_still(self._random.choice((0.1, 0.5)))
            elif mortal and chance.spend():
                self._random.choice(mortal).kill()

    def _events(self) -> list[str]:
        """What hostd tells, as lines of the story."""
        known = ("sequence", "time", "kind")
        return [
            f"{event['time']:12.6f}   {event['kind']} " + json.dumps({k: v for k, v in event.items() if k not in known})
            for since, log in zip((self._since, *[0] * len(self._host.logs)), self._host.logs, strict=False)
            for event in log.history(since)
            if event["kind"] not in ("connection", "takeover")
        ]

    # ---- callers

    async def _caller(self, number: int) -> None:
        for _ in range(CALLS):
            await asyncio.sleep(self._random.expovariate(1 / 0.2))
            await self._call(*self._choose(number))

    def _choose(self, number: int) -> tuple[str, Any]:
        random = self._random
        name = random.choice(NAMES)
        key = f"{self._outcome.seed}-{number}-{random.getrandbits(32)}"
        common = {"key": key, "actor": "test"}
        end = random.choice(("vda", "eth0"))
        path = random.choice(PATHS)
        spec = PartitionSpec(
            name=name, program=["work:main"], memory=MEMORY,
            disks=[Disk(name="vda", size=1 << 20, path=random.choice(PATHS))],
            nics=[Nic(name="eth0")] if random.random() < 0.7 else [],
        )  # fmt: skip
        calls = [
            (6, f"spawn {name}", lambda host: host.spawn(spec, **common)),
            (1, f"stop {name}", lambda host: host.stop(name, 1.0, **common)),
            (2, f"remove {name}", lambda host: host.remove(name, True, **common)),
            (3, f"path {name} {end} {path}", lambda host: host.set_path(name, end, path, 1.0, **common)),
            (2, f"attach {name}", lambda host: host.attach(name, "nic", Nic(name="eth1"), **common)),
            (2, f"detach {name} {end}", lambda host: host.detach(name, end, **common)),
            (2, "switchover", lambda host: host.switch_over(random.choice(("io-a", "io-b")), None)),
            (1, "reload", self._reload),
            (1, f"kill {name}", lambda _host: self._kill(name)),
        ]
        weights = [weight for weight, _, _ in calls]
        ((_, what, act),) = random.choices(calls, weights)
        return what, act

    @staticmethod
    async def _reload(supervisor: Supervisor) -> None:
        await supervisor.unload(1.0)
        await supervisor.load()

    async def _kill(self, name: str) -> None:
        for guest in self._world.processes(roles.Guest):
            if guest.name == name:
                guest.kill()

    async def _call(self, what: str, act: Any) -> None:
        begin = self._world.loop.now
        try:
            async with asyncio.timeout(CALL_LIMIT):
                await self._host.call(act)
            result = "done"
        except REFUSALS as error:
            late = isinstance(error, TimeoutError) and self._world.loop.now - begin >= CALL_LIMIT
            result = "never" if late else f"{type(error).__name__}: {error}"
        except Exception as error:  # whoever calls the API gets "internal" for it
            result = f"{type(error).__name__}: {error}"
            where = traceback.extract_tb(error.__traceback__)[-1]
            self._outcome.faults.append(f"{what} ends with {result} ({Path(where.filename).name}:{where.lineno})")
        if result == "never":
            self._outcome.faults.append(f"{what} was neither answered nor failed within {CALL_LIMIT:g} s")
        self._world.note(f"{what} -> {result}")
        kind = result.partition(":")[0]
        self._outcome.calls[kind] = self._outcome.calls.get(kind, 0) + 1

    # ---- promises

    async def _check(self) -> None:
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

    def _check_data_plane(self) -> None:
        """Monitor, devices and I/O partitions serve those that live, and nobody else."""
        world, records, faults = self._world, self._records, self._outcome.faults
        guests = [one for one in records.values() if one.type == "guest" and one.state not in ENDED]
        monitor = world.monitor()
        wanted = {one.number for one in records.values() if one.opened}
        if monitor is None or set(monitor.opened) != wanted:
            faults.append(f"the monitor knows {sorted(monitor.opened) if monitor else None}, not {sorted(wanted)}")
        for device in world.processes(roles.Device):
            found = {owner for owner, _ in device.ports.values()} - {records["console"].number}
            expected = {one.number for one in guests for end in one.plan["endpoints"] if end["device"] == device.name}
            if found != expected:
                faults.append(f"{device.name} serves {sorted(found)}, not {sorted(expected)}")
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

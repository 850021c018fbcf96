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
import tempfile
import traceback
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hostd import pulse
from hostd.errors import HostError
from hostd.manifest import Device, Disk, Manifest, Nic, PartitionSpec, Policy
from hostd.paths import Paths
from hostd.supervisor import Supervisor
from hostd.wire import RemoteError, WireError
from tests.simulation import roles
from tests.simulation.chance import Chance
from tests.simulation.defects import Defect
from tests.simulation.host import Host
from tests.simulation.programs import Program
from tests.simulation.promises import MEMORY, QUIET, Outcome, Promises
from tests.simulation.world import World

HOST = {
    "memory": 256 << 20, "processors": {"infrastructure": [1], "guests": [0]}, "hardware": "built",
    "metrics": None,
}  # fmt: skip
CALLERS, CALLS = 3, 3  # at once; of each
NAMES = ("red", "green", "blue")
PATHS = ("redirect", "direct", "copy")
REAPED = 1.0  # seconds between two processes that die between their requests
CALL_LIMIT = 400.0  # seconds: every wait of hostd's for a role ends within 30, and a call makes a few
REFUSALS = (HostError, RemoteError, WireError, OSError, EOFError)  # as the API turns them into answers
REHEARSALS = range(4)  # seeds that are told for the interpreter's sake
TMPFS = "/dev/shm"


@contextmanager
def folder() -> Iterator[Path]:
    """For the files of a simulation: in memory where there is a place, for nothing here outlives the machine."""
    where = TMPFS if os.access(TMPFS, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix=f"partvisor-{os.getpid()}-", dir=where) as name:
        yield Path(name) / "base"


class Simulation:
    """A host that was booted and loaded; `run(seed)` goes on from there."""

    def __init__(self, folder: Path, rehearsed: bool = True) -> None:
        for seed in REHEARSALS if rehearsed else ():
            Simulation(folder.with_name(f"{folder.name}-rehearsal-{seed}"), False)._rehearse(seed)
        self._world = World(folder, 1 << 32)  # no story has this seed: a key that was drawn here is never drawn again
        (folder / "run").mkdir(parents=True)
        (folder / "state").mkdir()
        with self._world.inside():
            self._host: Host = self._world.loop.run_until_complete(self._up(folder))
            for program in self._world.processes(Program):
                program.shrink()
        gc.collect()
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
        return self._end(*self._begin(seed, defect))

    def outcomes(self, seeds: Iterable[int], at_once: int) -> Iterator[Outcome]:
        """Of many, in their order."""
        begun: deque[tuple[int, int, int]] = deque()
        try:
            for seed in seeds:
                begun.append(self._begin(seed))
                if len(begun) == at_once:
                    yield self._end(*begun.popleft())
            while begun:
                yield self._end(*begun.popleft())
        finally:  # who has seen enough does not wait for the rest
            while begun:
                self._end(*begun.popleft())

    def _begin(self, seed: int, defect: Defect | None = None) -> tuple[int, int, int]:
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
        return seed, pid, read

    @staticmethod
    def _end(seed: int, pid: int, read: int) -> Outcome:
        with os.fdopen(read) as stream:
            text = stream.read()
        _, status = os.waitpid(pid, 0)
        if status:
            return Outcome(seed, [f"the simulation itself failed: {status:#x}"])
        return Outcome(**json.loads(text))

    def _rehearse(self, seed: int) -> None:
        """Here, in a world that nobody needs again: the interpreter adapts code as it runs it, and what it has adapted
        is there for all seeds."""
        self._tell(seed)
        with self._world.inside():
            for program in self._world.processes(Program):
                program.store.close()

    def _tell(self, seed: int) -> Outcome:
        world = self._world
        world.chance, world.story = Chance(seed), []
        pulse.PERIOD = world.chance.pulse
        folder = world.folder.with_name(f"{world.folder.name}-{os.getpid()}")
        _copy(world.folder, folder)
        world.files = folder
        try:
            with world.inside():
                for program in world.processes(Program):
                    program.move()
                return world.loop.run_until_complete(Story(world, self._host, seed).run())
        finally:
            shutil.rmtree(folder)


def _copy(folder: Path, target: Path) -> None:
    """The databases, with their logs."""
    for name in ("run", "state"):
        (target / name).mkdir(parents=True)
    for file in (folder / "state").iterdir():
        if file.is_file():
            (target / "state" / file.name).write_bytes(file.read_bytes())


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
        await Promises(world, self._host, outcome).check()
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

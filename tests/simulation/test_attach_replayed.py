"""Command dies between its decision that a guest gets an endpoint and the answer.

Asked again under the same key, the next one answers that it has decided so before: the endpoint is to be plugged all
the same. Chance has it seldom.
"""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from hostd.manifest import Disk, Nic, PartitionSpec
from hostd.supervisor import Supervisor
from partitions.command.main import Command
from tests.simulation.processes import Killed
from tests.simulation.programs import Program, SimulatedCommand
from tests.simulation.promises import QUIET, Outcome, Promises
from tests.simulation.roles import Device
from tests.simulation.story import MEMORY, Simulation, folder

BY: dict[str, Any] = {"actor": "test"}


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with folder() as base:
        yield Simulation(base, rehearsed=False)


@pytest.mark.parametrize("key", ["of-the-user", None])
def test_an_endpoint_is_plugged_although_its_answer_was_lost(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    world, host = simulation._world, simulation._host
    decide, killed = Command.handle_attach, list[int]()

    def dies(command: Command, message: Any, fds: list[int]) -> Any:
        answer = decide(command, message, fds)
        if not killed:
            (process,) = world.processes(SimulatedCommand)
            killed.append(process.pid)
            process.kill()
            raise Killed
        return answer

    monkeypatch.setattr(Command, "handle_attach", dies)

    async def attach(supervisor: Supervisor) -> Any:
        spec = PartitionSpec(name="red", program=["work:main"], memory=MEMORY, disks=[Disk(name="vda", size=1 << 20)])
        await supervisor.spawn(spec, key=None, **BY)
        return await supervisor.attach("red", "nic", Nic(name="eth1"), key=key, **BY)

    async def run() -> Outcome:
        outcome = Outcome(0)
        answer = await host.call(attach)
        (nic,) = [one for one in world.processes(Device) if one.name == "nic0"]
        assert (answer["name"], answer["endpoint"]) == ("red", "eth1") and list(nic.ports) == [0]
        if key:  # the user asks again
            again = await host.call(lambda one: one.attach("red", "nic", Nic(name="eth1"), key=key, **BY))
            assert again["index"] == answer["index"] and list(nic.ports) == [0]
        await asyncio.sleep(QUIET)
        await Promises(world, host, outcome).check()
        outcome.faults += world.faults + world.refusals
        return outcome

    with world.inside():
        outcome = world.loop.run_until_complete(run())
        for program in world.processes(Program):
            program.store.close()
    assert killed and outcome.faults == []

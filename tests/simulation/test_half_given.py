"""hostd dies between the ends of command's new boot wires: command has its own, those of the others go with hostd.

Whoever asks command for anything then hears that the ultravisor, which lives, cannot be reached. Chance has it seldom.
"""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from hostd.control_life import ControlLife
from tests.simulation import roles
from tests.simulation.processes import Process
from tests.simulation.programs import Program, SimulatedCommand, SimulatedOperations, SimulatedUltravisor
from tests.simulation.promises import QUIET, Outcome, Promises
from tests.simulation.story import Simulation, folder

DOWN = 0.1  # seconds until there is the next hostd
SOON = 1.0  # seconds until it has adopted; who waits in vain for the death of a role that lives waits 5
LATE = 0.5  # seconds that the next monitor stands still
GONE: tuple[tuple[type[Process], ...], ...] = (
    (), (roles.Monitor,), (SimulatedUltravisor,), (SimulatedOperations,), (roles.Monitor, SimulatedUltravisor),
    (roles.Monitor, SimulatedOperations),
)  # fmt: skip


class Story:
    """`gone`: who dies with hostd, once command has its ends; the next monitor is late."""

    def __init__(self, simulation: Simulation, patch: pytest.MonkeyPatch, gone: tuple[type[Process], ...]) -> None:
        self.world, self.host, self.gone = simulation._world, simulation._host, gone
        self.killed = self.adopted = 0.0
        wires: Any = SimulatedCommand.channel_boot_wires
        begin = roles.Monitor.begin

        def boot_wires(command: SimulatedCommand, message: Any, things: list[Any]) -> Any:
            answer = wires(command, message, things)
            if not self.killed:
                self._kill()
            return answer

        def late(monitor: roles.Monitor) -> None:
            begin(monitor)
            monitor.stand_still(LATE)

        patch.setattr(SimulatedCommand, "channel_boot_wires", boot_wires)
        patch.setattr(roles.Monitor, "begin", late)
        patch.setattr(self.world.chance, "down", lambda: DOWN)

    def _kill(self) -> None:
        self.killed = self.world.loop.now
        for kind in self.gone:
            self.world.processes(kind)[0].kill()
        self.host.die()

    def tell(self) -> list[str]:
        """Broken promises."""
        with self.world.inside():
            outcome = self.world.loop.run_until_complete(self._run())
            for program in self.world.processes(Program):
                program.store.close()
        return outcome.faults

    async def _run(self) -> Outcome:
        outcome = Outcome(0)
        self.world.processes(SimulatedOperations)[0].kill()
        while not self.killed:
            await asyncio.sleep(0.001)
        await self.host.call(self._see)
        await asyncio.sleep(QUIET)
        await Promises(self.world, self.host, outcome).check()
        outcome.faults += self.world.faults
        return outcome

    async def _see(self, _host: Any) -> None:
        """The next hostd answers."""
        self.adopted = self.world.loop.now


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with folder() as base:
        yield Simulation(base, rehearsed=False)


@pytest.mark.parametrize("gone", GONE)
def test_the_next_hostd_gives_command_other_wires(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch, gone: tuple[type[Process], ...]
) -> None:
    """Before it asks command for anything."""
    story = Story(simulation, monkeypatch, gone)
    assert story.tell() == []
    assert 0.0 < story.adopted - story.killed < DOWN + SOON


def test_wires_are_mended_when_services_are_opened(simulation: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Command had no time for other wires before. Services are opened again as soon as there is a monitor, whatever
    becomes of what is asked over the broken ones meanwhile."""

    async def nothing(_life: ControlLife, _patience: float) -> list[str]:
        return []

    monkeypatch.setattr(ControlLife, "mend_wires", nothing)
    story = Story(simulation, monkeypatch, (roles.Monitor, SimulatedOperations))
    assert story.tell() == []

"""A role of the control plane that follows a dead one gets wires to those that live."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from hostd import control_life
from hostd.asking import Absence, reviving
from hostd.boot import CONTROL_PLANE
from hostd.control_life import ControlLife
from hostd.events import EventLog
from hostd.records import Record
from hostd.wire import RemoteError


class Wire:
    """Notes what it is asked for."""

    error = None

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    async def request(self, message: dict[str, Any], _fds: list[int], timeout: float | None) -> Any:
        self.asked.append((message["op"], message.get("service") or message.get("peer") or ""))
        return {}, []


class Scene:
    """`wires`: of those that live. `handed`: what the next process of each role was started with."""

    def __init__(self, *living: str) -> None:
        self.records = {name: Record(name, name) for name in CONTROL_PLANE}
        self.wires = {name: Wire() for name in living}
        self.handed: dict[str, list[str]] = {}
        for name, wire in self.wires.items():
            self.records[name].wire = wire  # type: ignore[assignment]
        boot: Any = SimpleNamespace(records=self.records, children=None, start_control=self._start)
        loading: Any = SimpleNamespace(disturbed=None, complete=False)
        self.life = ControlLife(boot, loading, EventLog(), list, None, None)  # type: ignore[arg-type]
        self.life.reopen = lambda: None  # type: ignore[method-assign]

    async def _start(self, record: Record, fds: dict[str, int]) -> None:
        self.handed[record.name] = sorted(fds)
        record.wire = Wire()  # type: ignore[assignment]


@pytest.mark.parametrize("name", ["ultravisor", "operations"])
def test_command_gets_a_wire_to_the_next_process_of_a_service(name: str) -> None:
    """Under its name: with the other one's it would go on asking the dead one."""
    scene = Scene("command")

    async def run() -> None:
        scene.life.reachable.set()
        await scene.life._follow(scene.records[name])

    asyncio.run(run())
    assert scene.wires["command"].asked == [("boot_wire", name)] and scene.handed == {name: ["command"]}


def test_services_get_wires_to_the_next_command() -> None:
    """Otherwise they would wait for the dead one."""
    scene = Scene("ultravisor", "operations")

    async def run() -> None:
        scene.life.reachable.set()
        await scene.life._follow(scene.records["command"])

    asyncio.run(run())
    assert [wire.asked for wire in scene.wires.values()] == [[("channel_closed", "command")]] * 2
    assert scene.handed == {"command": ["operations", "ultravisor"]}


def test_nobody_is_followed_before_all_that_live_have_their_wires() -> None:
    """A hostd that adopts takes over one role after the other: the ultravisor may die while command has no wire yet.
    It would never get one to the next ultravisor."""
    scene, command = Scene(), Wire()

    async def run() -> None:
        following = asyncio.create_task(scene.life._follow(scene.records["ultravisor"]))
        for _ in range(5):
            await asyncio.sleep(0)
        assert scene.handed == {}
        scene.records["command"].wire = command  # type: ignore[assignment]
        scene.life.reachable.set()
        await following

    asyncio.run(run())
    assert command.asked == [("boot_wire", "ultravisor")]


def test_an_unload_gives_command_wires_without_waiting_for_a_dead_role(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the other end in hand hostd would keep command waiting for the dead one, whose next waits for command."""
    monkeypatch.setattr(control_life, "FIRST_RETRY", 0.0)
    scene, tries = Scene(), []
    dead = scene.records["operations"]
    for record in scene.records.values():
        record.absence = Absence()
    dead.absence.begin()  # type: ignore[union-attr]

    async def boot_wires() -> None:
        tries.append((scene.life._wiring.locked(), dead in (reviving.get() or ())))
        if len(tries) == 1:
            raise RemoteError("unreachable", "operations has ended")

    async def run() -> None:
        scene.life._loading.boot_wires = boot_wires  # type: ignore[method-assign]
        unloading = asyncio.create_task(scene.life._loading.rewire())
        for _ in range(5):
            await asyncio.sleep(0.001)
        assert len(tries) == 1 and not scene.life._wiring.locked() and not reviving.get()
        dead.absence.end()  # type: ignore[union-attr]
        await asyncio.wait_for(unloading, 5.0)

    asyncio.run(run())
    assert tries == [(True, True)] * 2


def test_an_unload_does_not_wait_for_a_role_that_was_given_up() -> None:
    scene = Scene()
    for record in scene.records.values():
        record.absence = Absence(given_up=record.name == "operations")

    async def boot_wires() -> None:
        raise RemoteError("unreachable", "operations has ended")

    async def run() -> None:
        scene.life._loading.boot_wires = boot_wires  # type: ignore[method-assign]
        with pytest.raises(RemoteError, match="operations"):
            await asyncio.wait_for(scene.life._loading.rewire(), 5.0)

    asyncio.run(run())

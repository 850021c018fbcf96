"""What a dead hostd left at the keeper: strangers go, and a role that is started again meanwhile is none."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from hostd.leftovers import Leftovers
from hostd.records import Record
from hostd.wire import RemoteError


class Keeper:
    """`between()`: what others do while it ends a process."""

    def __init__(self, keys: list[str]) -> None:
        self.keys = keys
        self.between: Callable[[], None] = lambda: None

    async def list_held(self) -> list[str]:
        return list(self.keys)

    async def release(self, key: str) -> None:
        if key not in self.keys:
            raise RemoteError("not_found", f"nothing is held under {key!r}")
        self.keys.remove(key)

    async def end_stranger(self, _row: dict[str, Any]) -> None:
        self.between()


def end_strangers(keeper: Keeper, *records: Record) -> None:
    async def run() -> None:
        boot: Any = SimpleNamespace(keeper=keeper, fabric=None, records={one.name: one for one in records})
        refusals: Any = SimpleNamespace(resume=lambda _key: None)
        children: Any = keeper
        leftovers = Leftovers(boot, children, refusals, None, None)  # type: ignore[arg-type]
        await leftovers.end_strangers([{"id": 9, "status": None}], await keeper.list_held())

    asyncio.run(run())


def test_what_belongs_to_no_record_is_released() -> None:
    keeper = Keeper(["note:host", "red:4", "red:4:lifecycle", "blue:9", "red:3:lifecycle"])
    end_strangers(keeper, Record("red", "guest", process=4))
    assert keeper.keys == ["note:host", "red:4", "red:4:lifecycle"]


def test_a_role_that_is_started_again_meanwhile_is_no_stranger() -> None:
    """Its key is there before its record has its process."""
    keeper = Keeper(["monitor:5", "blue:9"])
    monitor = Record("monitor", "monitor", process=5)

    def again() -> None:
        keeper.keys.remove("monitor:5")
        monitor.process = 0
        keeper.keys.append("monitor:18")

    keeper.between = again
    end_strangers(keeper, monitor)
    assert keeper.keys == ["monitor:18"]


def test_one_that_ended_while_it_was_getting_an_endpoint_is_detached_by_what_others_know() -> None:
    """Its note knows neither the endpoint nor its queue, which an I/O partition would keep in service."""
    ended = Record("red", "guest", number=7, queues=[0], plan={"endpoints": []}, exit_status={"exited": 0})
    plan = {"endpoints": [{"index": 0}, {"index": 1}]}
    detached: list[tuple[bool, list[int], Any]] = []

    class Role:
        error = None

        def __init__(self, **answers: Any) -> None:
            self.answers = answers

        async def request(self, message: dict[str, Any], _fds: list[int], timeout: float | None) -> Any:
            return self.answers[message.get("what", message["op"])], []

    command = Record("command", "command")
    row = {"id": 7, "name": "red", "pid": None, "start_time": None}
    command.wire = Role(partitions={"partitions": [row]}, partition={"partition": plan})  # type: ignore[assignment]
    server = Record("io-b", "io")
    server.wire = Role(queues={"queues": [{"partition": 7, "number": number} for number in (0, 1)]})  # type: ignore[assignment]

    async def detach(record: Record) -> None:
        detached.append((record.attached, record.queues, record.plan))

    async def compare(_nics: dict[str, Record]) -> None:
        pass

    async def run() -> list[str]:
        fabric = SimpleNamespace(
            servers={"io-b": server}, devices={}, detach=detach, wiring=SimpleNamespace(compare=compare)
        )
        records = {one.name: one for one in (command, server, ended)}
        boot: Any = SimpleNamespace(
            keeper=None, fabric=fabric, records=records, manifest=SimpleNamespace(devices=[])
        )
        command.number, server.number = 1, 2
        return await Leftovers(boot, None, None, None, None).remove()  # type: ignore[arg-type]

    assert asyncio.run(run()) == []
    assert detached == [(True, [0, 1], plan)]


@pytest.mark.parametrize(("pid", "again"), [(50, ["io-a"]), (51, [])])
def test_a_role_that_the_dead_one_had_started_again_and_not_told_of_is_recorded(pid: int, again: list[str]) -> None:
    """Otherwise the database would know a process that lives no more, for as long as the ultravisor lives."""
    role = Record("io-a", "io", number=3, state="running", pid=51, start_ticks=900)
    told: list[str] = []

    class Role:
        error = None

        async def request(self, _message: dict[str, Any], _fds: list[int], timeout: float | None) -> Any:
            return {"partitions": [{"id": 3, "name": "io-a", "pid": pid, "start_time": 900}]}, []

    async def record_again(record: Record) -> None:
        told.append(record.name)

    async def compare(_nics: dict[str, Record]) -> None:
        pass

    async def run() -> list[str]:
        command = Record("command", "command", number=1)
        command.wire = Role()  # type: ignore[assignment]
        fabric = SimpleNamespace(servers={}, devices={}, wiring=SimpleNamespace(compare=compare))
        boot: Any = SimpleNamespace(
            keeper=None, fabric=fabric, records={"command": command, "io-a": role},
            manifest=SimpleNamespace(devices=[]), record_again=record_again,
        )  # fmt: skip
        return await Leftovers(boot, None, None, None, None).remove()  # type: ignore[arg-type]

    assert asyncio.run(run()) == []
    assert told == again

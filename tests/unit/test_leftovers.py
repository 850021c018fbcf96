"""What a dead hostd left at the keeper: strangers go, and a role that is started again meanwhile is none."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

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

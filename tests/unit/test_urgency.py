"""What is taken or granted is urgent, memory, endpoints and channels alike (hostd.urgency)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest

from hostd.drivers import Drivers
from hostd.events import EventLog
from hostd.keeper import Keeper
from hostd.records import Record
from hostd.urgency import Urgency
from hostd.withdrawal import CALLS, Withdrawing

BY: dict[str, Any] = {"key": None, "actor": "test"}


class Noted(Urgency):
    """Changes no thread: `log` has what it would have done. `right`: to a real-time class."""

    def __init__(self, right: bool = True) -> None:
        super().__init__({}, cast(Keeper, None), cast(Drivers, None))
        self.right = right
        self.log: list[str] = []

    def _lower_data(self) -> bool:
        self.log.append("data below")
        return self.right

    def _restore_data(self) -> None:
        self.log.append("data above")

    def _put_control(self, policy: int, priority: int) -> None:
        self.log.append("control above" if priority else "control below")


class Taker(Withdrawing):
    """The work itself is only noted."""

    def __init__(self) -> None:
        self._urgency = self.noted = Noted()
        self.events = EventLog()

    async def _work(self, *_arguments: Any) -> Any:
        await asyncio.sleep(0)
        self.noted.log.append("work")
        return {"decision": 1}

    _revoke = _grant = _take_endpoint = _take_pair = _take_calls = _asked = _work

    async def _silence(self, record: Record, on: bool) -> None:
        pass

    def _holding(self, name: str) -> Record:
        return Record(name, "guest", silent=True)

    _running = _holding

    def _issue(self, *_arguments: Any) -> Any:
        return {}


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(lambda host: host.revoke_memory("store", 0, 4096, 1.0, **BY), id="memory"),
        pytest.param(lambda host: host.grant_memory("store", 0, **BY), id="memory that is granted"),
        pytest.param(lambda host: host.revoke_endpoint("store", "vda", 1.0, **BY), id="endpoint"),
        pytest.param(lambda host: host.revoke_channel("store", "vda", 1.0, **BY), id="queue pair"),
        pytest.param(lambda host: host.revoke_channel("store", CALLS, 1.0, **BY), id="call ring"),
        pytest.param(lambda host: host.grant_channel("store", CALLS, **BY), id="call ring that is granted"),
    ],
)
def test_control_comes_first_meanwhile(act: Callable[[Taker], Coroutine[Any, Any, Any]]) -> None:
    host = Taker()
    asyncio.run(act(host))
    assert host.noted.log == ["data below", "control above", "work", "data above", "control below"]


def test_the_last_one_ends_it() -> None:
    urgency = Noted()
    with urgency.raised():
        with urgency.raised():
            pass
        assert urgency.log == ["data below", "control above"]
    assert urgency.log == ["data below", "control above", "data above", "control below"]

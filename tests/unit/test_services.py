"""Services of the control plane that are opened again while a role of it dies (hostd.loading)."""

from __future__ import annotations

import asyncio
import os
from types import SimpleNamespace
from typing import Any

import pytest

from hostd import loading
from hostd.errors import HostError
from hostd.records import Record

PLAN = {"call": {"segment": 1, "capacity": 8}, "events": 2}


async def descriptors(ids: list[int]) -> list[int]:
    return [os.open(os.devnull, os.O_RDONLY) for _ in ids]


def test_nobody_waits_for_a_role_that_has_died(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next process of it gets its wires from whoever opens services: who waited here would wait for himself."""

    async def answered(*_: Any) -> dict[str, Any]:
        return {}

    async def story() -> None:
        records = {name: Record(name, name, plan=PLAN) for name in ("command", "console", "operations")}
        fabric = SimpleNamespace(symmetric=False)
        boot = SimpleNamespace(
            fabric=fabric, slots={}, children=None, records=records, keeper=SimpleNamespace(get_segments=descriptors)
        )
        one = loading.Loading(boot, None, None, {})  # type: ignore[arg-type]
        one.complete = one.reopening = True
        opening = asyncio.create_task(one._open_services(timeout=60.0))
        for _ in range(10):  # until it waits for what the roles do by system calls
            await asyncio.sleep(0)
        assert not opening.done()
        one.disturbed(records["operations"])
        async with asyncio.timeout(10.0):
            with pytest.raises(HostError, match="operations has ended"):
                await opening
        assert one.reopening, "it is to be tried again"

    monkeypatch.setattr(loading, "ask", answered)
    asyncio.run(story())

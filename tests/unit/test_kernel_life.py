"""What a hostd that follows is told of a load that failed."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from hostd.errors import HostError
from hostd.kernel_life import KernelLife


def noted(undone: bool) -> list[str]:
    """Stages of the kernel that are noted while a load fails, and is `undone` or not."""
    stages: list[str] = []
    fabric = SimpleNamespace(loaded=False)

    async def load() -> None:
        fabric.loaded = not undone
        raise HostError("state", "the load has failed")

    async def take() -> dict[str, Any]:
        return {}

    async def note_host(**stage: Any) -> None:
        stages.append(stage["kernel"])

    async def run() -> None:
        life: Any = KernelLife()
        life._moving, life._unloaded, life.records, life.fabric = asyncio.Lock(), None, {}, fabric
        life._loading = SimpleNamespace(complete=False, load=load)
        life._inventory, life.note_host = SimpleNamespace(take=take), note_host
        with pytest.raises(HostError, match="has failed"):
            await life.load()

    asyncio.run(run())
    return stages


def test_a_load_that_was_undone() -> None:
    assert noted(undone=True) == ["loading", "none"]


def test_a_load_that_could_not_be_undone() -> None:
    """There are partitions of a kernel that is none: the next load would find their names taken."""
    assert noted(undone=False) == ["loading"]

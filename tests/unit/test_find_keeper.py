"""hostd looks for the keeper of its folder, which may just begin or end: a hostd that was killed leaves either."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hostd import daemon, keeper, succession
from hostd.errors import HostError
from hostd.paths import Paths

NOTES = {"host": {"state": "x"}}


class Keepers:
    """What lies in the folder, look by look: "none", "deaf" (its lock is held), "ending" (it ends while it is asked),
    "empty" (without notes), "living"."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *states: str) -> None:
        self.states, self.stopped, self.launched = list(states), 0, 0
        monkeypatch.setattr(daemon, "is_locked", lambda _runtime: self.states[0] != "none")
        monkeypatch.setattr(keeper, "connect", self.connect)
        monkeypatch.setattr(keeper, "launch", self.launch)
        monkeypatch.setattr(succession, "read", self.read)
        monkeypatch.setattr(daemon, "KEEPER_LOOK", 0.0)

    def _next(self) -> None:
        if len(self.states) > 1:
            del self.states[0]

    async def connect(self, _runtime: Path) -> Keepers:
        if self.states[0] == "deaf":
            self._next()
            raise ConnectionRefusedError
        return self

    async def read(self, _client: Any) -> Any:
        state = self.states[0]
        if state == "ending":
            self._next()
            raise EOFError
        return NOTES if state == "living" else None

    async def stop(self) -> None:
        self.stopped += 1
        self._next()

    async def launch(self, _runtime: Path, _modules: Any) -> Keepers:
        self.launched += 1
        return self

    async def lead(self) -> None:
        pass


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[Keepers, Any]]:
    def find(*states: str) -> tuple[Keepers, Any]:
        keepers = Keepers(monkeypatch, *states)
        return keepers, asyncio.run(daemon.find_keeper(Paths(tmp_path, tmp_path)))[1]

    return find


@pytest.mark.parametrize(
    ("states", "stopped", "launched", "notes"),
    [
        (["none"], 0, 1, None),
        (["living"], 0, 0, NOTES),
        (["empty", "none"], 1, 1, None),
        (["deaf", "deaf", "living"], 0, 0, NOTES),
        (["deaf", "ending", "none"], 0, 1, None),
        (["deaf", "empty", "deaf", "none"], 1, 1, None),
    ],
)
def test_one_that_begins_or_ends_is_waited_for(
    found: Callable[..., tuple[Keepers, Any]], states: list[str], stopped: int, launched: int, notes: Any
) -> None:
    keepers, told = found(*states)
    assert (keepers.stopped, keepers.launched, told) == (stopped, launched, notes)


def test_one_that_never_answers_is_named(
    found: Callable[..., tuple[Keepers, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(keeper, "READY_TIMEOUT", 0.0)
    monkeypatch.setattr(keeper, "STOP_TIMEOUT", 0.0)
    with pytest.raises(HostError, match=str(tmp_path)) as caught:
        found("deaf")
    assert caught.value.code == "timeout"

"""Answers of the API by idempotency key: a request that is sent again gets the first one's answer.

Requests with one key run once, also when they arrive at the same time or when the first caller goes
away in the middle. The store is bounded and lives as long as the daemon; beyond that the key travels
on to the ultravisor, which keeps its own answers durably.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from hostd.errors import HostError

ANSWERS_MAX = 1024
KEY_LENGTH_MAX = 128


class _Entry(NamedTuple):
    request: Any
    task: asyncio.Task[Any]


class AnswerStore:
    """Runs each key once. To be used from one event loop."""

    def __init__(self, capacity: int = ANSWERS_MAX) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._running: set[asyncio.Task[Any]] = set()  # the loop itself holds tasks only weakly

    async def once(self, key: str | None, request: Any, act: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """The answer of `act`, or the stored one of this key; `request` tells requests apart.

        Raises what `act` raised, again for each caller, and HostError `conflict` where the key was
        used for another request.
        """
        if key is None:
            return await asyncio.shield(self._start(act))
        check_key(key)
        entry = self._entries.get(key)
        if entry is None:
            self._make_room()
            entry = self._entries[key] = _Entry(request, self._start(act))
        elif entry.request != request:
            raise HostError("conflict", f"the idempotency key {key!r} was used for another request")
        # Shielded: the caller may leave, the change goes on, and a retry finds its answer.
        return await asyncio.shield(entry.task)

    def _start(self, act: Callable[[], Coroutine[Any, Any, Any]]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(act())
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # marks it as seen: the caller may have gone, and nobody else asks

    def _make_room(self) -> None:
        while len(self._entries) >= self._capacity:
            done = next((key for key, entry in self._entries.items() if entry.task.done()), None)
            if done is None:
                raise HostError("denied", f"more than {self._capacity} requests with idempotency keys are running")
            del self._entries[done]


def check_key(key: str) -> None:
    """Keys are printable ASCII of a bounded length: they are stored and logged."""
    if not 1 <= len(key) <= KEY_LENGTH_MAX or not (key.isascii() and key.isprintable()):
        raise HostError("usage", f"an idempotency key has 1 to {KEY_LENGTH_MAX} printable ASCII characters")

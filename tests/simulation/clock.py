"""An event loop whose time is a number: nothing waits, and the same calls give the same order of everything.

It is asyncio's own loop but for what it asks the kernel: the clock, and which descriptors are ready.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any


class Stuck(Exception):
    """Everybody waits, and nothing will ever happen."""


class _Selector:
    """In the place of epoll: "waiting" moves the clock."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise Stuck
        self._loop.now += timeout
        return []

    def close(self) -> None:
        pass


class Loop(asyncio.BaseEventLoop):
    """`readers`: callbacks by descriptor, for whoever makes one readable (tests/simulation/wires.py)."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self._selector = _Selector(self)
        self._clock_resolution = 1e-9
        self.readers: dict[int, Callable[[], None]] = {}
        self.watched: Callable[[int], None] = lambda _descriptor: None  # told of each new reader

    def time(self) -> float:
        return self.now

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def add_reader(self, fd: Any, callback: Callable[..., Any], *args: Any) -> None:
        context = contextvars.copy_context()  # as asyncio's own handles
        self.readers[fd] = lambda: context.run(callback, *args)
        self.watched(fd)

    def remove_reader(self, fd: Any) -> bool:
        return self.readers.pop(fd, None) is not None

    def add_writer(self, fd: Any, callback: Callable[..., Any], *args: Any) -> None:
        self.call_soon(callback, *args)

    def remove_writer(self, fd: Any) -> bool:
        return False

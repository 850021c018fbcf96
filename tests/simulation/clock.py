"""An event loop whose time is a number: nothing waits, and the same calls give the same order of everything.

It is asyncio's own loop but for what it asks the kernel: the clock, and which descriptors are ready.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any

# Of the hostd that the code of a context belongs to, in the order of their starts; 0: of everybody else.
LIFE: contextvars.ContextVar[int] = contextvars.ContextVar("life", default=0)


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
        self.dead: set[int] = set()  # lives of hostd that were killed
        self._graves: list[Any] = []  # what those have left is never freed: that would run their cleanup

    def time(self) -> float:
        return self.now

    def kill(self, life: int, *more: Any) -> None:
        """Nothing of a hostd runs from now on but the rest of its present step, which acts on nobody (`World.ghost`).
        `more` is kept with its tasks."""
        self.dead.add(life)
        self._graves += [*more, *asyncio.all_tasks(self)]
        handles: list[Any] = [*self._ready, *self._scheduled]  # type: ignore[attr-defined]
        for handle in handles:
            if handle._context.get(LIFE) == life:
                self._graves += [handle._callback, handle._args]
                handle.cancel()
        self.readers.clear()

    def call_soon(self, callback: Any, *args: Any, context: contextvars.Context | None = None) -> asyncio.Handle:
        if self._is_dead(context):
            return self._bury(asyncio.Handle(callback, args, self, context))
        return super().call_soon(callback, *args, context=context)

    def call_at(
        self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        if self._is_dead(context):
            return self._bury(asyncio.TimerHandle(when, callback, args, self, context))
        return super().call_at(when, callback, *args, context=context)

    def _is_dead(self, context: contextvars.Context | None) -> bool:
        return bool(self.dead) and (LIFE.get() if context is None else context.get(LIFE, 0)) in self.dead

    def _bury(self, handle: Any) -> Any:
        self._graves += [handle, handle._callback, handle._args]
        return handle

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def add_reader(self, fd: Any, callback: Callable[..., Any], *args: Any) -> None:
        context = contextvars.copy_context()  # as asyncio's own handles
        if self._is_dead(context):
            return
        self.readers[fd] = lambda: context.run(callback, *args)
        self.watched(fd)

    def remove_reader(self, fd: Any) -> bool:
        return not self._is_dead(None) and self.readers.pop(fd, None) is not None

    def add_writer(self, fd: Any, callback: Callable[..., Any], *args: Any) -> None:
        self.call_soon(callback, *args)

    def remove_writer(self, fd: Any) -> bool:
        return False

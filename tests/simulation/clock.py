"""An event loop whose time is a number: nothing waits, and the same calls give the same order of everything.

Tasks, futures and time-outs are asyncio's own; the loop under them asks the kernel for nothing.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
from collections import deque
from collections.abc import Callable
from typing import Any

# Of the hostd that the code of a context belongs to, in the order of their starts; 0: of everybody else.
LIFE: contextvars.ContextVar[int] = contextvars.ContextVar("life", default=0)


class Stuck(Exception):
    """Everybody waits, and nothing will ever happen."""


class Handle:
    """In the place of asyncio's, which do more than is asked for here, once for every step of a story."""

    __slots__ = ("arguments", "callback", "context", "moment")

    def __init__(self, callback: Any, arguments: tuple[Any, ...], context: contextvars.Context, moment: float) -> None:
        self.callback, self.arguments, self.context, self.moment = callback, arguments, context, moment

    def cancel(self) -> None:
        self.callback, self.arguments = None, ()

    def cancelled(self) -> bool:
        return self.callback is None

    def when(self) -> float:
        return self.moment


class Loop(asyncio.BaseEventLoop):
    """`readers`: callbacks by descriptor, for whoever makes one readable (tests/simulation/wires.py)."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self._due: deque[Handle] = deque()
        self._timers: list[tuple[float, int, Handle]] = []  # a heap; those of one moment in the order of their making
        self._numbers = itertools.count()
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
        for handle in [*self._due, *(timer for _, _, timer in self._timers)]:
            if handle.context.get(LIFE) == life:
                self._bury(handle)
                handle.cancel()
        self.readers.clear()

    def call_soon(self, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:
        handle = Handle(callback, args, contextvars.copy_context() if context is None else context, self.now)
        if self.dead and self._is_dead(context):
            return self._bury(handle)
        self._due.append(handle)
        return handle

    def call_at(self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:
        handle = Handle(callback, args, contextvars.copy_context() if context is None else context, when)
        if self.dead and self._is_dead(context):
            return self._bury(handle)
        heapq.heappush(self._timers, (when, next(self._numbers), handle))
        return handle

    def call_later(self, delay: float, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def _is_dead(self, context: contextvars.Context | None) -> bool:
        return bool(self.dead) and (LIFE.get() if context is None else context.get(LIFE, 0)) in self.dead

    def _bury(self, handle: Handle) -> Handle:
        self._graves += [handle, handle.callback, handle.arguments]
        return handle

    def _run_once(self) -> None:
        """What is due runs; where nothing is, the clock moves to the next moment at which something will be."""
        due, timers = self._due, self._timers
        if not due:
            while timers and timers[0][2].callback is None:
                heapq.heappop(timers)
            if not timers and not self._stopping:  # type: ignore[attr-defined]
                raise Stuck
            if timers:
                self.now = max(self.now, timers[0][0])
        while timers and timers[0][0] <= self.now:
            due.append(heapq.heappop(timers)[2])
        for _ in range(len(due)):
            handle = due.popleft()
            if handle.callback is not None:
                self._step(handle)

    def _step(self, handle: Handle) -> None:
        try:
            handle.context.run(handle.callback, *handle.arguments)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self.call_exception_handler({"message": f"in {handle.callback!r}", "exception": error})

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

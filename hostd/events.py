"""The event log of the host: what happened, in order, to be read at once or followed.

hostd publishes from its event loop; the API streams to any number of readers. The log is a ring of
the last events, and a reader is only a sequence number: a reader that never reads costs nothing and
delays nobody. One that falls behind the ring is told how many events it missed.

    event: {"sequence": int from 1, "time": unix seconds, "kind": str, "partition": name or absent, ...}
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from itertools import islice
from typing import Any

from hostd.errors import HostError

EVENTS_MAX = 4096  # about one MiB; a burst of 64 partitions starting and ending is under 1000
Event = dict[str, Any]


class EventLog:
    """Ring of the last events with followers. To be used from one event loop, without locks."""

    def __init__(self, capacity: int = EVENTS_MAX) -> None:
        self._events: deque[Event] = deque(maxlen=capacity)
        self._last = 0
        self._waiting: set[asyncio.Future[None]] = set()
        self._closed = False
        self.observer: Callable[[Event], None] | None = None  # is told of each event before `publish` returns

    @property
    def last(self) -> int:
        """Sequence number of the newest event; 0 before the first."""
        return self._last

    def publish(self, kind: str, **fields: Any) -> Event:
        """Append an event and wake the followers; returns it as stored."""
        self._last += 1
        event: Event = {"sequence": self._last, "time": time.time(), "kind": kind, **fields}
        self._events.append(event)
        self._wake()
        if self.observer is not None:
            self.observer(event)
        return event

    def history(self, since: int = 0) -> list[Event]:
        """Events after the sequence number `since`, oldest first, with a `lost` event for a gap.

        A number that this log has not reached is one of an earlier daemon: all events are new then.
        """
        if since > self._last:
            since = 0
        oldest = self._last - len(self._events) + 1
        if since + 1 >= oldest:
            return list(islice(self._events, since + 1 - oldest, None))
        return [self._lost(since, oldest), *self._events]

    async def subscribe(self, since: int | None = None) -> AsyncIterator[Event]:
        """Events after `since` (default: only new ones) for ever, until the log is closed."""
        cursor = self._last if since is None else since
        while True:
            for event in self.history(cursor):
                # A reader may be slow between two events; `history` was a copy, so nothing shifts.
                yield event
                cursor = event["sequence"]
            if cursor < self._last:
                continue
            if self._closed:
                return
            await self._changed()

    async def wait_for(self, condition: Callable[[], bool], timeout: float | None) -> None:
        """Return when `condition` holds, tested after each event; HostError `timeout` otherwise."""
        try:
            async with asyncio.timeout(timeout):
                while not condition():
                    if self._closed:
                        raise HostError("state", "the host is going down")
                    await self._changed()
        except TimeoutError:
            raise HostError("timeout", f"not reached within {timeout:g} s") from None

    def close(self) -> None:
        """End all followers after they have read what is there."""
        self._closed = True
        self._wake()

    def _lost(self, since: int, oldest: int) -> Event:
        # Its number is that of the last missed event, so that a reader goes on behind the gap.
        return {"sequence": oldest - 1, "time": time.time(), "kind": "lost", "count": oldest - 1 - since}

    def _wake(self) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()

    async def _changed(self) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await future
        finally:
            self._waiting.discard(future)

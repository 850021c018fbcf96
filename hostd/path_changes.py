"""Changes of path of running endpoints: the wish, the guest that follows or does not, and what is settled (A1).

    decided -> wanted (database, descriptor) -> offered (monitor tells the guest) -> recalled (device gives back what
    lies unexecuted on the old path) -> the guest drains and goes over (the monitor says so) -> settled

A guest that has not gone over by the deadline stays where it is: first the wish is taken back, so that it cannot go
over any more, then the monitor's word decides what is in force, for it may have gone over just before. One change of
an endpoint at a time. hostd's plan of the partition follows the database.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Protocol

from hostd.asking import persist
from hostd.errors import HostError
from hostd.events import EventLog
from hostd.records import Record
from hostd.wire import Message, RemoteError

TIMEOUT = 1.0  # seconds that a guest has by default: a driver drains its queues within milliseconds
TIMEOUT_MAX = 600.0
TAKE_BACK_MAX = 8  # a guest goes over between two looks once; one that does so each time confuses only itself

Row = dict[str, Any]


class Plane(Protocol):
    """The part of the data plane that a change of path uses (hostd.fabric.Fabric)."""

    async def map_memory(self, record: Record) -> None: ...

    async def unmap_memory(self, record: Record) -> None: ...

    async def offer_path(self, record: Record, endpoint: Row) -> str: ...

    async def recall(self, record: Record, endpoint: Row, path: str) -> None: ...

    async def settle(self, record: Record, endpoint: Row) -> None: ...

    async def close_pair(self, record: Record, endpoint: Row) -> int: ...


class PathChanges:
    """`decide(record, endpoint, path, key, actor)` asks the command partition; `transaction` the ultravisor."""

    def __init__(
        self,
        plane: Plane,
        decide: Callable[[Record, str, str, str | None, str], Awaitable[Row]],
        transaction: Callable[[list[Row]], Awaitable[Sequence[Any]]],
        events: EventLog,
    ) -> None:
        self._plane = plane
        self._decide = decide
        self._transaction = transaction
        self._events = events
        # What the monitor tells of endpoints that change, by generation; None: the guest has ended.
        self._waiting: dict[int, asyncio.Queue[str | None]] = {}
        self._locks: dict[int, asyncio.Lock] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # ---- before the guest starts ----

    async def begin(self, record: Record) -> None:
        """Offers the paths that were wanted from the start. The guest's driver goes over when it begins its work,
        whenever that is, so there is no deadline; `hear` settles it."""
        for endpoint in record.plan["endpoints"]:
            if endpoint["wanted"] != endpoint["path"]:
                if endpoint["wanted"] == "copy":
                    await self._plane.map_memory(record)
                await self._plane.offer_path(record, endpoint)

    async def catch_up(self, record: Record) -> None:
        """After the death of an earlier hostd: what the database wants stands, now without a deadline."""
        record.copied = not any("copy" in (one["path"], one["wanted"]) for one in record.plan["endpoints"])
        await (self._plane.unmap_memory(record) if record.copied else self._plane.map_memory(record))
        for endpoint in [one for one in record.plan["endpoints"] if one["wanted"] != one["path"]]:
            await self._plane.settle(record, endpoint)
            path = await self._plane.offer_path(record, endpoint)
            if path != endpoint["path"]:  # the guest has gone over, and nobody heard
                self.hear(record, {"endpoint": endpoint["index"], "path": path})
            else:  # receive buffers that lie there would keep it from going over
                await self._plane.recall(record, endpoint, path)

    # ---- what the monitor and the processes tell ----

    def hear(self, record: Record, message: Message) -> None:
        """A guest has gone over to another path."""
        endpoint = next((one for one in record.plan["endpoints"] if one["index"] == message["endpoint"]), None)
        if endpoint is None:
            return
        waiting = self._waiting.get(endpoint["generation"])
        if waiting is not None:
            waiting.put_nowait(message["path"])
            return
        task = asyncio.create_task(self._arrived(record, endpoint, message["path"]))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def ended(self, record: Record) -> None:
        """The guest's process has ended: nobody follows any more."""
        for endpoint in record.plan.get("endpoints", ()):
            waiting = self._waiting.get(endpoint["generation"])
            if waiting is not None:
                waiting.put_nowait(None)
            self._locks.pop(endpoint["generation"], None)

    async def _arrived(self, record: Record, endpoint: Row, path: str) -> None:
        """The end of a change without a deadline."""
        async with self._lock(endpoint):
            # Where another path has been asked for meanwhile, that change has the monitor's word and settles it.
            if path != endpoint["wanted"] or not record.attached:
                return
            before = endpoint["path"]
            try:
                if path == before:
                    if path == "redirect":  # maybe its queue pair was taken, by this hostd or an earlier one
                        await self._plane.settle(record, endpoint)
                    return
                await self._settle(record, endpoint, path)
            except (RemoteError, HostError) as error:
                self._events.publish("error", partition=record.name, message=f"path: {error.message}")
                return
        self._publish(record, endpoint, before, path)

    # ---- a change ----

    async def change(
        self, record: Record, name: str, path: str, timeout: float, *, key: str | None, actor: str
    ) -> Row:
        """{"partition", "endpoint", "path", "before", "seconds", "decision"} once the guest has gone over."""
        begin = time.monotonic()
        endpoint = endpoint_of(record, name)
        generation = endpoint["generation"]
        if generation in self._waiting:
            raise HostError("conflict", f"{record.name}: the path of {name} is being changed")
        self._waiting[generation] = asyncio.Queue()
        try:
            async with self._lock(endpoint):
                answer = await self._decide(record, name, path, key, actor)
                before = endpoint["path"]
                # A repeated key asks what has happened, not that it happens again.
                if not answer["replayed"]:
                    await self._carry_out(record, endpoint, path, timeout)
        finally:
            del self._waiting[generation]
        if endpoint["path"] != before:
            self._publish(record, endpoint, before, path)
        return {
            "partition": record.name,
            "endpoint": name,
            "path": endpoint["path"],
            "before": before,
            "seconds": time.monotonic() - begin,
            "decision": answer["decision"],
        }

    @asynccontextmanager
    async def unchanged(self, record: Record, endpoints: Sequence[Row]) -> AsyncIterator[None]:
        """No change of path of these endpoints begins inside. HostError `conflict` while one is under way."""
        async with AsyncExitStack() as stack:
            for endpoint in endpoints:
                if endpoint["generation"] in self._waiting or endpoint["wanted"] != endpoint["path"]:
                    raise HostError("conflict", f"{record.name}: the path of {endpoint['name']} is being changed")
                await stack.enter_async_context(self._lock(endpoint))
            yield

    async def cut(
        self,
        record: Record,
        endpoint: Row,
        patience: float,
        closed: Callable[[int], None],
        drained: Callable[[], None],
    ) -> None:
        """Takes its queue pair from a guest, which need not agree: `redirect` is wanted already. The guest is asked,
        and the device gives back what it has not executed; at the latest after `patience` seconds the pair is void
        (`closed`, with the generation of its last entry), and once nothing of it is at work any more (`drained`)
        redirect is in force. What the guest still puts there comes back unexecuted, until it follows. May be done
        again: a guest that has followed by itself is asked for nothing."""
        async with self._lock(endpoint):
            if endpoint["path"] != "direct":
                closed(await self._plane.close_pair(record, endpoint))
                drained()
                return
            endpoint["wanted"] = "redirect"
            await self._plane.offer_path(record, endpoint)
            recalled = asyncio.create_task(persist(lambda: self._plane.recall(record, endpoint, "direct")))
            await asyncio.wait({recalled}, timeout=patience)
            closed(await self._plane.close_pair(record, endpoint))
            await recalled
            drained()
            before = endpoint["path"]
            await self._settle_rows(record, endpoint, "redirect")
        self._publish(record, endpoint, before, "redirect")

    async def _carry_out(self, record: Record, endpoint: Row, path: str, timeout: float) -> None:
        endpoint["wanted"] = path
        try:
            if not record.attached:
                raise _gone(record)
            followed = await self._offer(record, endpoint, path, timeout)
        except BaseException:
            await self._give_up(record, endpoint)
            raise
        if not followed:
            await self._take_back(record, endpoint)
        await self._settle(record, endpoint, endpoint["path"])
        if endpoint["path"] != path:
            self._publish(record, endpoint, endpoint["path"], path)
            raise HostError(
                "timeout",
                f"{record.name} did not follow to {path} with {endpoint['name']} within {timeout:g} s; "
                f"it stays on {endpoint['path']}",
                path=endpoint["path"],
            )

    async def _offer(self, record: Record, endpoint: Row, path: str, timeout: float) -> bool:
        """Tells the guest and waits for it; endpoint["path"] is what it has gone over to by then."""
        if path == "copy":
            await self._plane.map_memory(record)
        endpoint["path"] = await self._plane.offer_path(record, endpoint)
        deadline = asyncio.get_running_loop().time() + timeout
        while endpoint["path"] != path:
            await self._plane.recall(record, endpoint, endpoint["path"])
            try:
                async with asyncio.timeout_at(deadline):
                    told = await self._waiting[endpoint["generation"]].get()
            except TimeoutError:
                return False
            if told is None:
                raise _gone(record)
            endpoint["path"] = told  # an earlier wish may come true first: then that is the path to leave
        return True

    async def _take_back(self, record: Record, endpoint: Row) -> None:
        """From here on the guest cannot go over; the monitor knows whether it just did. Then that path is offered, or
        the guest would take the old one for a new wish, and go back to it behind our back."""
        for _ in range(TAKE_BACK_MAX):
            offered = endpoint["path"]
            await self._settle_rows(record, endpoint, offered)
            endpoint["path"] = await self._plane.offer_path(record, endpoint)
            if endpoint["path"] == offered:
                break

    async def _give_up(self, record: Record, endpoint: Row) -> None:
        """After a failure that will be told; what cannot be settled now belongs to a guest or a role that has ended."""
        try:
            await self._settle(record, endpoint, endpoint["path"])
        except (RemoteError, HostError):
            endpoint["wanted"] = endpoint["path"]

    async def _settle(self, record: Record, endpoint: Row, path: str) -> None:
        """The change is over and `path` is in force."""
        if record.attached:
            await self._plane.settle(record, endpoint)
        await self._settle_rows(record, endpoint, path)
        if record.attached and not any("copy" in (one["path"], one["wanted"]) for one in record.plan["endpoints"]):
            await self._plane.unmap_memory(record)

    async def _settle_rows(self, record: Record, endpoint: Row, path: str) -> None:
        operation = {"op": "endpoint.path_settle", "partition": record.number, "name": endpoint["name"], "path": path}
        await self._transaction([operation])
        endpoint["path"] = endpoint["wanted"] = path

    def _lock(self, endpoint: Row) -> asyncio.Lock:
        return self._locks.setdefault(endpoint["generation"], asyncio.Lock())

    def _publish(self, record: Record, endpoint: Row, before: str, wanted: str) -> None:
        paths = {"path": endpoint["path"], "before": before, "wanted": wanted}
        self._events.publish("path", partition=record.name, endpoint=endpoint["name"], **paths)


def endpoint_of(record: Record, name: str) -> Row:
    """An endpoint of hostd's plan by its name."""
    endpoints: list[Row] = record.plan.get("endpoints", [])
    for endpoint in endpoints:
        if endpoint["name"] == name:
            return endpoint
    known = ", ".join(endpoint["name"] for endpoint in endpoints) or "none"
    raise HostError("not_found", f"{record.name} has no endpoint {name!r}; known: {known}")


def _gone(record: Record) -> HostError:
    return HostError("state", f"{record.name} has ended; an endpoint changes its path while its guest runs")

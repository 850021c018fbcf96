"""A monitor that follows one that was killed: what it is handed, in which order (design.md sections 2 and 11).

    process with the kernel region -> entries and vectors of the devices -> every partition that the dead one knew
    -> hardware rings -> memory of those on the copy path -> resume: calls are taken
    -> page faults, refused calls, worlds

Nothing here is a decision: the keeper has kept the segments and descriptors, and what the dead monitor had decided
stands in them. Fail closed: until `resume` nothing new is translated.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from hostd import charging, traps, vectors
from hostd.asking import ask
from hostd.events import EventLog
from hostd.fabric import Fabric
from hostd.loading import Loading
from hostd.records import ENDED, Record
from hostd.refusals import Refusals

Row = dict[str, Any]


class Adoption:
    """`schedule(record)` makes a guest or the console a world of its own; `hear_path` takes a path that is in force."""

    def __init__(
        self,
        loading: Loading,
        refusals: Refusals,
        records: dict[str, Record],
        events: EventLog,
        schedule: Callable[[Record], Awaitable[None]],
        hear_path: Callable[[Row], None],
    ) -> None:
        self._loading = loading
        self._fabric: Fabric = loading.fabric
        self._refusals = refusals
        self._records = records
        self._events = events
        self._schedule = schedule
        self._hear_path = hear_path

    async def follow(self, record: Record) -> Row:
        """Starts the next monitor in `record` and has it adopt everything. Seconds: {"start": of its process, "adopt"}.
        An error of whatever failed; the process may live then."""
        begin = time.monotonic()
        await self._loading.start_monitor(record, adopting=True)
        started = time.monotonic()
        await self._tables()
        told = await self._loading.offices.tell_monitor()
        await ask(self._fabric.monitor, "resume", {})
        resumed = time.monotonic()
        await self._loading.offices.see_vacancies(told)
        await self._loading.offices.look()
        living = [one for one in self._records.values() if one.type in ("guest", "console") and one.state not in ENDED]
        failed = await asyncio.gather(*(self._world(one) for one in living), return_exceptions=True)
        for one, error in zip(living, failed, strict=True):
            if error is not None:  # calls are taken: what one partition lacks is no reason to begin again
                self._events.publish("error", partition=one.name, message=f"adoption: {error}")
        return {"start": started - begin, "adopt": resumed - started, "worlds": time.monotonic() - resumed}

    async def _tables(self) -> None:
        fabric = self._fabric
        slots = self._loading.slots
        await asyncio.gather(
            *(fabric.connect_translations(name, slots[name]) for name in fabric.devices),
            *(fabric.connect_server_vectors(server) for server in fabric.servers.values()),
        )
        known = [one for one in self._records.values() if one.opened]
        await asyncio.gather(*(fabric.open(one) for one in known))
        await asyncio.gather(
            *(fabric.route(one) for one in known if one.served),
            *(
                fabric.connect_monitor(server, device, slots[device])
                for server in fabric.servers.values()
                for device in fabric.devices
            ),
            *(fabric.lend_to_monitor(one) for one in known if one.copied),
        )
        if fabric.charging:
            await charging.begin(fabric)

    async def _world(self, record: Record) -> None:
        """What is answered and scheduled beside the calls; and paths that were changed without hostd's having heard."""
        await asyncio.gather(traps.hand_over_again(self._fabric, record), self._refusals.watch_again(record))
        if record.scheduled:
            await self._schedule(record)
        if record.held:  # by hand; a system world that held it let go of it when it died
            await vectors.hold(record, self._fabric.monitor, self._loading.children, True)
        if not record.attached:
            return
        for endpoint in record.plan["endpoints"]:
            if endpoint["wanted"] != endpoint["path"]:
                where = {"partition": record.number, "endpoint": endpoint["index"]}
                path = (await ask(self._fabric.monitor, "path", where))["path"]
                if path != endpoint["path"]:
                    self._hear_path({**where, "path": path})

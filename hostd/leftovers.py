"""What a dead hostd left that no record claims: it had only begun, or had nearly ended (rule 32).

Found by asking, not by what was written down: the keeper for processes and descriptors, devices and I/O partitions for
what is attached, the ultravisor for partitions. Everything here can be done twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

from hostd.asking import ask
from hostd.boot import Boot
from hostd.children import Children
from hostd.errors import HostError
from hostd.notes import PREFIX
from hostd.records import ENDED, Record
from hostd.refusals import Refusals
from hostd.wire import RemoteError, WireError

ROWS_MAX = 500  # of one answer
FAULTS = (HostError, RemoteError, WireError, OSError, EOFError)

Row = dict[str, Any]


class Leftovers:
    """`discard(record)` removes a partition without a process from the database and the data plane; `settle(record,
    queues)` puts right what a guest that lives has."""

    def __init__(
        self,
        boot: Boot,
        children: Children,
        refusals: Refusals,
        discard: Callable[[Record], Awaitable[None]],
        settle: Callable[[Record, list[int]], Coroutine[Any, Any, None]],
    ) -> None:
        self._boot = boot
        self._keeper = boot.keeper
        self._fabric = boot.fabric
        self._records = boot.records
        self._children = children
        self._refusals = refusals
        self._discard = discard
        self._settle = settle

    async def end_strangers(self, processes: Iterable[Row], held: Iterable[str]) -> None:
        """Ends processes that nobody claims, and drops what the keeper knows of them and of their descriptors. Both are
        the keeper's lists from before this hostd began anything: a role that is started again meanwhile is no stranger,
        and its key is there before its record has its process."""
        await asyncio.gather(*(self._children.end_stranger(row) for row in processes))
        known = {f"{record.name}:{record.process}" for record in self._records.values()}
        for key in held:
            owner = ":".join(key.split(":")[:2])
            if not key.startswith(PREFIX) and owner not in known:
                await self._release(key)
            elif owner in known:
                self._refusals.resume(key)

    async def _release(self, key: str) -> None:
        """Whoever started a role again may have done so already."""
        try:
            await self._keeper.release(key)
        except RemoteError as error:
            if error.code != "not_found":
                raise

    async def remove(self) -> list[str]:
        """Takes back what partitions without a record have, and what others have beside their plans. What could not be
        done, in words."""
        try:
            rows = (await self._query("partitions", limit=ROWS_MAX))["partitions"]
            queues = await self._queues()
        except FAULTS as error:
            return [str(error)]
        numbers, existing = {one.number for one in self._records.values()}, {row["id"] for row in rows}
        todo: list[tuple[str, Coroutine[Any, Any, None]]] = [
            (row["name"], self._remove_partition(row, queues)) for row in rows if row["id"] not in numbers
        ]
        recorded = {row["id"]: (row["pid"], row["start_time"]) for row in rows}
        for role in [one for one in self._records.values() if one.type != "guest" and _works(one)]:
            if recorded.get(role.number) not in (None, (role.pid, role.start_ticks)):  # the dead one was about to
                todo.append((role.name, self._boot.record_again(role)))
        for record in [one for one in self._records.values() if one.type == "guest"]:
            if record.number not in existing:
                todo.append((record.name, self._remove_record(record)))
            elif record.exit_status is None:
                todo.append((record.name, self._settle(record, queues.get(record.number, []))))
            else:
                todo.append((record.name, self._detach_rest(record, queues.get(record.number, []))))
        kinds = {device.name: device.kind for device in self._boot.manifest.devices}
        nics = {name: one for name, one in self._fabric.devices.items() if kinds[name] == "nic"}
        todo.append(("wires", self._fabric.wiring.compare(nics)))
        problems: list[str] = []
        for name, work in todo:
            try:
                await work
            except FAULTS as error:
                problems.append(f"{name}: {error}")
        return problems

    async def _remove_record(self, record: Record) -> None:
        """The earlier hostd had removed its rows, and not yet its note."""
        await self._fabric.detach(record)
        await self._discard(record)

    async def _remove_partition(self, row: Row, queues: dict[int, list[int]]) -> None:
        """As if its spawn had failed."""
        plan = (await self._query("partition", partition=row["id"]))["partition"]
        record = Record(row["name"], row["type"], number=row["id"], plan=plan, attached=True)
        record.queues = queues.get(row["id"], [])
        await self._fabric.detach(record)
        if row["state"] not in ENDED:
            await self._boot.transaction([{"op": "partition.state", "partition": row["id"], "state": "failed"}])
        await self._discard(record)

    async def _detach_rest(self, record: Record, queues: list[int]) -> None:
        """One that has ended may have been getting an endpoint, which its note does not know: by the database and the
        I/O partitions once more."""
        record.plan = (await self._query("partition", partition=record.number))["partition"]
        record.queues, record.attached = queues, True
        await self._fabric.detach(record)

    async def _query(self, what: str, **more: int) -> Row:
        return await ask(self._records["command"], "query", {"what": what, **more})

    async def _queues(self) -> dict[int, list[int]]:
        """Numbers of queues at the I/O partitions, by partition."""
        found: dict[int, set[int]] = {}
        for server in list(self._fabric.servers.values()):
            if server.exit_status is None:
                for row in (await ask(server, "queues", {}))["queues"]:
                    found.setdefault(row["partition"], set()).add(row["number"])
        return {partition: sorted(numbers) for partition, numbers in found.items()}


def _works(role: Record) -> bool:
    absent = role.absence is not None and role.absence.absent
    return role.exit_status is None and role.state == "running" and not absent

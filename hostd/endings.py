"""How the process of a partition is ended: asked first, killed after a while, out of the data plane at the return."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from typing import Any

from hostd.children import Children
from hostd.errors import HostError
from hostd.records import ENDED, Record
from hostd.wire import RemoteError


class Endings:
    """Part of the supervisor, which owns what is named here without a value."""

    _children: Children
    _changed: asyncio.Condition

    async def _transaction(self, operations: Sequence[dict[str, Any]]) -> Sequence[Any]:
        raise NotImplementedError

    async def _notify(self, kind: str, record: Record, **more: Any) -> None:
        raise NotImplementedError

    async def _until_ended(self, record: Record) -> None:
        raise NotImplementedError

    async def _terminate(self, record: Record, timeout: float) -> None:
        """SIGTERM, SIGKILL after `timeout` seconds; returns when the guest is out of the data plane."""
        if record.pid is None:
            raise HostError("state", f"{record.name} has no process yet: it is being started")
        if not record.stop_asked and record.exit_status is None:
            record.stop_asked = True
            try:
                await self._stopping(record)
            except BaseException:
                record.stop_asked = False
                raise
        await self._end_process(record, timeout)

    async def _end_process(self, record: Record, timeout: float) -> None:
        self._children.signal(record, signal.SIGTERM)
        try:
            async with asyncio.timeout(timeout):
                await self._until_ended(record)
        except TimeoutError:
            self._children.signal(record, signal.SIGKILL)
            await self._until_ended(record)
        async with self._changed:
            await self._changed.wait_for(lambda: record.state in ENDED)

    async def _stopping(self, record: Record) -> None:
        """The guest may end by itself meanwhile: then its end is its state."""
        try:
            await self._transaction([{"op": "partition.state", "partition": record.number, "state": "stopping"}])
        except RemoteError as error:
            # Without the database a guest can still be ended.
            if record.exit_status is None and error.code != "unreachable":
                raise
        if record.exit_status is None:
            record.state = "stopping"
            await self._notify("stopping", record)

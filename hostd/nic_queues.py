"""NICs with several queue pairs: each pair is an endpoint of its own, and the first one has its name and address.

`eth0` with four is the endpoints eth0, eth0-q1, eth0-q2 and eth0-q3. The device spreads frames over those in use
by their flow. A change of their number waits until the guest has taken what was delivered, so a flow keeps its order:

    device holds frames back -> its completions are taken -> the channel server's are, too -> other pairs are used

A guest that does not take its frames in time makes the change fail, and everything stays as it was.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from hostd.errors import HostError
from hostd.events import EventLog
from hostd.fabric import Fabric, ask
from hostd.notes import Noting
from hostd.path_changes import PathChanges
from hostd.queue_pairs import pairs_of
from hostd.records import Record
from hostd.wire import RemoteError

POLL = 0.001  # seconds between two looks at what the guest has taken
GRACE = 1.0  # seconds beyond the guest's time: the device goes on by itself when hostd does not tell it to

Row = dict[str, Any]


class NicQueues(Noting):
    """Part of the supervisor."""

    events: EventLog
    fabric: Fabric
    _paths: PathChanges

    def _record(self, name: str) -> Record:
        raise NotImplementedError

    async def _change_paths(
        self, record: Record, name: str, path: str, timeout: float, *, key: str | None, actor: str
    ) -> Row:
        """All queue pairs of an endpoint, one after the other: each goes over by itself while the others work."""
        begin = time.monotonic()
        answers = [
            await self._paths.change(
                record, one["name"], path, timeout, key=f"{key}.{number}" if key and number else key, actor=actor
            )
            for number, one in enumerate(pairs_of(record, name))
        ]
        return {**answers[0], "seconds": time.monotonic() - begin}

    async def set_queues(self, name: str, nic: str, count: int, timeout: float) -> Row:
        """{"partition", "endpoint", "queues", "before", "made", "seconds"} once frames go to `count` of its pairs."""
        begin = time.monotonic()
        record = self._record(name)
        pairs = pairs_of(record, nic)
        lead = pairs[0]
        if lead["kind"] != "nic" or not record.attached:
            raise HostError("state", f"{name}: {nic} is no NIC of a partition that runs")
        if not 1 <= count <= len(pairs):
            text = f"{name}: {nic} was made with {len(pairs)} queue pairs; {count} cannot be used"
            raise HostError("invalid", f"{text}. `--nic {nic},queues={count}` when it is made gives it so many")
        device = self.fabric.devices[lead["device"]]
        try:
            async with self._paths.unchanged(record, pairs):
                before = (await ask(device, "flows", {"port": lead["port"]}))["queues"]
                if count != before:
                    await self._spread(record, pairs, count, before, timeout)
                    lead["queues_used"] = count  # the device's next process is told, and the next hostd
                    await self.note(record)
        except RemoteError as error:
            raise HostError(error.code, f"{name}: {error.message}", **error.details) from error
        self.events.publish("queues", partition=name, endpoint=nic, queues=count, before=before)
        facts = {"partition": name, "endpoint": nic, "queues": count, "before": before, "made": len(pairs)}
        return {**facts, "seconds": time.monotonic() - begin}

    async def _spread(self, record: Record, pairs: list[Row], count: int, before: int, timeout: float) -> None:
        device, port = self.fabric.devices[pairs[0]["device"]], pairs[0]["port"]
        deadline = time.monotonic() + timeout
        await ask(device, "hold_flows", {"port": port, "seconds": timeout + GRACE})
        then = before
        try:
            while not await self._taken(record, pairs):
                if time.monotonic() > deadline:
                    text = f"did not take its frames within {timeout:g} s; {before} queue pairs stay in use"
                    raise HostError("timeout", f"{record.name} {text}", queues=before)
                await asyncio.sleep(POLL)
            then = count
        finally:
            if record.attached:
                await ask(device, "spread_flows", {"port": port, "queues": then})

    async def _taken(self, record: Record, pairs: list[Row]) -> bool:
        """In this order: what the device gave the channel server is there before the server is asked."""
        if not record.attached:
            raise HostError("state", f"{record.name} has ended")
        device = self.fabric.devices[pairs[0]["device"]]
        if not (await ask(device, "flows_taken", {"port": pairs[0]["port"]}))["taken"]:
            return False
        for endpoint in pairs:
            numbers = record.served.get(endpoint["generation"], [])
            if numbers and not await self.fabric.taken(endpoint["server"], numbers):
                return False
        return True

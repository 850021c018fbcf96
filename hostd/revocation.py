"""Memory that is taken from a running guest, with deadline and receipt (U5, A3; design.md section 3; rules 24 to 26).

    decided (command), `revoking` in database and partition map -> monitor: nothing is translated there any more, queue
    pairs included -> each device: what waits is refused, what is at work ends -> `drained` -> the pages go back to the
    kernel -> `revoked`: nobody reaches the old ones -> `freed`

A holder that has not let go by the deadline leaves the range in `quarantine`: the receipt says so, and whose. It is
freed when that holder has let go, or its process has ended (pidfd), whenever that is; nothing of it is granted before.

What the kernel may still carry for a device that died, past the page cache, goes into pages that it holds by itself:
they left the segment when its pages were dropped, and are free when the kernel is done. So no byte of the range changes
by it, and no tenant ever gets such a page earlier.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from dataclasses import dataclass, field

from hostd.errors import HostError
from hostd.fabric import ask
from hostd.hotplug import DRAIN_POLL, HotPlug, Row
from hostd.receipts import Receipt, refused, undecided
from hostd.records import ENDED, Record
from hostd.told import revoked_of
from hostd.urgency import Urgency
from hostd.wire import RemoteError, WireError, close_fds
from pyx.segment import drop_pages

DEADLINE = 1.0  # seconds that the holders of a range have by default
DEADLINE_MIN, DEADLINE_MAX = 0.001, 60.0
LOOK_AGAIN = 0.01  # seconds between two looks whether a device that does not answer still lives
STEP = 4 << 20  # bytes dropped or allocated in one go: about a millisecond of this loop


@dataclass(kw_only=True)
class Revocation(Receipt):
    """One range; its generation is that of the partition map since which nothing there is translated."""

    kind: str = "memory"
    offset: int
    size: int
    pieces: list[Row]
    closed: int = 0  # queue pairs whose entry could not hold the pieces
    settling: asyncio.Lock = field(default_factory=asyncio.Lock)

    def subject(self) -> Row:
        return {"offset": self.offset, "size": self.size, "closed": self.closed}

    def memory(self) -> list[Row]:
        """As devices are told."""
        return [{"hpa": piece["hpa"], "size": piece["size"]} for piece in self.pieces]


class Revoking(HotPlug):
    """Part of the supervisor."""

    _urgency: Urgency

    async def revoke_memory(
        self, name: str, offset: int, size: int, deadline: float, *, key: str | None, actor: str
    ) -> Row:
        """The receipt of a range (bytes, whole pages) of a running guest's memory."""
        begin = time.monotonic()
        with self._urgency.raised():
            return await self._revoke(self._holding(name), offset, size, deadline, begin, key, actor)

    async def _revoke(
        self, record: Record, offset: int, size: int, deadline: float, begin: float, key: str | None, actor: str
    ) -> Row:
        subject = {"partition": record.name, "gpa": offset, "size": size}
        message = {**subject, "actor": actor, **({"key": key} if key else {})}
        answer = await self._decided(record, "revoke", message, deadline)
        change = answer["change"]
        found = record.revocations.get(offset)
        if found is None or found.generation != change["generation"]:
            if answer["replayed"]:
                change["state"] = await self._state_since(record, offset, change["generation"])
            found = Revocation(offset=offset, size=size, pieces=change["pieces"], generation=change["generation"],
                               begin=begin, state=change["state"])  # fmt: skip
            row = {"gpa": offset, "size": size, "generation": found.generation}
            record.plan["revoked"] = [*(one for one in record.plan["revoked"] if one["gpa"] != offset), row]
            self._begin_taking(record, found)
        found.decision = answer["decision"]
        if not await found.settled(record, deadline, begin):
            await self._settle(record, found, "quarantine")
        return self._issue(record, found, deadline, begin, actor)

    async def _state_since(self, record: Record, offset: int, generation: int) -> str:
        """What came of an earlier revocation, maybe another hostd's: its key must not take what was granted again."""
        for row in (await self._plan(record))["revoked"]:
            if row["gpa"] == offset and row["generation"] == generation:
                return str(row["state"])
        raise HostError("state", f"{record.name}: what this key has revoked at {offset} was granted again since")

    def _begin_taking(self, record: Record, found: Revocation) -> None:
        record.revocations[found.offset] = found
        if found.state == "freed":  # by an earlier hostd, which had the times
            found.task = asyncio.create_task(asyncio.sleep(0))
            return
        devices = sorted({end["device"] for end in record.plan["endpoints"]})
        found.hold([self.fabric.monitor, *(self.fabric.devices[device] for device in devices)])
        found.reach("revoking")
        found.task = asyncio.create_task(self._take(record, found))

    def _issue(self, record: Record, found: Receipt, deadline: float, begin: float, actor: str) -> Row:
        """The receipt, as whoever asked for it gets it."""
        seconds, row = time.monotonic() - begin, found.row(record, self.fabric.roles())
        subject = {name: value for name, value in found.subject().items() if name != "closed"}
        self.events.publish("revoked", partition=record.name, **subject, state=found.state, actor=actor)
        return {**row, "deadline": deadline, "time": time.time(), "seconds": seconds}

    def resume_revocations(self, record: Record) -> None:
        """What an earlier hostd had begun to take of a guest's memory goes on."""
        for row in record.plan["revoked"]:
            if row["state"] != "freed":
                pieces = revoked_of(record, [row])
                self._begin_taking(record, Revocation(
                    offset=row["gpa"], size=row["size"], pieces=pieces, generation=row["generation"],
                    begin=time.monotonic(), state=row["state"],
                ))  # fmt: skip

    async def grant_memory(self, name: str, offset: int, *, key: str | None, actor: str) -> Row:
        """Gives a revoked range back, full of zeroes."""
        begin, record = time.monotonic(), self._holding(name)
        with self._urgency.raised():
            return await self._grant(record, offset, begin, key, actor)

    async def _grant(self, record: Record, offset: int, begin: float, key: str | None, actor: str) -> Row:
        row = next((one for one in (await self._plan(record))["revoked"] if one["gpa"] == offset), None)
        if row is not None and row["state"] == "freed":
            await self._renew(record, offset, row["size"], allocate=True)
        message = {"partition": record.name, "gpa": offset, "actor": actor} | ({"key": key} if key else {})
        answer = await self._decided(record, "grant", message, DEADLINE_MAX)
        for device in sorted({end["device"] for end in record.plan["endpoints"]}):  # one that came since has bars left
            with suppress(RemoteError):
                await ask(self.fabric.devices[device], "revoke", {"memory": revoked_of(record)})
        await ask(self.fabric.monitor, "retranslate", {"partition": record.number})
        record.revocations.pop(offset, None)
        record.plan["revoked"] = [one for one in record.plan["revoked"] if one["gpa"] != offset]
        change = answer["change"]
        self.events.publish("granted", partition=record.name, offset=offset, size=change["size"], actor=actor)
        return {
            "name": record.name, "offset": offset, "size": change["size"], "generation": change["generation"],
            "decision": answer["decision"], "seconds": time.monotonic() - begin,
        }  # fmt: skip

    # ---- steps ----

    def _holding(self, name: str) -> Record:
        record = self._record(name)
        if record.type != "guest" or not record.attached and record.state not in ENDED:
            raise HostError("state", f"{name} is no running guest: it is {record.type}, {record.state}")
        return record

    async def _decided(self, record: Record, op: str, message: Row, deadline: float) -> Row:
        try:
            async with asyncio.timeout(deadline):
                return await ask(self.records["command"], op, message)
        except TimeoutError:
            raise undecided(record, deadline) from None
        except RemoteError as error:
            raise refused(record, error) from error

    async def _take(self, record: Record, found: Revocation) -> None:
        """All of it, however long a holder takes."""
        await self._translate(record, found)
        devices = [name for name in found.holders if name != "monitor"]
        await asyncio.gather(*(self._drain(record, found, self.fabric.devices[name]) for name in devices))
        found.reach("drained")
        # Where the guest's touches trap there must be pages: there is no trap for one that does not exist.
        await self._renew(record, found.offset, found.size, allocate=record.spec.trap_memory)
        found.reach("revoked")
        await self._settle(record, found, "freed")

    async def _translate(self, record: Record, found: Revocation) -> None:
        """The monitor, or the one that follows it, which shows first what the dead one had decided."""
        with suppress(RemoteError):  # it is given up, or the guest has ended: with it all that was translated for it
            answer = await ask(self.fabric.monitor, "retranslate", {"partition": record.number}, timeout=None)
            found.closed = answer["closed"]
        found.let_go(self.fabric.monitor)

    async def _drain(self, record: Record, found: Revocation, device: Record) -> None:
        """Until nothing there is at work at a device, or its process has ended; the next one bars the range before it
        takes anything off a ring (hostd.device_life)."""
        process = device.process
        while device.process == process and device.exit_status is None and record.attached:
            asked = asyncio.create_task(ask(device, "revoke", {"memory": found.memory()}, timeout=None))
            while not asked.done() and device.process == process and device.exit_status is None:
                await asyncio.wait({asked}, timeout=LOOK_AGAIN)
            if not asked.done():
                asked.cancel()
                break
            with suppress(RemoteError):
                if asked.result()["left"] == 0:
                    break
            await asyncio.sleep(DRAIN_POLL)
        found.let_go(device)

    async def _renew(self, record: Record, gpa: int, size: int, allocate: bool) -> None:
        """The pages of a range go back to the kernel; with `allocate` others come, full of zeroes (rule 1)."""
        for extent in record.plan["memory"]:
            first, end = max(gpa, extent["gpa"]), min(gpa + size, extent["gpa"] + extent["size"])
            if first >= end:
                continue
            (fd,) = await self.keeper.get_segments([extent["segment"]])
            try:
                for at in range(first - extent["gpa"], end - extent["gpa"], STEP):
                    part = min(STEP, end - extent["gpa"] - at)
                    drop_pages(fd, at, part)
                    if allocate:
                        os.posix_fallocate(fd, at, part)
                    await asyncio.sleep(0)
            except OSError as error:
                raise HostError("conflict", f"{record.name}: {size} bytes of memory: {error.strerror}") from error
            finally:
                close_fds([fd])

    async def _settle(self, record: Record, found: Revocation, state: str) -> None:
        """What came of it is on record. One that is freed stays so."""
        async with found.settling:
            if found.state in ("freed", state):
                return
            operation = {"op": "memory.settle", "partition": record.number, "gpa": found.offset, "state": state}
            with suppress(RemoteError, WireError):  # a guest that was removed meanwhile has no rows
                await self._transaction([operation])
            found.state = state
            found.reach(state)

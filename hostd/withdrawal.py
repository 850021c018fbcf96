"""Endpoints and channels that are taken from a running guest, with deadline and receipt (U5, A3; rules 24 to 26).

    endpoint   decided -> `revoking`: the monitor has closed its queue pair and its path -> the device has dropped
               what it had, the channel server has given it back: `drained` -> nobody but the guest maps any of it:
               `revoked` -> its rows are gone, name, number and port are free: `freed`       (hostd.hotplug does it)
    vda        its queue pair to the device: decided -> `revoking`: the guest is asked for the path `redirect`, the
               device gives back what is unexecuted -> the monitor has closed the entry, whether the guest followed
               or not, and the device has ended what was at work: `drained` -> `freed`       (hostd.path_changes)
    @calls     its call ring: every call is refused from then on                      (one word of the monitor)

A holder that has not let go by the deadline leaves the state `quarantine`: the receipt says whose it is, the work goes
on, and the state is `freed` once that holder has let go or its next process has found nothing of it left. The guest
need not agree to anything: one that is stopped or dies makes no difference.

A hostd that follows a killed one ends what that one had begun: decision and note come before the first act.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass

from hostd.asking import ask
from hostd.errors import HostError
from hostd.hotplug import Row, single
from hostd.manifest import with_path
from hostd.path_changes import PathChanges, endpoint_of
from hostd.receipts import Receipt, refused
from hostd.records import Record
from hostd.revocation import Revoking
from hostd.wire import RemoteError

CALLS = "@calls"
ASKING = 0.5  # part of the deadline that the device gets to give back by itself, before the monitor closes the pair
KEPT = 32  # receipts of endpoints and channels that hostd remembers of a guest


@dataclass(kw_only=True)
class Withdrawal(Receipt):
    """Of an endpoint, or of the channel of that name. `earlier`: the one before of the same."""

    what: str
    earlier: Withdrawal | None = None

    def repeat(self) -> None:
        """Of a decision that was carried out before: freed, and all that is known of it."""
        if self.earlier is not None and self.earlier.decision == self.decision:
            for name in ("generation", "holders", "processes", "ended", "stages"):
                setattr(self, name, getattr(self.earlier, name))
        self.earlier = None
        self.state = "freed"
        self.stages.setdefault("freed", self.since())

    def subject(self) -> Row:
        return {self.kind: self.what}


class Withdrawing(Revoking):
    """Part of the supervisor."""

    _paths: PathChanges

    async def revoke_endpoint(self, name: str, endpoint: str, deadline: float, *, key: str | None, actor: str) -> Row:
        """The receipt of an endpoint of a running guest."""
        begin, record = time.monotonic(), self._running(name)
        return await self._withdraw(record, "endpoint", endpoint, deadline, begin, key, actor)

    async def revoke_channel(self, name: str, channel: str, deadline: float, *, key: str | None, actor: str) -> Row:
        """The receipt of a channel of a running guest: the queue pair of an endpoint, or its call ring (CALLS)."""
        begin, record = time.monotonic(), self._holding(name)
        return await self._withdraw(record, "channel", channel, deadline, begin, key, actor)

    async def grant_channel(self, name: str, channel: str, *, key: str | None, actor: str) -> Row:
        """The guest may make system calls again."""
        begin, record = time.monotonic(), self._holding(name)
        if channel != CALLS:
            text = f"{name}: a queue pair comes back with its path: `hostctl path {name} {channel} direct`"
            raise HostError("unsupported", text)
        if not record.silent:
            raise HostError("state", f"nothing of {name} is revoked at {CALLS}")
        with self._urgency.raised():
            answer = await self._asked(record, "grant_calls", key, actor)
            await self._silence(record, False)
        self.events.publish("granted", partition=name, channel=CALLS, actor=actor)
        return {
            "name": name, "channel": CALLS, "generation": record.silences, "decision": answer["decision"],
            "seconds": time.monotonic() - begin,
        }  # fmt: skip

    def receipts(self, record: Record) -> list[Row]:
        """What was taken from a guest, and is being taken, as far as this hostd knows."""
        known: list[Receipt] = [*record.revocations.values(), *record.withdrawals.values()]
        return [one.row(record, self.fabric.roles()) for one in known if one.stages]

    def resume_withdrawals(self, record: Record) -> None:
        """A queue pair that an earlier hostd had begun to take: it goes on, unless the endpoint has gone or was given
        another path since. An endpoint has gone by now (hotplug)."""
        begun = record.cutting
        if begun is None:
            return
        endpoint = next((one for one in record.plan["endpoints"] if one["name"] == begun["endpoint"]), None)
        if endpoint is None or endpoint["wanted"] != "redirect":
            record.cutting = None
            return
        found = self._begin(record, "channel", begun["endpoint"], time.monotonic())
        found.decision = begun["decision"]
        found.task = asyncio.create_task(self._cut(record, endpoint, found, 0.0))
        found.task.add_done_callback(_heard)

    # ---- steps ----

    async def _withdraw(
        self, record: Record, kind: str, what: str, deadline: float, begin: float, key: str | None, actor: str
    ) -> Row:
        found = record.withdrawals.get(f"{kind} {what}")
        if found is None or found.task is None or found.task.done():
            found = self._begin(record, kind, what, begin)
            taking = {"endpoint": self._take_endpoint, "channel": self._take_pair}
            work = self._take_calls if (kind, what) == ("channel", CALLS) else taking[kind]
            found.task = asyncio.create_task(work(record, found, deadline, key, actor))
            found.task.add_done_callback(_heard)
        try:
            with self._urgency.raised():
                if not await found.settled(record, deadline, begin):
                    found.state = "quarantine"
                    found.reach("quarantine")
        except RemoteError as error:
            if not record.attached:
                raise HostError("state", f"{record.name} has ended, and {what} has gone with it") from error
            raise refused(record, error) from error
        return self._issue(record, found, deadline, begin, actor)

    def _begin(self, record: Record, kind: str, what: str, begin: float) -> Withdrawal:
        earlier = record.withdrawals.pop(f"{kind} {what}", None)
        found = Withdrawal(kind=kind, what=what, begin=begin, earlier=earlier)
        record.withdrawals[f"{kind} {what}"] = found
        while len(record.withdrawals) > KEPT:
            record.withdrawals.pop(next(iter(record.withdrawals)))
        return found

    async def _take_endpoint(
        self, record: Record, found: Withdrawal, _deadline: float, key: str | None, actor: str
    ) -> None:
        async with self._plugging:
            endpoint = next((one for one in record.plan["endpoints"] if one["name"] == found.what), None)
            single(record, found.what)
            answer = await self._decide_detach(record, endpoint or {"name": found.what}, key, actor)
            found.decision = answer["decision"]
            if answer["replayed"] or endpoint is None:  # another one of that name may have come since
                found.generation = await self._generation_taken(answer["decision"])
                found.repeat()
                return
            found.generation = endpoint["generation"]
            server = [] if endpoint["server"] is None else [self.fabric.servers[endpoint["server"]]]
            device = self.fabric.devices[endpoint["device"]]
            found.hold([self.fabric.monitor, device, *server])
            found.reach("revoking")

            def let_go(role: Record) -> None:
                found.let_go(role)
                if role is (server or [device])[-1]:
                    found.reach("drained")

            await self.take_endpoint(record, endpoint, answer["decision"], let_go)
            found.reach("revoked")
            self._free(record, found, actor=actor)

    async def _generation_taken(self, decision: int) -> int:
        """Of the endpoint that an earlier decision took."""
        (row,) = (await ask(self.records["command"], "explain", {"decision": decision}))["records"]
        return int((row["detail"] or {}).get("generation", 0))

    async def _take_calls(
        self, record: Record, found: Withdrawal, _deadline: float, key: str | None, actor: str
    ) -> None:
        answer = await self._asked(record, "revoke_channel", key, actor)
        found.decision = answer["decision"]
        if answer["replayed"]:
            if not record.silent:
                raise _granted_since(record, CALLS)
            found.generation = record.silences
            found.repeat()
            return
        found.hold([self.fabric.monitor])
        found.reach("revoking")
        await self._silence(record, True)
        found.generation = record.silences
        found.let_go(self.fabric.monitor)
        found.reach("drained")
        self._free(record, found)

    async def _take_pair(
        self, record: Record, found: Withdrawal, deadline: float, key: str | None, actor: str
    ) -> None:
        endpoint = endpoint_of(record, found.what)
        if record.cutting is not None or endpoint["wanted"] != endpoint["path"]:
            raise HostError("conflict", f"{record.name}: the path of {found.what} is being changed")
        answer = await self._asked(record, "revoke_channel", key, actor, endpoint=found.what)
        found.decision = answer["decision"]
        if answer["replayed"] and endpoint["path"] == "direct":
            raise _granted_since(record, found.what)
        if answer["replayed"]:
            found.repeat()
            return
        record.cutting = {"endpoint": found.what, "decision": answer["decision"]}
        await self.note(record)
        await self._cut(record, endpoint, found, ASKING * deadline)

    async def _cut(self, record: Record, endpoint: Row, found: Withdrawal, patience: float) -> None:
        device = self.fabric.devices[endpoint["device"]]
        found.hold([self.fabric.monitor, device])
        found.reach("revoking")

        def closed(generation: int) -> None:
            found.generation = generation
            found.let_go(self.fabric.monitor)

        def drained() -> None:
            found.let_go(device)
            found.reach("drained")

        await self._paths.cut(record, endpoint, patience, closed, drained)
        record.cutting = None
        record.spec = with_path(record.spec, endpoint["name"], endpoint["path"])
        await self.note(record)
        self._free(record, found)

    async def _silence(self, record: Record, on: bool) -> None:
        """From the answer on no call of the guest is carried out, or they are again."""
        if record.silent != on:
            record.silent, record.silences = on, record.silences + 1
        await self.note(record)
        await ask(self.fabric.monitor, "silence", {"partition": record.number, "on": on}, timeout=None)

    async def _asked(self, record: Record, op: str, key: str | None, actor: str, **more: str) -> Row:
        message = {"partition": record.name, "actor": actor, **more}
        return await ask(self.records["command"], op, {**message, "key": key or secrets.token_hex(12)})

    def _free(self, record: Record, found: Withdrawal, **told: str) -> None:
        found.earlier = None
        found.state = "freed"
        found.reach("freed")
        if "quarantine" in found.stages:  # whoever asked has had a receipt that says so
            self.events.publish("revoked", partition=record.name, **found.subject(), state=found.state, **told)


def _granted_since(record: Record, what: str) -> HostError:
    return HostError("state", f"{record.name}: what this key has revoked, {what}, was granted again since")


def _heard(task: asyncio.Task[None]) -> None:
    """Whoever asked may be gone by the time that it fails."""
    with suppress(asyncio.CancelledError):
        task.exception()

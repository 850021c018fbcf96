"""Queues of endpoints at their I/O partitions, which both seats of an office know by the same numbers (U12)."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import suppress
from typing import Any

from hostd.asking import ask, release
from hostd.errors import HostError
from hostd.records import Record
from hostd.told import of_queues
from hostd.wire import RemoteError

FORGET_SECONDS, FORGET_PERIOD = 5.0, 0.005  # for somebody to serve an office again; between two questions


class Queues:
    """Part of the fabric: the I/O partitions, and what is told to whom of them."""

    def __init__(self) -> None:
        self.servers: dict[str, Record] = {}  # I/O partitions, in the order of their seats
        self.serving: dict[str, int] = {}  # office -> seat, as the monitor said last
        self._numbers: dict[str, set[int]] = {}  # office -> numbers of its queues

    def number_queues(self, record: Record, endpoint: dict[str, Any]) -> None:
        """Gives each queue of an endpoint a number that no other one of its office has."""
        taken = self._numbers.setdefault(endpoint["server"], set())
        free = (number for number in itertools.count() if number not in taken)
        numbers = list(itertools.islice(free, len(endpoint["queues"])))
        taken.update(numbers)
        record.served[endpoint["generation"]] = numbers
        record.queues += numbers

    def restore_numbers(self, records: list[Record]) -> None:
        """What an earlier hostd had given out."""
        for record in records:
            for endpoint in record.plan.get("endpoints", ()):
                numbers = record.served.get(endpoint["generation"], [])
                if numbers:
                    self._numbers.setdefault(endpoint["server"], set()).update(numbers)

    async def add_queues(self, record: Record, endpoints: list[dict[str, Any]], fds: list[int]) -> None:
        """Descriptors: events segment, then channel and ledger of each queue in turn. The seat that serves opens what
        both share, so it is told first; one that is being started is told when it is there."""
        for process in self.seated(endpoints[0]["server"]):
            await self.tell_queues(process, record, endpoints, fds)

    async def tell_queues(
        self, process: Record, record: Record, endpoints: list[dict[str, Any]], fds: list[int],
        served: dict[int, list[int]] | None = None,
    ) -> None:  # fmt: skip
        """`served`: the numbers as they were when `endpoints` were chosen; whoever takes some away asks later."""
        numbers = record.served if served is None else served
        queues = [
            {**queue, "number": number}
            for endpoint in endpoints
            for queue, number in zip(of_queues(endpoint), numbers[endpoint["generation"]], strict=True)
        ]
        office = self.servers[endpoints[0]["server"]].number
        await ask(process, "add_queues", {"office": office, "partition": record.number, "queues": queues}, fds)

    async def remove_queues(self, record: Record, server: str, numbers: list[int]) -> None:
        """Those that are the partition's still: what a hostd that was killed had taken back may be another's by now."""
        message = {"office": self.servers[server].number, "partition": record.number, "queues": numbers}
        others: set[int] = set()
        for process in self.seated(server):
            others.update((await release(process, "remove_queues", message)).get("others", ()))
        free = set(numbers) - others
        self._numbers.setdefault(server, set()).difference_update(free)  # they may be an earlier hostd's alone

    async def forget_queues(self, record: Record) -> None:
        """All of a partition."""
        if record.queues:
            numbers, record.queues, record.served = record.queues, [], {}  # a process that follows is not told any more
            await self.remove_queues(record, record.plan["endpoints"][0]["server"], numbers)

    async def forget_rows(self, record: Record) -> None:
        """Frees the rows of its queues. They have one writer, the seat that serves: where nobody does, whoever serves
        next is asked, for FORGET_SECONDS at most."""
        office = self.servers[record.plan["endpoints"][0]["server"]].number
        with suppress(TimeoutError):
            async with asyncio.timeout(FORGET_SECONDS):
                while seated := self.seated(record.plan["endpoints"][0]["server"]):
                    for process in seated:
                        with suppress(RemoteError):
                            answer = await ask(process, "forget", {"partition": record.number})
                            if office in answer["forgotten"]:
                                return
                    await asyncio.sleep(FORGET_PERIOD)

    async def in_flight(self, server: str, numbers: list[int]) -> int:
        """Requests in the ledgers of these queues, as any seat sees them."""
        message = {"office": self.servers[server].number, "queues": numbers}
        for process in self.seated(server):
            with suppress(RemoteError):
                return int((await ask(process, "in_flight", message))["in_flight"])
        return 0

    async def taken(self, server: str, numbers: list[int]) -> bool:
        """Have the guests taken all completions of these queues? The seat that serves knows; nobody does in between."""
        message = {"office": self.servers[server].number, "queues": numbers}
        seated = self.seated(server)
        if not seated:
            raise HostError("state", f"nobody serves {server}: both I/O partitions are given up")
        return bool((await ask(seated[0], "taken", message))["taken"])

    def seated(self, server: str) -> list[Record]:
        """The processes that have a seat of an office, or will have; the one that serves it comes first."""
        processes = list(self.servers.values())
        first = self.serving.get(server, 0)
        living = processes[first:] + processes[:first]
        return [one for one in living if one.absence is None or not one.absence.given_up]

    def lightest(self) -> tuple[str, str]:
        """(primary, standby) of the next partition: each I/O partition is to serve half of the endpoints. One that is
        not started again is nobody's primary. HostError `state` where there is none."""
        if not self.servers:
            raise HostError("state", "there is no I/O partition")
        lost = {name for name, one in self.servers.items() if one.absence is not None and one.absence.given_up}
        names = sorted(self.servers, key=lambda name: (name in lost, len(self._numbers.get(name, ()))))
        return names[0], names[-1]

"""The ultravisor's parts in one process, with a keeper that keeps nothing but its word.

`FakeKeeper` answers as the real one does, from a dictionary; views and maps are real memory, so that tests read
what was published. `Host` is a resource database with its machinery and the partitions that every host has.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from partitions.messages import Fields, Refusal
from partitions.ultravisor import checker, queries, reconcile
from partitions.ultravisor.database import Database
from partitions.ultravisor.transactions import Transactions
from partitions.ultravisor.views import Views
from pyx.view import ViewReader

MIB = 1 << 20
MAPPED = ("view", "map")  # kinds that the ultravisor maps


class FakePending:
    def __init__(self, keeper: FakeKeeper, requests: Sequence[dict[str, Any]]) -> None:
        self._keeper = keeper
        self._requests = list(requests)
        self.ids: list[int] = []
        self.fds: list[int] = []

    def finish(self) -> None:
        if self._keeper.fails:
            raise Refusal("internal", "keeper: told to fail")
        for request in self._requests:
            segment = self._keeper.make(request)
            self.ids.append(segment)
            self.fds.append(os.dup(self._keeper.memory[segment]) if request["kind"] in MAPPED else -1)

    def take(self, number: int) -> int:
        descriptor, self.fds[number] = self.fds[number], -1
        return descriptor

    def abandon(self) -> None:
        self._keeper.drop(self.ids)
        self.close()

    def close(self) -> None:
        for descriptor in self.fds:
            if descriptor >= 0:
                os.close(descriptor)
        self.fds = []


class FakeKeeper:
    """`fails`: creation fails; `silent`: drops are refused, as by a keeper that does not answer."""

    def __init__(self) -> None:
        self.segments: dict[int, dict[str, Any]] = {}
        self.memory: dict[int, int] = {}  # descriptors of mapped kinds
        self.processes: list[dict[str, Any]] = []
        self.fails = self.silent = False
        self._numbers = itertools.count(1)

    def make(self, request: dict[str, Any]) -> int:
        segment = 1 << 16 | next(self._numbers)
        self.segments[segment] = {"id": segment, **request}
        if request["kind"] in MAPPED:
            self.memory[segment] = os.memfd_create(request["kind"])
            os.ftruncate(self.memory[segment], request["size"])
        return segment

    def begin_create(self, requests: Sequence[dict[str, Any]]) -> FakePending:
        return FakePending(self, requests)

    def descriptors(self, segments: Sequence[int]) -> list[int]:
        return [os.dup(self.memory[segment]) for segment in segments]

    def drop(self, segments: Sequence[int]) -> None:
        if self.silent and segments:
            raise Refusal("timeout", "keeper: told to be silent")
        for segment in segments:
            if self.segments.pop(segment, None) is not None and segment in self.memory:
                os.close(self.memory.pop(segment))

    def own_segments(self) -> dict[int, dict[str, Any]]:
        return {segment: row for segment, row in self.segments.items() if row["label"].startswith("ultravisor:")}

    def living_processes(self) -> list[dict[str, Any]]:
        return self.processes

    def close(self) -> None:
        self.silent = False
        self.drop(list(self.segments))


class Host:
    """The ultravisor without its process. `restart` is what a new process would do with the same file."""

    def __init__(self, path: Path, keeper: FakeKeeper | None = None) -> None:
        self.path = path
        self.keeper = keeper or FakeKeeper()
        self._keys = itertools.count()
        self.start()

    def start(self) -> None:
        self.database = Database(self.path)
        self.views = Views(self.database)
        self.transactions = Transactions(self.database, self.keeper, self.views, clock=lambda: 0.0)
        self.transactions.recover()
        reconcile.remove_lost(self.transactions)

    def stop(self) -> None:
        self.database.close()
        self.views.forget(self.views.partitions())

    def restart(self) -> None:
        self.stop()
        self.start()

    def close(self) -> None:
        self.stop()
        self.keeper.close()

    def transaction(self, *operations: dict[str, Any], **fields: Any) -> dict[str, Any]:
        message = {"key": f"test-{next(self._keys)}", **fields, "operations": list(operations)}
        return self.transactions.run(Fields(message, "transaction"), "test")

    def do(self, *operations: dict[str, Any], **fields: Any) -> dict[str, Any]:
        """The result of the last operation."""
        return self.transaction(*operations, **fields)["results"][-1]

    def query(self, what: str, **fields: Any) -> dict[str, Any]:
        return queries.run(self.database, Fields({"what": what, **fields}, "query"))

    def reconcile(self, **fields: Any) -> dict[str, Any]:
        return reconcile.run(self.transactions, self.keeper, Fields(fields, "reconcile"), "test")

    def check(self) -> list[str]:
        return checker.check(self.database, self.keeper)

    def descriptor(self, partition: int) -> dict[str, Any] | None:
        """What the monitor would read in a partition's view."""
        segment = self.database.value("SELECT id FROM segment WHERE partition = ? AND kind = 'view'", (partition,))
        descriptor = os.dup(self.keeper.memory[segment])
        try:
            return ViewReader(descriptor).read()
        finally:
            os.close(descriptor)

    def map_words(self, partition: int) -> list[int]:
        """The words of a partition map."""
        segment = self.database.value("SELECT id FROM segment WHERE partition = ? AND kind = 'map'", (partition,))
        size = self.keeper.segments[segment]["size"]
        data = os.pread(self.keeper.memory[segment], size, 0)
        return [int.from_bytes(data[at : at + 8], "little") for at in range(0, size, 8)]


def furnish(memory: int = 64 * MIB) -> list[dict[str, Any]]:
    """Operations that make an empty database a host: machine, devices, I/O partition, all running."""
    operations: list[dict[str, Any]] = [
        {
            "op": "machine.define",
            "memory": memory,
            "processors": [{"number": 0, "role": "guests"}, {"number": 1, "role": "infrastructure"}],
        }
    ]
    for pid, (name, kind) in enumerate((("io-a", "io"), ("io-b", "io"), ("nic0", "device"), ("disk0", "device")), 100):
        operations += [
            {"op": "partition.create", "name": name, "type": kind},
            {"op": "process.record", "partition": name, "pid": pid, "start_time": 1},
            {"op": "partition.state", "partition": name, "state": "running"},
        ]
    return [
        *operations,
        {"op": "device.create", "name": "nic0", "kind": "nic", "class": "shared", "partition": "nic0"},
        {"op": "device.create", "name": "disk0", "kind": "disk", "class": "shared", "partition": "disk0"},
    ]


def disk(name: str = "vda", **fields: Any) -> dict[str, Any]:
    return {"name": name, "kind": "disk", "device": "disk0", "server": "io-a", "file": "a.img", "length": MIB, **fields}


def nic(name: str = "eth0", **fields: Any) -> dict[str, Any]:
    return {"name": name, "kind": "nic", "device": "nic0", "server": "io-a", **fields}


def guest(name: str, frame: int = 65536, memory: int = MIB, **fields: Any) -> dict[str, Any]:
    """`partition.create` for a guest whose memory is one extent at `frame`."""
    extents = [{"frame": frame, "frames": memory // 4096}]
    return {"op": "partition.create", "name": name, "type": "guest", "memory": memory, "extents": extents, **fields}

"""Segments that only roles share with each other: doorbells, statistics, rings, entries, vectors, the kernel region.

hostd has them made, hands them out, and maps statistics and vectors read-only. The keeper holds them under labels, by
which a hostd that follows a killed one finds them again.
"""

from __future__ import annotations

from hostd.errors import HostError
from hostd.keeper import Keeper
from hostd.records import Record
from hostd.wire import close_fds
from pyx import abi
from pyx.statistics import Reader, initialize
from pyx.vectors import VectorReader

SEATS = 2  # of an office: one serves, one stands by
HARDWARE_CAPACITY = 4096  # slots of the rings between monitor, device and server
STATISTICS_ROWS = {"io": 512, "monitor": 257, "nic": 257, "disk": 257, "view": 257, "trap": 257, "world": 1}
LABEL = "hostd:"  # of segments at the keeper that are not the ultravisor's

Segments = dict[str, tuple[int, int]]  # name -> (keeper's id, descriptor)


class RoleSegments:
    """Part of the fabric."""

    keeper: Keeper
    devices: dict[str, Record]

    def __init__(self) -> None:
        super().__init__()
        self.segments: Segments = {}
        self.readers: list[tuple[str, Reader]] = []
        self.vectors: list[tuple[str, VectorReader]] = []
        self._of_kernel: list[str] = []  # names of the segments that go with the kernel

    async def make_device_segments(self, devices: dict[str, str]) -> None:
        """At boot: doorbell, statistics, queue translation entries, vectors and ledger of each device. `devices`:
        name -> kind."""
        wanted = [(f"translation:{device}", "translation", abi.translations_size()) for device in devices]
        wanted += [(f"vectors:{device}", "vectors", abi.vectors_size()) for device in devices]
        wanted += [(f"ledger:{device}", "ledger", abi.device_ledger_size()) for device in devices]
        await self._make(wanted, devices, [])
        for device in devices:
            await self._read_vectors(device)

    async def _read_vectors(self, poster: str) -> None:
        vectors = await self.read_only(f"vectors:{poster}")
        self.vectors.append((poster, VectorReader(vectors)))
        close_fds([vectors])

    async def make_kernel_segments(self, servers: list[str], scheduled: list[int]) -> None:
        """With the load call: kernel region, and what monitor and I/O partitions share with each other and with the
        devices."""
        wanted = [("kernel", "kernel", abi.kernel_size())]
        wanted += [(f"vectors:{role}", "vectors", abi.vectors_size()) for role in ("monitor", *servers)]
        ring = abi.ring_size(HARDWARE_CAPACITY)
        for server in servers:
            wanted += [(seat, "seat", abi.bell_size()) for seat in seats(server)]
            for device in self.devices:
                wanted.append((f"requests:{server}:{device}", "hardware", ring))
                wanted.append((f"completions:{server}:{device}", "hardware", ring))
        roles, more = _of_kernel(servers, scheduled)
        before = set(self.segments)
        await self._make(wanted, roles, more)
        self._of_kernel = [name for name in self.segments if name not in before]
        for role in roles:
            await self._read_vectors(role)

    async def find_segments(self, devices: dict[str, str], servers: list[str], scheduled: list[int]) -> None:
        """After the death of an earlier hostd: what it had made, as the keeper has it. `servers`: none where no kernel
        is loaded. HostError `internal` names what is missing."""
        rows = [row for row in (await self.keeper.list())["segments"] if row["label"].startswith(LABEL)]
        found = await self.keeper.get_segments([row["id"] for row in rows])
        self.segments = {
            row["label"].removeprefix(LABEL): (row["id"], fd) for row, fd in zip(rows, found, strict=True)
        }
        kinds = ("translation", "vectors", "ledger", "bell", "statistics")
        own = {f"{kind}:{device}" for device in devices for kind in kinds}
        self._of_kernel = [name for name in self.segments if name not in own]
        roles, more = _of_kernel(servers, scheduled) if servers else ({}, [])
        threads = [*((role, role, kind) for role, kind in (devices | roles).items()), *more]
        needed = own | {f"statistics:{name}" for name, _, _ in threads} | {f"vectors:{role}" for role in roles}
        if missing := sorted(needed - set(self.segments)):
            raise HostError("internal", f"the keeper has no segment {missing[0]}")
        for name, role, kind in threads:
            await self._read_statistics(name, role, kind)
        for poster in (*devices, *roles):
            await self._read_vectors(poster)

    async def _make(
        self, wanted: list[tuple[str, str, int]], roles: dict[str, str], more: list[tuple[str, str, str]]
    ) -> None:
        """(name, kind, size) each, and doorbell and statistics of `roles` (name -> kind); `more`: further threads of
        theirs, with statistics of their own, as (name, role, kind)."""
        threads = [*((role, role, kind) for role, kind in roles.items()), *more]
        wanted = [
            *wanted,
            *((f"bell:{role}", "bell", abi.bell_size()) for role in roles),
            *((f"statistics:{name}", "statistics", statistics_size(kind)) for name, _, kind in threads),
        ]
        made = await self.keeper.create_segments([(kind, size, f"{LABEL}{name}") for name, kind, size in wanted])
        self.segments |= {name: one for (name, _, _), one in zip(wanted, made, strict=True)}
        for name, role, kind in threads:
            initialize(self.fd(f"statistics:{name}"), kind, STATISTICS_ROWS[kind])
            await self._read_statistics(name, role, kind)

    async def _read_statistics(self, name: str, role: str, kind: str) -> None:
        statistics = await self.read_only(f"statistics:{name}")
        self.readers.append((role, Reader(statistics, statistics_size(kind), name if kind == "world" else "")))
        close_fds([statistics])

    async def drop_kernel_segments(self) -> None:
        """After unload: monitor and I/O partitions have ended, and the devices have let go of theirs. Safe to call
        twice. A scrape that reads their statistics at this moment keeps its mapping until it is done."""
        gone = [self.segments.pop(name) for name in self._of_kernel]
        roles = {name.removeprefix("statistics:") for name in self._of_kernel}
        posters = {name.removeprefix("vectors:") for name in self._of_kernel}
        self._of_kernel = []
        self.readers = [(role, reader) for role, reader in self.readers if role not in roles]
        self.vectors = [(poster, reader) for poster, reader in self.vectors if poster not in posters]
        close_fds([descriptor for _, descriptor in gone])
        await self.keeper.drop_segments([identity for identity, _ in gone])

    def fd(self, name: str) -> int:
        return self.segments[name][1]

    async def read_only(self, name: str) -> int:
        return (await self.keeper.get_segments([self.segments[name][0]], read_only=True))[0]

    def close_segments(self) -> None:
        for _, reader in self.readers:
            reader.detach()
        self.readers.clear()
        self.vectors.clear()
        close_fds([descriptor for _, descriptor in self.segments.values()])
        self.segments.clear()


def seats(server: str) -> list[str]:
    """Names of the segments with the pages of the seats of an office."""
    return [f"seat:{server}:{seat}" for seat in range(SEATS)]


def statistics_size(kind: str) -> int:
    counters, histograms = abi.STATISTICS_SHAPES[kind]
    return abi.statistics_size(STATISTICS_ROWS[kind], counters, histograms)


def _of_kernel(servers: list[str], scheduled: list[int]) -> tuple[dict[str, str], list[tuple[str, str, str]]]:
    """Roles that come with the kernel (name -> kind of statistics), and further threads of the monitor as (name, role,
    kind): each counts in a segment of its own, for each segment has one writer."""
    roles = {"monitor": "monitor", **dict.fromkeys(servers, "io")}
    worlds = [(f"world{processor}", "monitor", "world") for processor in scheduled]
    return roles, [("view", "monitor", "view"), ("traps", "monitor", "trap"), *worlds]

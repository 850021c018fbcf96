"""What a running host holds: descriptors, threads, memory, segments, rows. For tests that nothing of it leaks."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psutil

from hostd.wire import Wire
from pyx.statistics import Reader
from tests.framework.host import Host

# Grow by design: what happened is kept (`life` has one row per slot that was ever used).
HISTORY = {"answer", "audit", "life", "epoch"}


@dataclass(frozen=True)
class Footprint:
    """`memory` in bytes, of each process alone; everything else is a number of things."""

    descriptors: dict[str, int]
    threads: dict[str, int]
    segments: dict[str, int]
    processes: int
    statistics: dict[str, int]
    names: int
    rows: dict[str, int]
    series: int
    memory: dict[str, int]

    @staticmethod
    def of(host: Host) -> Footprint:
        pids = host.pids()
        with Wire.connect(host.paths.keeper_socket) as wire:
            segments, processes = _listed(wire)
            statistics = {row["label"]: _statistics_rows(wire, row) for row in segments if row["kind"] == "statistics"}
        series = host.metrics().samples.values()
        return Footprint(
            descriptors={name: len(os.listdir(f"/proc/{pid}/fd")) for name, pid in pids.items()},
            threads={name: len(os.listdir(f"/proc/{pid}/task")) for name, pid in pids.items()},
            segments=dict(Counter(row["kind"] for row in segments)),
            processes=len(processes),
            statistics=statistics,
            names=len(list(Path("/dev/shm").glob(f"partvisor-{pids['keeper']}-*"))),
            rows=_rows(host.paths.resources),
            series=sum(map(len, series)),
            memory={name: psutil.Process(pid).memory_full_info().uss for name, pid in pids.items()},
        )

    def lasting(self) -> dict[str, object]:
        """All that must be the same again, exactly."""
        return {name: value for name, value in vars(self).items() if name != "memory"}

    def growth(self, before: Footprint) -> dict[str, int]:
        return {name: size - before.memory[name] for name, size in self.memory.items()}


def _listed(wire: Wire) -> tuple[list[dict], list[dict]]:
    """Segments and processes that the keeper has."""
    segments: list[dict] = []
    processes: list[dict] = []
    first: int | None = 0
    while first is not None:
        answer, _ = wire.request({"op": "list", "from": first})
        segments += answer["segments"]
        processes += answer["processes"]
        first = answer["next"]
    return segments, processes


def _statistics_rows(wire: Wire, segment: dict) -> int:
    """Rows in use of a statistics segment, those of nobody's included."""
    _, (descriptor,) = wire.request({"op": "segment.get", "segments": [segment["id"]], "access": "read"})
    reader = Reader(descriptor, segment["size"])
    try:
        return len(reader.rows())
    finally:
        reader.detach()
        os.close(descriptor)


def _rows(database: Path) -> dict[str, int]:
    """Rows of each table that does not keep history, from a copy: the ultravisor holds the file for itself."""
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("", "-wal"):
            shutil.copy(f"{database}{suffix}", folder)
        with closing(sqlite3.connect(Path(folder) / database.name)) as copy:
            tables = {name for (name,) in copy.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            return {name: copy.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables - HISTORY}

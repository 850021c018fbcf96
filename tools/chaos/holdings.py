"""What a running host holds: descriptors, threads, processes, segments, rows. What it has more of later leaked."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from hostd.paths import Paths
from hostd.wire import Wire
from pyx.statistics import Reader

# Grow by design: what happened is kept (`life` has one row per slot that was ever used).
HISTORY = {"answer", "audit", "life", "epoch"}

Holdings = dict[str, dict[str, int]]  # kind -> of what -> how many


def holdings(paths: Paths, pids: Mapping[str, int]) -> Holdings:
    """`pids` by role, keeper included."""
    with Wire.connect(paths.keeper_socket) as wire:
        segments, processes = listed(wire)
        statistics = {row["label"]: _statistics_rows(wire, row) for row in segments if row["kind"] == "statistics"}
    return {
        "descriptors": {name: len(os.listdir(f"/proc/{pid}/fd")) for name, pid in pids.items()},
        "threads": {name: len(os.listdir(f"/proc/{pid}/task")) for name, pid in pids.items()},
        "segments": dict(Counter(row["kind"] for row in segments)),
        "processes": {"": len(processes)},
        "statistics": statistics,
        "names": {"": len(list(Path("/dev/shm").glob(f"partvisor-{pids['keeper']}-*")))},
        "rows": _rows(paths.resources),
    }


def grown(before: Holdings, after: Holdings) -> dict[str, int]:
    """What there is more of: "kind of what" -> how many more."""
    return {
        f"{kind} {of}".strip(): count - before[kind].get(of, 0)
        for kind, counts in after.items()
        for of, count in counts.items()
        if count > before[kind].get(of, 0)
    }


def listed(wire: Wire) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Segments and processes that the keeper has."""
    segments: list[dict[str, Any]] = []
    processes: list[dict[str, Any]] = []
    first: int | None = 0
    while first is not None:
        answer, _ = wire.request({"op": "list", "from": first})
        segments += answer["segments"]
        processes += answer["processes"]
        first = answer["next"]
    return segments, processes


def _statistics_rows(wire: Wire, segment: dict[str, Any]) -> int:
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

"""What the database says, as the monitor reads it: partition descriptors and partition maps (U3, U5).

The only writer of these segments. A view is published after the commit that changed its rows and before the
answer; after a restart all views are published again, so a crash in between is made good. The map is written
before the view whose `map_generation` announces it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from partitions.described import described
from partitions.ultravisor.database import Database
from partitions.ultravisor.keeper import Keeper, Pending
from partitions.ultravisor.plan import plan_of, withheld_of
from pyx import abi
from pyx.view import MapWriter, ViewWriter

Piece = tuple[int, int, int, bool]  # page, frame, pages, withheld


class Views:
    """Writers of all partitions' views and maps, by partition id."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._views: dict[int, ViewWriter] = {}
        self._maps: dict[int, MapWriter] = {}
        self._shown: dict[int, list[Piece]] = {}  # what the map shows, if known

    def partitions(self) -> set[int]:
        """Those whose views are open."""
        return set(self._views)

    def adopt_all(self, keeper: Keeper, lost: set[int]) -> None:
        """Opens and publishes the views of all partitions but those whose segments were lost; at start."""
        rows = self._database.rows("SELECT id, partition, kind FROM segment WHERE kind IN ('view', 'map') ORDER BY id")
        rows = [row for row in rows if row["id"] not in lost]
        for row, descriptor in zip(rows, keeper.descriptors([row["id"] for row in rows]), strict=True):
            self._adopt(row, descriptor)
        self.publish({row["partition"] for row in rows})

    def adopt_new(self, made: Pending) -> None:
        """Opens the views among segments that have just been made and committed."""
        for number, segment in enumerate(made.ids):
            row = self._database.row(
                "SELECT id, partition, kind FROM segment WHERE id = ? AND kind IN ('view', 'map')", (segment,)
            )
            if row is not None:
                self._adopt(row, made.take(number))

    def _adopt(self, row: dict[str, Any], descriptor: int) -> None:
        partition = row["partition"]
        try:
            if row["kind"] == "view":
                self._views[partition] = ViewWriter(descriptor)
            else:
                pages = self._database.value("SELECT map_pages FROM partition WHERE id = ?", (partition,))
                self._maps[partition] = MapWriter(descriptor, pages)
        finally:
            os.close(descriptor)

    def publish(self, partitions: set[int]) -> None:
        """Writes maps and descriptors of these partitions as the database has them now."""
        for partition in sorted(partitions & self._views.keys()):
            self._write_map(partition)
            self._views[partition].publish(descriptor_of(self._database, partition))

    def _write_map(self, partition: int) -> None:
        writer = self._maps.get(partition)
        if writer is None:
            return
        memory = self._database.rows(
            "SELECT gpa, frame, frames FROM live_extent WHERE partition = ? ORDER BY gpa", (partition,)
        )
        pieces = list(pieces_of(memory, withheld_of(self._database, partition)))
        shown = self._shown.get(partition)
        if pieces == shown:
            return
        # Partition addresses are backed from 0 without gaps, so what must go lies behind the new end. What an
        # earlier ultravisor has written there is not known.
        end = sum(pages for _, _, pages, _ in pieces)
        old_end = writer.pages if shown is None else sum(pages for _, _, pages, _ in shown)
        for page, frame, pages, withheld in pieces:
            writer.assign(page, frame, pages, withheld=withheld)
        if old_end > end:
            writer.clear(end, old_end - end)
        self._shown[partition] = pieces

    def forget(self, partitions: set[int]) -> None:
        """Closes the writers of partitions that are gone."""
        for partition in partitions:
            self._shown.pop(partition, None)
            for writers in (self._views, self._maps):
                writer = writers.pop(partition, None)
                if writer is not None:
                    writer.detach()


def pieces_of(extents: Iterable[dict[str, int]], withheld: Sequence[dict[str, int]]) -> Iterator[Piece]:
    """Extents cut at the ranges that are withheld; both in order of address."""
    for extent in extents:
        first, end = extent["gpa"] // abi.PAGE, extent["gpa"] // abi.PAGE + extent["frames"]
        cuts = {first, end}
        ranges = [(one["gpa"] // abi.PAGE, (one["gpa"] + one["size"]) // abi.PAGE) for one in withheld]
        cuts |= {cut for one in ranges for cut in one if first < cut < end}
        for begin, stop in pairwise(sorted(cuts)):
            kept = any(low <= begin < high for low, high in ranges)
            yield begin, extent["frame"] + begin - first, stop - begin, kept


def descriptor_of(database: Database, partition: int) -> dict[str, Any]:
    """The partition descriptor in the form that `ViewWriter.publish` takes. A removed partition has nothing."""
    row = database.row("SELECT * FROM partition WHERE id = ?", (partition,))
    assert row is not None
    gone = row["state"] == "removed"
    services = 0
    for name in json.loads(row["services"]):
        services |= 1 << abi.SERVICES[name]
    return {
        "partition": partition,
        "map_generation": row["map_generation"],
        "type": abi.PARTITION_TYPES[row["type"]],
        "state": abi.STATES[row["state"]],
        "memory_pages": 0 if gone else row["memory"] // abi.PAGE,
        "services": 0 if gone else services,
        "endpoints": [described(entry) for entry in plan_of(database, partition)["endpoints"]],
    }

"""One transaction under construction: rows through their constraints, ids, and the segments it will need.

A change is applied twice where it needs segments: first in a rehearsal, whose segment ids are placeholders and
which is undone, then, once the keeper has made the segments, for good. Both runs start from the same rows and
must do the same, so operations take nothing from outside the database and their own fields.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from partitions.messages import Refusal, shown
from partitions.ultravisor.database import Database
from partitions.ultravisor.refusals import refusal
from pyx import abi

PLACEHOLDER = 1 << 62  # beyond every id of the keeper: slot in 16 bits, generation in 46 bits
LABEL_PREFIX = "ultravisor:"  # marks segments at the keeper that the database answers for
SEGMENTS_MAX = 1024  # segments of one transaction: a partition with all endpoints has 165


def label_of(name: str, partition: int, kind: str) -> str:
    """What a segment is called at the keeper. With the partition's id in it, a segment of a new keeper is never
    taken for one of the same number that an old keeper had."""
    return f"{LABEL_PREFIX}{name}:{partition}:{kind}"


@dataclass
class Change:
    """`made`: ids of the segments at the keeper, in the order of `segment` calls; None in a rehearsal."""

    database: Database
    made: Sequence[int] | None = None
    requests: list[dict[str, Any]] = field(default_factory=list)  # segments to ask the keeper for
    touched: set[int] = field(default_factory=set)  # partitions whose views must be published again
    dooms: bool = False  # segments were given up: they must be dropped after the commit

    def insert(self, table: str, **values: Any) -> None:
        names = ", ".join(values)
        marks = ", ".join(f":{name}" for name in values)
        self.apply(f"INSERT INTO {table} ({names}) VALUES ({marks})", **values)

    def apply(self, statement: str, **values: Any) -> None:
        """Executes a statement; a broken constraint becomes a refusal that names rule and rows."""
        try:
            self.database.execute(statement, values)
        except sqlite3.IntegrityError as error:
            raise refusal(self.database, error, values) from error

    def segment(self, partition: int, owner: str, kind: str, size: int) -> int:
        """Id of a new segment of a partition called `owner`; `size` in bytes."""
        number = len(self.requests)
        if number == SEGMENTS_MAX:
            raise Refusal("invalid", f"a transaction makes at most {SEGMENTS_MAX} segments; use several")
        self.requests.append({"kind": kind, "size": size, "label": label_of(owner, partition, kind)})
        segment = self.made[number] if self.made is not None else PLACEHOLDER + number
        self.insert("segment", id=segment, partition=partition, kind=kind, size=size)
        return segment

    def doom(self, where: str, **values: Any) -> int:
        """Gives segments up; returns how many. What they back stays taken until the keeper has dropped them."""
        cursor = self.database.execute(f"UPDATE segment SET doomed = 1 WHERE doomed = 0 AND {where}", values)
        self.dooms = self.dooms or cursor.rowcount > 0
        return cursor.rowcount

    def new_slot(self, scope: str, table: str, slots: int) -> tuple[int, int]:
        """(slot, generation) of a new row of `table`: the lowest free slot, and a generation it never had."""
        taken = {row[0] for row in self.database.execute(f"SELECT slot FROM {table}")}
        slot = next((number for number in range(slots) if number not in taken), None)
        if slot is None:
            raise Refusal("conflict", f"all {slots} slots for a {scope} are taken", rule="slots", rows=[])
        generation = self.database.value(
            """INSERT INTO life VALUES (?, ?, 1)
               ON CONFLICT DO UPDATE SET generation = generation + 1 RETURNING generation""",
            (scope, slot),
        )
        return slot, generation

    def new_id(self, scope: str, table: str, slots: int) -> tuple[int, int, int]:
        """(id, slot, generation), see `new_slot`."""
        slot, generation = self.new_slot(scope, table, slots)
        return abi.make_id(slot, generation), slot, generation

    def partition(self, reference: int | str, what: str = "partition") -> dict[str, Any]:
        """Row of a partition by id or name. One that was removed and waits for the keeper counts as gone."""
        column = "id" if isinstance(reference, int) else "name"
        row = self.database.row(f"SELECT * FROM partition WHERE {column} = ? AND state <> 'removed'", (reference,))
        if row is None:
            raise Refusal("not_found", f"no {what} {shown(reference)}", rule=what, rows=[])
        return row

    def device(self, reference: int | str) -> dict[str, Any]:
        column = "id" if isinstance(reference, int) else "name"
        row = self.database.row(f"SELECT * FROM device WHERE {column} = ?", (reference,))
        if row is None:
            known = ", ".join(name for (name,) in self.database.execute("SELECT name FROM device ORDER BY name"))
            raise Refusal(
                "not_found", f"no device {shown(reference)}; known: {known or 'none'}", rule="device", rows=[]
            )
        return row

    def bus(self, reference: int | str) -> dict[str, Any]:
        """Row of a bus by number or name."""
        column = "number" if isinstance(reference, int) else "name"
        row = self.database.row(f"SELECT * FROM bus WHERE {column} = ?", (reference,))
        if row is None:
            known = ", ".join(name for (name,) in self.database.execute("SELECT name FROM bus ORDER BY number"))
            raise Refusal("not_found", f"no bus {shown(reference)}; known: {known or 'none'}", rule="bus", rows=[])
        return row


def stored(value: Any) -> str:
    """JSON text for a column."""
    return json.dumps(value, separators=(",", ":"))

"""Tables of the keeper: slots with generations, so that an id never names two things (rules 13 and 25)."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

from pyx.abi import make_id, slot_of

Row = TypeVar("Row")


class TableError(Exception):
    """No such row, or no room for another one."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class SlotTable(Generic[Row]):
    """Rows under ids made of slot and generation.

    Generations start at the second in which the keeper started, and slots are reused in the order in which they
    became free. A slot is therefore reused far less than once a second, and no id of this keeper can be one that
    an earlier keeper has given out (a database may still hold those).
    """

    def __init__(self, what: str, slots_max: int) -> None:
        self.what = what
        self._slots_max = slots_max
        self._base = int(time.time())
        self._generations: list[int] = []
        self._free: deque[int] = deque()
        self._rows: dict[int, Row] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[tuple[int, Row]]:
        return iter(self._rows.items())

    def add(self, row: Row) -> int:
        if len(self._generations) < self._slots_max:  # a fresh slot first: reuse as late as possible
            slot = len(self._generations)
            self._generations.append(self._base)
        elif self._free:
            slot = self._free.popleft()
            self._generations[slot] += 1
        else:
            raise TableError("conflict", f"{self._slots_max} of {self._slots_max} {self.what} slots are in use")
        identity = make_id(slot, self._generations[slot])
        self._rows[identity] = row
        return identity

    def get(self, identity: object) -> Row:
        row = self._rows.get(identity) if type(identity) is int else None
        if row is None:
            raise TableError("not_found", f"no {self.what} {identity!r:.40}")
        return row

    def remove(self, identity: object) -> Row:
        row = self.get(identity)
        assert isinstance(identity, int)
        del self._rows[identity]
        self._free.append(slot_of(identity))
        return row

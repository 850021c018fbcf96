"""Results of benchmark documents, found by name and parameters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

PATHS = ("copy", "redirect", "direct")


@dataclass(frozen=True)
class Row:
    """One result, with the benchmark that it comes from."""

    bench: str
    result: dict[str, Any]
    document: int = 0  # number of the one it is in

    @property
    def name(self) -> str:
        return str(self.result["name"])

    @property
    def value(self) -> float:
        return float(self.result["value"])

    @property
    def error(self) -> tuple[float, float]:
        """Distances to the least and the largest sample, as error bars want them."""
        return self.value - self.result["min"], self.result["max"] - self.value

    @property
    def baseline(self) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self.result["baseline"]
        return found

    def get(self, key: str) -> Any:
        return self.result["parameters"].get(key)

    @property
    def shared(self) -> bool:
        """Of many guests, with one of them as the baseline."""
        return self.baseline is not None and self.baseline["name"] == "one guest"

    @property
    def load(self) -> str:
        """`net` or `disk`: by the parameter, or by what the request is measured in."""
        return self.get("load") or ("net" if self.get("size") else "disk" if self.get("block") else self.bench)

    @property
    def bytes(self) -> int:
        """Of one frame or request."""
        return int(self.get("size") or self.get("block") or 0)


class Rows:
    """All results of some documents."""

    def __init__(self, documents: Iterable[dict[str, Any]]) -> None:
        self.all = [
            Row(document["bench"], result, number)
            for number, document in enumerate(documents)
            for result in document["results"]
        ]

    def find(self, name: str, **parameters: Any) -> list[Row]:
        """In the order in which they were measured. A parameter None: the result must not have it."""
        return [
            row
            for row in self.all
            if row.name == name and all(_has(row, key, value) for key, value in parameters.items())
        ]

    def from_one(self, name: str, **parameters: Any) -> list[Row]:
        """Those of the one document that has most of them: what is compared must have been measured in turn. Results of
        many guests against one of them are another question."""
        found = [row for row in self.find(name, **parameters) if not row.shared]
        counts = Counter(row.document for row in found)
        best = max(counts, key=lambda number: counts[number], default=None)
        return [row for row in found if row.document == best]

    def first(self, name: str, **parameters: Any) -> Row | None:
        """The one with the most requests in flight, where several differ in that alone."""
        found = self.from_one(name, **parameters)
        return max(found, key=lambda row: row.get("depth") or 0, default=None)


def _has(row: Row, key: str, value: Any) -> bool:
    if key in ("load", "bytes", "document"):
        return bool(getattr(row, key) == value)
    return bool(row.get(key) == value)


def values(rows: Sequence[Row], key: str) -> list[Any]:
    """Distinct values of a parameter, sorted; `bytes` is that of frames and requests."""
    return sorted({row.bytes if key == "bytes" else row.get(key) for row in rows} - {None})

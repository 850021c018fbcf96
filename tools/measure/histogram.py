"""Latency histograms of load generators: merged over guests and windows, and their quantiles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from pyx import latency

#: what results show; 1 is the largest one seen
QUANTILES = (0.5, 0.9, 0.99, 0.999, 1.0)


class Histogram:
    """Counts by the buckets of pyx/latency.h. Built from documents of `pyx.latency.Histogram`."""

    def __init__(self, documents: Iterable[dict[str, Any]] = ()) -> None:
        self.buckets: Counter[int] = Counter()
        self.count = 0
        self.sum = 0
        self.most = 0
        for document in documents:
            self.merge(document)

    def merge(self, document: dict[str, Any]) -> None:
        self.buckets.update(dict(document["buckets"]))
        self.count += document["count"]
        self.sum += document["sum"]
        self.most = max(self.most, document["max"])

    def quantile(self, q: float) -> float:
        """Seconds that a share `q` of the values does not exceed; too high by one bucket at most (3.2 %)."""
        if not self.count:
            raise ValueError("no latencies were recorded")
        wanted, seen = q * self.count, 0
        for index in sorted(self.buckets):
            seen += self.buckets[index]
            if seen >= wanted:
                return min(latency.limit(index), self.most) / 1e9
        return self.most / 1e9

    @property
    def mean(self) -> float:
        """Seconds; exact."""
        return self.sum / self.count / 1e9

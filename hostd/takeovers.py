"""What takeovers there were, and how long the clients of each waited (rules.md 20 and 38)."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate

from hostd.metrics_table import BUCKETS

CAUSES = ("death", "hang", "planned", "device")


class Pauses:
    """From when it was noticed that nobody serves an office to when somebody does, in seconds."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BUCKETS) + 1)
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        self._counts[bisect_left(BUCKETS, seconds)] += 1
        self.sum += seconds

    @property
    def count(self) -> int:
        return sum(self._counts)

    def cumulative(self) -> list[int]:
        """At or below each of BUCKETS, and all."""
        return list(accumulate(self._counts))


class Takeovers:
    """Of all offices, by (office, cause). Read by the metrics server's thread."""

    def __init__(self) -> None:
        self.pauses: dict[tuple[str, str], Pauses] = {}

    def begin(self, office: str) -> None:
        """An office that there is: its series begin at 0."""
        for cause in CAUSES:
            self.pauses.setdefault((office, cause), Pauses())

    def add(self, office: str, cause: str, seconds: float) -> None:
        self.pauses.setdefault((office, cause), Pauses()).add(seconds)

    def of(self, office: str) -> dict[str, int]:
        """{cause: how many}, those that there were."""
        return {cause: one.count for (name, cause), one in list(self.pauses.items()) if name == office and one.count}

"""A metrics page as a test reads it: exact values by name and labels, and what changed between two scrapes.

Its own reader, because a page of many guests has ten thousand lines and tests read it in a loop; whether the page has
the form that Prometheus wants is tested elsewhere, with Prometheus' own tools.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

PREFIX = "partvisor_"
_LINE = re.compile(r"([A-Za-z_:][\w:]*)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

Series = dict[frozenset[tuple[str, str]], float]


class Metrics:
    """One scrape. Names are given without the project's prefix."""

    def __init__(self, page: str) -> None:
        self.samples: dict[str, Series] = {}
        for line in page.splitlines():
            if not line.startswith("#") and (found := _LINE.fullmatch(line)) is not None:
                name, labels, value = found.groups()
                self.samples.setdefault(name.removeprefix(PREFIX), {})[_labels(labels or "")] = float(value)

    def value(self, name: str, **labels: Any) -> float:
        """Sum over the series of `name` that carry all of `labels`. AssertionError where there is none: a series
        that begins late would hide its start."""
        found = self.series(name, **labels)
        assert found, f"no series {name} with {labels}"
        return sum(found.values())

    def series(self, name: str, **labels: Any) -> Series:
        wanted = {(key, str(value)) for key, value in labels.items()}
        return {key: value for key, value in self.samples.get(name, {}).items() if wanted <= key}

    def by(self, label: str, name: str, **labels: Any) -> dict[str, float]:
        """Sums that are not 0, by the value of one label."""
        sums: dict[str, float] = {}
        for key, value in self.series(name, **labels).items():
            if value:
                of = dict(key)[label]
                sums[of] = sums.get(of, 0) + value
        return sums

    def changes(self, before: Metrics, name: str) -> Series:
        """How much each series of `name` has grown since `before`, those that have."""
        old = before.samples.get(name, {})
        grown = {key: value - old.get(key, 0) for key, value in self.samples.get(name, {}).items()}
        return {key: value for key, value in grown.items() if value}


@cache
def _labels(text: str) -> frozenset[tuple[str, str]]:
    return frozenset(_LABEL.findall(text))

"""Results of a benchmark and the document that carries them (design.md section 12)."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tools.measure.compare import Interval

SCHEMA = 1
#: base units that a result may have
UNITS = ("requests/s", "frames/s", "bytes/s", "seconds", "seconds/byte", "fraction", "bytes", "1")


@dataclass
class Result:
    """One measured quantity with its samples, and those of the baseline that was measured in turn with it.

    `parameters` are the flags it was measured with, numbers as numbers. A result's value is the median of its samples
    and has their range; with an `interval` it is the estimate of that, and the range are its bounds.
    """

    name: str
    parameters: dict[str, Any]
    unit: str
    baseline_name: str | None = None
    samples: list[float] = field(default_factory=list)
    baseline_samples: list[float] = field(default_factory=list)
    interval: Interval | None = None

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ValueError(f"result {self.name}: unit {self.unit!r} is none of {', '.join(UNITS)}")

    @property
    def value(self) -> float:
        return statistics.median(self.samples) if self.interval is None else self.interval.value

    @property
    def least(self) -> float:
        return min(self.samples) if self.interval is None else self.interval.low

    @property
    def most(self) -> float:
        return max(self.samples) if self.interval is None else self.interval.high

    @property
    def ratio(self) -> float | None:
        """Value over the baseline's value; None without one."""
        if not self.baseline_samples:
            return None
        return self.value / statistics.median(self.baseline_samples)

    def document(self) -> dict[str, Any]:
        baseline = None
        if self.baseline_samples:
            baseline = {"name": self.baseline_name, "value": statistics.median(self.baseline_samples)}
        return {
            "name": self.name,
            "parameters": self.parameters,
            "value": self.value,
            "unit": self.unit,
            "samples": len(self.samples),
            "min": self.least,
            "max": self.most,
            "baseline": baseline,
            "ratio": self.ratio,
        }


def document(bench: str, environment: dict[str, Any], results: Sequence[Result]) -> dict[str, Any]:
    """The one document that `hostctl bench NAME --json` prints."""
    return {
        "bench": bench,
        "schema": SCHEMA,
        "environment": environment,
        "results": [result.document() for result in results],
    }

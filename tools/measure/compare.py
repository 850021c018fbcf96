"""Are two configurations different? Interleaved windows in pairs, and an interval for the ratio of what they reach.

Windows of one pair stand side by side in time, in an order that is drawn for each pair, so drift and neighbours on the
machine meet both alike. The logarithm of the pair's ratio is one observation. Its 20 % trimmed mean is the estimate: a
window that the hypervisor took away is cut off. The interval is the symmetric bootstrap-t one, whose coverage holds
from ten pairs on and for skewed and correlated windows, where the simple percentile interval says "different" two to
four times too often (tests/bench/test_compare.py has the comparison).
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

CONFIDENCE = 0.99
RESAMPLES = 1000
TRIM = 0.2
PAIRS_LEAST = 10

Sample = Callable[[float], float]  # runs for about so many seconds, returns one sample


@dataclass(frozen=True)
class Interval:
    """`value` with the bounds that hold it with `confidence`."""

    value: float
    low: float
    high: float
    confidence: float = CONFIDENCE


@dataclass
class Comparison:
    """Samples of two configurations, pair by pair."""

    first: list[float] = field(default_factory=list)
    second: list[float] = field(default_factory=list)

    def ratio(self, seed: int, confidence: float = CONFIDENCE) -> Interval:
        """Second over first."""
        logs = [math.log(b / a) for a, b in zip(self.first, self.second, strict=True)]
        found = interval(logs, seed, confidence)
        return Interval(math.exp(found.value), math.exp(found.low), math.exp(found.high), confidence)

    def verdict(self, seed: int, confidence: float = CONFIDENCE) -> str:
        """"different" where the interval of the ratio does not hold 1, otherwise "same"."""
        return verdict(self.ratio(seed, confidence))


def verdict(ratio: Interval) -> str:
    return "same" if ratio.low <= 1 <= ratio.high else "different"


def alternate(
    first: Sample,
    second: Sample,
    seconds: float,
    window: float,
    seed: int,
    shown: Callable[[float], None] | None = None,
) -> Comparison:
    """Pairs of windows for `seconds`, at least PAIRS_LEAST; one pair before them only warms."""
    order = random.Random(seed)
    result = Comparison()
    first(window)
    second(window)
    started = time.monotonic()
    while (passed := time.monotonic() - started) < seconds or len(result.first) < PAIRS_LEAST:
        if shown is not None:
            shown(passed / seconds)
        if order.random() < 0.5:
            one, other = first(window), second(window)
        else:
            other, one = second(window), first(window)
        if one > 0 and other > 0:  # a window that the machine stood still in says nothing
            result.first.append(one)
            result.second.append(other)
    return result


def interval(values: Sequence[float], seed: int, confidence: float = CONFIDENCE) -> Interval:
    """Trimmed mean of `values` and its symmetric bootstrap-t interval. ValueError below PAIRS_LEAST values."""
    if len(values) < PAIRS_LEAST:
        raise ValueError(f"{len(values)} values; an interval needs {PAIRS_LEAST}")
    centre, error = _trimmed(values)
    draw = random.Random(seed)
    ratios = []
    for _ in range(RESAMPLES):
        mean, spread = _trimmed(draw.choices(values, k=len(values)))
        if spread > 0:  # all equal: such a resample says nothing about the spread
            ratios.append(abs(mean - centre) / spread)
    ratios.sort()
    reach = error * ratios[min(len(ratios), math.ceil(confidence * len(ratios))) - 1] if ratios else 0.0
    return Interval(centre, centre - reach, centre + reach, confidence)


def _trimmed(values: Sequence[float]) -> tuple[float, float]:
    """Trimmed mean and its standard error, from the winsorized deviation (Tukey and McLaughlin)."""
    ordered = sorted(values)
    number = len(ordered)
    cut = int(number * TRIM)
    inner = ordered[cut : number - cut]
    low, high = inner[0], inner[-1]
    # By hand: the statistics module is exact and fifty times as slow, and this runs a thousand times.
    middle = (math.fsum(inner) + cut * (low + high)) / number
    squares = math.fsum((value - middle) ** 2 for value in inner) + cut * ((low - middle) ** 2 + (high - middle) ** 2)
    return math.fsum(inner) / len(inner), math.sqrt(squares / (number - 1)) / ((1 - 2 * TRIM) * math.sqrt(number))

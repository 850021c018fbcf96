"""Measures several cases in turn for a bounded time: A B A B, never all of A and then all of B.

A virtual machine's processors move about, and a figure of one minute is not comparable with that of the next
(limits.md): so a case and its baseline alternate in short windows, and only their ratio is meant to travel.
"""

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from tools.measure.result import Result

Measure = Callable[[float], float]  # runs for about so many seconds, returns one sample

WINDOW_SECONDS = 0.02
ROUNDS_LEAST = 3
ROUNDS_DEFAULT = 5  # of a run that takes the time that its benchmark asks for


@dataclass
class Case:
    """One quantity: how to take a sample of it and of its baseline."""

    name: str
    unit: str
    measure: Measure
    parameters: dict[str, Any] = field(default_factory=dict)
    baseline_name: str | None = None
    baseline: Measure | None = None
    window: float = WINDOW_SECONDS

    def result(self) -> Result:
        return Result(self.name, self.parameters, self.unit, self.baseline_name)


BAR = 20  # characters


class Progress:
    """A bar on a terminal, rewritten; nothing elsewhere. Parts of a run (`part`) share it."""

    def __init__(self, title: str, stream: TextIO = sys.stderr) -> None:
        self.title = title
        self.stream = stream
        self.shown = stream.isatty()
        self._begin, self._share = 0.0, 1.0

    def part(self, share: float) -> None:
        """What is shown from now on is a part of the whole, behind those before it."""
        self._begin = 0.0 if self._share == 1.0 else min(1.0, self._begin + self._share)
        self._share = min(share, 1.0 - self._begin)

    def show(self, fraction: float, what: str) -> None:
        """`fraction` of the present part is done."""
        if not self.shown:
            return
        done = self._begin + self._share * max(0.0, min(fraction, 1.0))
        filled = round(done * BAR)
        room = shutil.get_terminal_size().columns - len(self.title) - BAR - 10
        bar = "#" * filled + "." * (BAR - filled)
        self.stream.write(f"\r\x1b[K{self.title} [{bar}] {done:4.0%} {what[: max(0, room)]}")
        self.stream.flush()

    def clear(self) -> None:
        if self.shown:
            self.stream.write("\r\x1b[K")
            self.stream.flush()


def in_turn(
    cases: Sequence[Case], seconds: float, progress: Progress, rounds_least: int = ROUNDS_LEAST
) -> list[Result]:
    """Takes samples of all cases and baselines in turn until `seconds` are over; one result for each case.

    At least `rounds_least` rounds. A round before the first counted one warms caches and is thrown away.
    """
    results = [case.result() for case in cases]
    started = time.monotonic()
    rounds = -1
    while rounds < rounds_least or time.monotonic() - started < seconds:
        for case, result in zip(cases, results, strict=True):
            progress.show((time.monotonic() - started) / seconds, f"{case.name} {_words(case.parameters)}")
            sample = case.measure(case.window)
            compared = case.baseline(case.window) if case.baseline else None
            if rounds >= 0:
                result.samples.append(sample)
                if compared is not None:
                    result.baseline_samples.append(compared)
        rounds += 1
    progress.clear()
    return results


def _words(parameters: dict[str, Any]) -> str:
    return " ".join(f"{name} {value}" for name, value in parameters.items())

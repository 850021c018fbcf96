"""Cases that load benchmarks have in common: one window gives a sample of each quantity that it shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pyx.abi import STAGES
from tools.bench.crew import Crew, LoadGuest
from tools.bench.loads import Window
from tools.measure.command import Run
from tools.measure.histogram import QUANTILES
from tools.measure.turns import Case, Measure

LOAD = 0.5  # of what saturates: the open loop that latencies are measured with, unless a rate is asked for
ROLES = ("guest", "io-a", "monitor", "control")  # and the device

WINDOW = 0.4  # seconds
WINDOW_LEAST = 0.1  # below it the ticks in which the kernel counts processor time show


def window_of(run: Run) -> float:
    """Length of one window of a run."""
    return min(WINDOW, max(WINDOW_LEAST, run.seconds / 20))


class Shared:
    """A window that several cases read: the first one takes it, the others cost nothing."""

    def __init__(self, take: Callable[[float], Window]) -> None:
        self._take = take
        self.window: Window | None = None

    def first(self, value: Callable[[Window], float]) -> Measure:
        def measure(seconds: float) -> float:
            self.window = self._take(seconds)
            return value(self.window)

        return measure

    def then(self, value: Callable[[Window], float]) -> Measure:
        def measure(_seconds: float) -> float:
            assert self.window is not None
            return value(self.window)

        return measure


class Kept:
    """A baseline's last sample, for quantities that are a multiple of it."""

    def __init__(self, measure: Measure) -> None:
        self._measure = measure
        self.value = 0.0

    def take(self, seconds: float) -> float:
        self.value = self._measure(seconds)
        return self.value

    def times(self, factor: float) -> Measure:
        return lambda _seconds: self.value * factor


def cpu_cases(shared: Shared, device: str, parameters: dict[str, Any]) -> list[Case]:
    """`cpu_per_byte` of all processes and guests together, `role_cpu_per_byte` of each role."""

    def of(role: str) -> Callable[[Window], float]:
        return lambda window: window.cpu_per_byte.get(role, 0.0)

    def total(window: Window) -> float:
        return sum(window.cpu_per_byte.values())

    cases = [Case("cpu_per_byte", "seconds/byte", shared.then(total), parameters)]
    return cases + [
        Case("role_cpu_per_byte", "seconds/byte", shared.then(of(role)), {**parameters, "role": role})
        for role in (*ROLES, device)
    ]


def latency_cases(
    shared: Shared, parameters: dict[str, Any], window: float, quantiles: Iterable[float] = QUANTILES
) -> list[Case]:
    """`latency` at each quantile, counted from the intended time of each request; 1 is the largest."""

    def of(q: float) -> Callable[[Window], float]:
        def value(found: Window) -> float:
            assert found.latency is not None
            return found.latency.quantile(q)

        return value

    first, *rest = quantiles
    return [
        Case("latency", "seconds", shared.first(of(first)), {**parameters, "quantile": first}, window=window),
        *(Case("latency", "seconds", shared.then(of(q)), {**parameters, "quantile": q}) for q in rest),
    ]


class Stages:
    """Mean time of the requests of some guests in each stage, by the host's own histograms. Counts of two scrapes are
    subtracted, so the window between them alone is seen."""

    METRIC = "partvisor_io_stage_duration_seconds"

    def __init__(self, crew: Crew, guests: Iterable[LoadGuest]) -> None:
        self._crew = crew
        self._names = {guest.name for guest in guests}
        self._before: dict[str, tuple[float, float]] = {}
        self.means: dict[str, float] = {}

    def start(self) -> None:
        self._before = self._read()

    def stop(self) -> None:
        after = self._read()
        for stage, (total, count) in after.items():
            before_total, before_count = self._before.get(stage, (0.0, 0.0))
            self.means[stage] = (total - before_total) / (count - before_count) if count > before_count else 0.0

    def _read(self) -> dict[str, tuple[float, float]]:
        metrics = self._crew.host.metrics(self.METRIC + "_sum", self.METRIC + "_count")
        found: dict[str, tuple[float, float]] = {}
        for suffix, place in (("_sum", 0), ("_count", 1)):
            for labels, value in metrics[self.METRIC + suffix]:
                if labels["partition"] in self._names:
                    pair = list(found.get(labels["stage"], (0.0, 0.0)))
                    pair[place] += value
                    found[labels["stage"]] = (pair[0], pair[1])
        return found


class Sleeps:
    """How often threads of the data plane and load guests have slept. Every sleep ends by one notification or by a
    time-out, so their number bounds that of the notifications from above."""

    def __init__(self, crew: Crew, guests: Iterable[LoadGuest]) -> None:
        self._crew = crew
        self._guests = list(guests)
        self._before = 0.0

    def start(self) -> None:
        self._before = self._count()

    def since(self) -> float:
        return self._count() - self._before

    def _count(self) -> float:
        (threads,) = self._crew.host.metrics("partvisor_thread_sleeps_total").values()
        return sum(value for _, value in threads) + sum(guest.call("sleeps")["sleeps"] for guest in self._guests)


def host_cases(
    crew: Crew, guests: Sequence[LoadGuest], take: Callable[[float], Window], parameters: dict[str, Any],
    window: float,
) -> list[Case]:  # fmt: skip
    """`notifications` for each request and the mean `stage_time` of those of the first guest, in a window that
    saturates; one of its own, because it asks the host before and after."""
    sleeps, stages = Sleeps(crew, guests), Stages(crew, guests[:1])

    def measure(seconds: float) -> float:
        stages.start()
        sleeps.start()
        found = take(seconds)
        slept = sleeps.since()
        stages.stop()
        return slept / found.requests

    return [Case("notifications", "1", measure, parameters, window=window), *stage_cases(stages, parameters)]


def stage_cases(stages: Stages, parameters: dict[str, Any]) -> list[Case]:
    """`stage_time` of each stage, as the window before them left it."""

    def of(stage: str) -> Measure:
        return lambda _seconds: stages.means.get(stage, 0.0)

    return [Case("stage_time", "seconds", of(stage), {**parameters, "stage": stage}) for stage in STAGES]

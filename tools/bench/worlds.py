"""hostctl bench worlds: what a switch between guests costs, how exact their shares are, and what scheduling takes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hostd import families
from hostd.errors import HostError
from pyx.bare_switch import bare_switches
from pyx.baseline import compute
from tools.bench.crew import Crew, LoadGuest, crew
from tools.bench.host import BenchHost, bench_host
from tools.bench.loads import DiskLoads
from tools.measure.command import Run, benchmark
from tools.measure.result import Result

SECONDS = 30.0
MECHANISMS = ("stop", "class")
WEIGHTS = {"one": 100, "two": 200, "four": 400}
SLICE = 0.005
DEADLINE = 30.0  # seconds until guests that compute take turns
LOOK = 0.02  # seconds between two looks for that
WINDOWS = 4
READS = 8
PATH = "redirect"
BLOCK, DEPTH, DISK_SIZE = 4096, 32, 16 << 20
SLOW = {"latency": 0.001}  # seconds; two guests that wait for a medium like this leave the processor idle at times
BARE = "bare kernel operations"
PRIORITY = 60  # of a system world


@benchmark(seconds=SECONDS)
def command(run: Run) -> None:
    """Measure system worlds with three computing guests of the weights 1:2:4 on one processor.

    `switch_cost`: seconds from the decision until the next guest may run; its baseline are the same operations of the
    kernel on two processes, as far apart, without a scheduler. `share_error`: largest difference from what a guest is
    due, over that. `overhead`: part of the processor that the system world itself takes at slices of 5 ms. `iops`: two
    guests that read from a null medium; the baseline is another host whose guests share the processor as the kernel
    likes. With `latency` the medium is so slow that the processor has time for both.
    """
    part = run.seconds / len(MECHANISMS)
    for mechanism in MECHANISMS:
        scheduling = {"mechanism": mechanism, "slice": SLICE}
        with bench_host(medium="null", scheduling=scheduling) as host, crew(host) as guests:
            run.describe(
                **host.describe(), slice=SLICE,
                verified="processor time of each guest by the kernel's count; status of every completion",
            )  # fmt: skip
            _measure(run, mechanism, host, guests, part * 0.6)
    for slow in (None, SLOW):
        with bench_host(medium="null", simulated=slow) as plain, crew(plain) as free:
            unscheduled = _readers(free)
            for mechanism in MECHANISMS:
                scheduling = {"mechanism": mechanism, "slice": SLICE}
                with bench_host(medium="null", scheduling=scheduling, simulated=slow) as host, crew(host) as guests:
                    _read(run, {"mechanism": mechanism, **(slow or {})}, _readers(guests), unscheduled, part * 0.2)


def _readers(guests: Crew) -> DiskLoads:
    return DiskLoads(guests, PATH, DISK_SIZE, DEPTH * BLOCK, guests=2)


def _read(
    run: Run, parameters: dict[str, Any], scheduled: DiskLoads, unscheduled: DiskLoads, seconds: float
) -> None:
    window = seconds / (2 * READS)
    pairs = [
        [load.window(window, op="read", block=BLOCK, depth=DEPTH).rate for load in (scheduled, unscheduled)]
        for _ in range(READS)
    ]
    parameters = {**parameters, "path": PATH, "block": BLOCK, "depth": DEPTH, "guests": 2}
    on, off = ([pair[side] for pair in pairs] for side in (0, 1))
    run.results.append(Result("iops", parameters, "requests/s", "unscheduled", on, off))


def _measure(run: Run, mechanism: str, host: BenchHost, guests: Crew, seconds: float) -> None:
    processor = host.status()["host"]["turns"]["processors"][0]["processor"]
    costs, bare, errors, overheads = [], [], [], []
    window = seconds / WINDOWS
    load = [guests.start(name, weight=weight) for name, weight in WEIGHTS.items()]
    for number in range(WINDOWS):
        run.progress.show(number / WINDOWS, mechanism)
        with spinning(processor) as pids:
            bare.append(_bare(mechanism, processor, pids, window / 5))
        before, after = _while_computing(host, load, window * 4 / 5)
        costs.append(_per(before, after, "switch_seconds", "switches"))
        overheads.append(_per(before, after, "cpu_seconds", "time"))
        errors.append(share_error([last - first for last, first in zip(after["used"], before["used"], strict=True)]))
    parameters: dict[str, Any] = {"mechanism": mechanism}
    run.results += [
        Result("switch_cost", parameters, "seconds", BARE, costs, bare),
        Result("share_error", {**parameters, "weights": "1:2:4"}, "fraction", samples=errors),
        Result("overhead", {**parameters, "slice": SLICE}, "fraction", samples=overheads),
    ]


def share_error(used: list[float]) -> float:
    """Largest |actual - due| / due, where guests are due parts of what they used together, by weight."""
    whole = sum(used) / sum(WEIGHTS.values())
    return max(abs(one / (weight * whole) - 1) for one, weight in zip(used, WEIGHTS.values(), strict=True))


def _while_computing(host: BenchHost, load: list[LoadGuest], seconds: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """The system world's counts at begin and end of a time in which all guests computed."""
    idle = _counts(host, load)
    for guest in load:
        guest.begin("compute")
    end = time.monotonic() + DEADLINE
    while (before := _counts(host, load))["switches"] < idle["switches"] + len(load):
        if time.monotonic() > end:
            raise HostError("internal", f"guests that compute took no turns within {DEADLINE:g} s")
        time.sleep(LOOK)
    time.sleep(seconds)
    after = _counts(host, load)
    for guest in load:
        guest.begin("counts")  # the next command ends it
    for guest in load:
        guest.result()
        guest.result()
    return before, after


def _counts(host: BenchHost, load: list[LoadGuest]) -> dict[str, Any]:
    status = host.status()
    numbers = {row["name"]: row["id"] for row in status["processes"]}
    worlds = {row["partition"]: row for row in status["host"]["worlds"]}
    row = status["host"]["turns"]["processors"][0]
    return {**row, "time": row["seconds"], "used": [worlds[numbers[guest.name]]["used"] / 1e9 for guest in load]}


def _per(before: dict[str, Any], after: dict[str, Any], what: str, each: str) -> float:
    return float((after[what] - before[what]) / (after[each] - before[each]))


@contextmanager
def spinning(processor: int) -> Iterator[list[int]]:
    """Two processes that compute on a processor."""
    pids = []
    try:
        for _ in range(2):
            pid = os.fork()
            if pid == 0:
                os.sched_setaffinity(0, [processor])
                while True:
                    compute(1.0)
            pids.append(pid)
        yield pids
    finally:
        families.end(pids)


def _bare(mechanism: str, processor: int, pids: list[int], seconds: float) -> float:
    """On the processor of the processes, in the class of a system world."""
    affinity = os.sched_getaffinity(0)
    os.sched_setaffinity(0, [processor])
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
        return bare_switches(mechanism, pids[0], pids[1], SLICE, seconds)
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        os.sched_setaffinity(0, affinity)

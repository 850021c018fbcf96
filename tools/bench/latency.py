"""hostctl bench latency: a lone warm request, alone and beside computing neighbours."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from tools.bench import flags
from tools.bench.crew import crew
from tools.bench.host import bench_host
from tools.bench.loads import DiskLoads, NetLoads, Window
from tools.bench.results import Shared
from tools.measure.command import Run, benchmark
from tools.measure.histogram import Histogram
from tools.measure.turns import Case

SECONDS = 25.0
WINDOW = 0.2
QUANTILES = (0.5, 0.99)
SIZE = 64
BLOCK = 4096
COMPUTE = "from pyx.baseline import compute\nwhile True:\n    compute(1.0)\n"


@benchmark(seconds=SECONDS)
@flags.paths()
def command(run: Run, paths: Sequence[str]) -> None:
    """Measure `round_trip` of one request at a time, sent when the one before has completed.

    Frames of 64 bytes to another guest, and reads of 4 KiB from a null medium; `neighbours` 0, and with one process
    that only computes on every processor, of the normal class like the guests. Quantiles 0.5 and 0.99.
    """
    window = min(WINDOW, run.seconds / 40)
    with bench_host(medium="null") as host, crew(host) as guests:
        disks = {path: DiskLoads(guests, path, 16 << 20, BLOCK) for path in paths}
        nets = {path: NetLoads(guests, path, SIZE) for path in paths}
        run.describe(
            **host.describe(), guest_class=_class(host.processes()["guest"]), depth=1, batch=1,
            neighbour_class="normal, one on each processor", verified="status and length of every completion",
        )  # fmt: skip

        def read(path: str) -> Shared:
            return Shared(lambda seconds: disks[path].window(seconds, op="read", block=BLOCK, depth=1, timed=True))

        def send(path: str) -> Shared:
            return Shared(lambda seconds: nets[path].window(seconds, size=SIZE, depth=1, batch=1, timed=True))

        def cases(neighbours: int) -> list[Case]:
            found: list[Case] = []
            for path in paths:
                common = {"path": path, "depth": 1, "neighbours": neighbours}
                found += _cases(send(path), {"load": "net", "size": SIZE, **common}, window)
                found += _cases(read(path), {"load": "disk", "block": BLOCK, **common}, window)
            return found

        run.in_turn(cases(0), 0.5)
        processors = sorted(os.sched_getaffinity(0))
        with computing(processors):
            run.in_turn(cases(len(processors)), 0.5)


def _cases(shared: Shared, parameters: dict[str, Any], window: float) -> list[Case]:
    def of(q: float) -> Any:
        return lambda found: _completions(found).quantile(q)

    first, *rest = QUANTILES
    return [
        Case("round_trip", "seconds", shared.first(of(first)), {**parameters, "quantile": first}, window=window),
        *(Case("round_trip", "seconds", shared.then(of(q)), {**parameters, "quantile": q}) for q in rest),
    ]


def _completions(window: Window) -> Histogram:
    """A send ends with its completion; a disk has no other end."""
    found = window.completion or window.latency
    if found is None:
        raise click.ClickException("nothing completed in a window")
    return found


def _class(pids: list[int]) -> str:
    names = {os.SCHED_OTHER: "normal", os.SCHED_FIFO: "real-time", os.SCHED_RR: "real-time", os.SCHED_BATCH: "batch"}
    return ", ".join(sorted({names.get(os.sched_getscheduler(pid), "other") for pid in pids}))


@contextmanager
def computing(processors: Sequence[int]) -> Iterator[None]:
    """One process on each of them that does nothing but compute."""
    running: list[subprocess.Popen[bytes]] = []
    try:
        for processor in processors:
            running.append(subprocess.Popen([sys.executable, "-c", COMPUTE]))
            os.sched_setaffinity(running[-1].pid, {processor})
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()

"""hostctl bench failover: the pause of a guest whose I/O partition dies, hangs or hands over."""

from __future__ import annotations

import os
import random
import signal
import statistics
import time
from collections.abc import Sequence
from typing import Any

import click

from tools.bench import flags
from tools.bench.crew import LoadGuest, crew, together
from tools.bench.host import BenchHost, bench_host
from tools.measure.command import Run, benchmark
from tools.measure.compare import Interval
from tools.measure.histogram import Histogram
from tools.measure.result import Result

SECONDS = 40.0
BLOCK = 4096
WINDOWS = {"kill": 0.15, "stop": 0.7, "planned": 0.1}  # seconds of load around each event
SETTLE = 0.35  # seconds that both processes live before they are ended: less is a short life
DEADLINE = 20.0


@benchmark(seconds=SECONDS)
@click.option(
    "--cause", "causes", multiple=True, type=click.Choice(list(WINDOWS)), default=list(WINDOWS), show_default=True,
    help="Repeatable. kill: SIGKILL; stop: SIGSTOP, for good; planned: a switchover.",
)  # fmt: skip
@click.option("--count", type=click.IntRange(20), default=20, show_default=True, help="Events of each cause.")
@flags.seed()
def command(run: Run, causes: Sequence[str], count: int, seed: int) -> None:
    """Measure `gap`: the longest time from one completion to the next that a guest sees around a takeover.

    The guest writes blocks of its disk one after the other on the redirected path, and each window of load has one
    event at a drawn moment. `gap` is the 0.99 quantile of these windows, `gap_median` the 0.5 quantile; `lost` are
    requests without an answer or with an error, `duplicated` completions that no request waited for.
    """
    draw = random.Random(seed)
    with bench_host(medium="ram") as host, crew(host) as guests:
        guest = guests.start("load", 4 << 20, disks=[{"name": "vda", "size": 8 << 20}])
        guest.call("open_disk", bytes_in_flight=BLOCK, seed=seed)
        run.describe(
            **host.describe(), seed=seed, heartbeat="250 ms", medium="ram",
            verified="every request has one answer; none is answered twice",
        )  # fmt: skip
        for cause in causes:
            gaps, lost, before = [], 0, foreign(guest)
            for number in range(count):
                run.progress.show(number / count, cause)
                gap, missed = window(host, guest, cause, draw)
                gaps.append(gap)
                lost += missed
            gaps.sort()
            parameters = {"cause": cause, "path": "redirect", "block": BLOCK, "depth": 1, "seed": seed}
            worst = gaps[min(len(gaps) - 1, int(0.99 * len(gaps)))]
            run.results += [
                Result("gap", parameters, "seconds", samples=gaps, interval=Interval(worst, gaps[0], gaps[-1])),
                Result("gap_median", parameters, "seconds", samples=[statistics.median(gaps)]),
                Result("lost", parameters, "1", samples=[float(lost)]),
                Result("duplicated", parameters, "1", samples=[float(foreign(guest) - before)]),
            ]


def foreign(guest: LoadGuest) -> int:
    """Completions that no request of the guest waited for."""
    return sum(int(queue["foreign"]) for queue in guest.call("counts").values())


def window(host: BenchHost, guest: LoadGuest, cause: str, draw: random.Random) -> tuple[float, int]:
    """Load with one event in it; its gap in seconds, and requests that were not answered as they should be."""
    seconds = WINDOWS[cause]
    office = serving(host)
    name = office["served_by"]
    row = next(row for row in host.status()["processes"] if row["name"] == name)
    moment = draw.uniform(0.02, 0.05)

    def happen(start: float, _seconds: float) -> None:
        time.sleep(max(0.0, start + moment - time.monotonic()))
        if cause == "planned":
            host.client.request("PUT", f"/v1/offices/{office['name']}", {})
        else:
            os.kill(row["pid"], signal.SIGKILL if cause == "kill" else signal.SIGSTOP)

    load: dict[str, Any] = {"op": "write", "block": BLOCK, "depth": 1, "timed": True, "rate": 0}
    (report,) = together([], [(guest, "disk", load)], seconds, happen)
    end = time.monotonic() + DEADLINE
    while cause != "planned" and not restarted(host, name, row["restarts"]):
        if time.monotonic() > end:
            raise click.ClickException(f"{name} was not started again within {DEADLINE:g} s")
        time.sleep(0.01)
    if cause != "planned":
        time.sleep(SETTLE)
    return Histogram([report["latency"]]).most / 1e9, int(report["errors"]) + int(report["unanswered"])


def serving(host: BenchHost) -> dict[str, Any]:
    """The office of the only guest: the first of two that have no clients yet."""
    offices: list[dict[str, Any]] = host.status()["host"]["offices"]
    return offices[0]


def restarted(host: BenchHost, name: str, restarts: int) -> bool:
    rows = host.client.get("/v1/partitions")["partitions"]
    return any(row["name"] == name and row["restarts"] > restarts for row in rows)

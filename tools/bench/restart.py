"""hostctl bench restart: how long a host takes to start, and how long it is without its hostd when that is killed."""

from __future__ import annotations

import signal
import time
from contextlib import closing
from typing import Any

import click

from tools import daemon
from tools.bench import flags
from tools.bench.crew import crew
from tools.bench.host import BenchHost, bench_host
from tools.chaos.load import Load, Report
from tools.chaos.targets import aim
from tools.measure.command import Run, benchmark
from tools.measure.result import Result

SECONDS = 45.0
UNDISTURBED = 0.35  # seconds of load before a kill
DEADLINE = 20.0
WRONG = {"disk": ("lost", "stale", "corrupt", "failed"), "frames": ("lost", "repeated", "corrupt", "failed")}


@benchmark(seconds=SECONDS)
@click.option("--count", type=click.IntRange(1), default=7, show_default=True, help="Starts; deaths with each load.")
@flags.path()
@flags.seed()
def command(run: Run, count: int, path: str, seed: int) -> None:
    """Measure `start`: seconds from the start of hostd's program to the answer of the API, for a host without guests.

    `adopted`: from the start of the next hostd's program to its event of that name, after the first was killed; all
    processes have the pids that they had. `answers`: until its API answers. With load `none` three guests sleep, with
    `busy` they keep their processors and the data plane busy, and check what they read.
    """
    starts: list[float] = []
    found: dict[str, list[tuple[float, float]]] = {"none": [], "busy": []}
    with bench_host(medium="ram") as host, crew(host) as guests, closing(Load(host, guests, path, seed, 0.0)) as load:
        run.describe(
            **host.describe(), seed=seed, medium="ram",
            verified="pids of all processes; every block and frame of the load",
        )  # fmt: skip
        for number in range(count):
            for name, samples in found.items():
                run.progress.show(number / count, name)
                if name == "busy":
                    load.begin()
                time.sleep(UNDISTURBED)
                samples.append(follow(host))
                if name == "busy":
                    time.sleep(UNDISTURBED)
                    refuse(load.finish())
            run.progress.show(number / count, "start")
            begin = time.monotonic()
            with bench_host(medium="ram"):
                starts.append(time.monotonic() - begin)
    run.results.append(Result("start", {}, "seconds", samples=starts))
    for name, samples in found.items():
        parameters = {"load": name, "path": path, "seed": seed}
        for number, what in enumerate(("adopted", "answers")):
            run.results.append(Result(what, parameters, "seconds", samples=[sample[number] for sample in samples]))


def follow(host: BenchHost) -> tuple[float, float]:
    """Kills hostd and starts the next one, as `hostctl up` does: seconds until it has adopted, and until it answers."""
    before = host.processes()
    with closing(aim(host, ["hostd"])["hostd"]) as target:
        target.signal(signal.SIGKILL)
        if not target.ended(DEADLINE):
            raise click.ClickException(f"hostd did not end within {DEADLINE:g} s")
    clock, begin = time.time(), time.monotonic()
    before["control"].remove(target.pid)
    pid = daemon.start(host.paths, None)
    answers = time.monotonic() - begin
    after = host.processes()
    after["control"].remove(pid)
    if after != before:
        raise click.ClickException(f"other processes than before: {before}, then {after}")
    (adopted,) = (event for event in host.client.lines("/v1/events", since=0) if event["kind"] == "adopted")
    return adopted["time"] - clock, answers


def refuse(reports: dict[str, Report]) -> None:
    """Nothing of the load may be missing, changed or there twice."""
    wrong: dict[str, Any] = {}
    for name, report in reports.items():
        found = {f"{kind} {what}": report[kind][what] for kind, each in WRONG.items() for what in each}
        found |= {what: report[what] for what in ("unanswered", "foreign")}
        wrong |= {f"{name} {what}": value for what, value in found.items() if value}
    if wrong:
        raise click.ClickException(f"the load was not served as it should be: {wrong}")

"""hostctl bench stalled: what a guest that stops taking its frames costs the others on its adapter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from tools.bench import flags
from tools.bench.crew import Command, crew, together
from tools.bench.host import bench_host
from tools.bench.loads import NetLoads, check
from tools.measure.command import Run, benchmark
from tools.measure.compare import CONFIDENCE, alternate
from tools.measure.histogram import Histogram
from tools.measure.result import Result

SECONDS = 24.0
WINDOW = 0.05
BATCH = 64
DEPTH = 512
OFFERED = 100_000  # frames/s to the guest that stops
SHARE = 0.25  # of what saturates: the rate at which latencies are taken


@benchmark(seconds=SECONDS)
@flags.paths()
@flags.size()
@flags.seed()
def command(run: Run, paths: Sequence[str], size: int, seed: int) -> None:
    """Measure what two guests keep of their rate and latency while a third takes none of what a fourth sends to it.

    `rate_kept`: frames a second of a closed loop between the two, with the third stalled over with it draining; the
    fourth offers 100,000 frames/s all the while. `latency_kept`: the same for the 0.99 quantile of an open loop at a
    quarter of that rate. Windows of both alternate in pairs whose order is drawn; ranges are intervals at 99 %.
    """
    with bench_host() as host, crew(host) as guests:
        run.describe(
            **host.describe(), seed=seed, window=WINDOW, confidence=CONFIDENCE, offered=OFFERED,
            verified="every frame between the two; every one to the stalled guest is answered, arrived or dropped",
        )  # fmt: skip
        for path in paths:
            load = Stalled(NetLoads(guests, path, size), NetLoads(guests, path, size), size)
            load.window(WINDOW, 0.0, True)  # uses up the stalled guest's buffers
            rate = SHARE * load.window(WINDOW, 0.0, False)[0]
            seconds = run.seconds / (2 * len(paths))
            for name, asked in (("rate_kept", 0.0), ("latency_kept", rate)):
                parameters: dict[str, Any] = {"path": path, "size": size, "depth": DEPTH, "batch": BATCH, "seed": seed}
                if asked:
                    parameters.update(rate=round(asked), quantile=0.99)
                run.results.append(_kept(run, name, parameters, load, asked, seconds))


def _kept(run: Run, name: str, parameters: dict[str, Any], load: Stalled, rate: float, seconds: float) -> Result:
    """What is kept of the rate, or of the latency where the load has a fixed `rate`."""
    seed = parameters["seed"]
    samples = alternate(
        lambda window: load.window(window, rate, False)[rate > 0],
        lambda window: load.window(window, rate, True)[rate > 0],
        seconds, WINDOW, seed, lambda share: run.progress.show(share, f"{name}, {parameters['path']}"),
    )  # fmt: skip
    kept = [b / a for a, b in zip(samples.first, samples.second, strict=True)]
    return Result(name, parameters, "fraction", samples=kept, interval=samples.ratio(seed))


class Stalled:
    """Two pairs of guests on one adapter: one is measured, the other's receiver may stall."""

    def __init__(self, measured: NetLoads, other: NetLoads, size: int) -> None:
        self.measured = measured
        self.other = other
        self.size = size

    def window(self, seconds: float, rate: float, stalled: bool) -> tuple[float, float]:
        """Frames a second, and the 0.99 quantile of their latencies (seconds; 0 in a closed loop)."""
        common = {"size": self.size, "timed": rate > 0}
        waiting: list[Command] = [(self.measured.receivers[0], "receive", {**common, "patience": seconds + 5})]
        if not stalled:
            waiting.append((self.other.receivers[0], "receive", {"size": self.size, "patience": seconds + 5}))
        sending = {"size": self.size, "depth": DEPTH, "batch": BATCH}
        working: list[Command] = [
            (self.measured.senders[0], "send", {**sending, "timed": rate > 0, "rate": rate}),
            (self.other.senders[0], "send", {**sending, "rate": OFFERED, "finish": not stalled}),
        ]
        reports = together(waiting, working, seconds)
        received, sent, offered = reports[0], reports[-2], reports[-1]
        check([sent], [received], drops_allowed=False)
        if offered["unanswered"] or offered["errors"]:
            raise click.ClickException(f"the frames to the stalled guest were not all answered: {offered}")
        latency = Histogram([received["latency"]]).quantile(0.99) if rate else 0.0
        return received["frames"] / received["seconds"], latency

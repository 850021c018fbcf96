"""hostctl bench search: the highest rate of frames at which none is dropped."""

from __future__ import annotations

from typing import Any

import click

from tools.bench import flags
from tools.bench.crew import crew
from tools.bench.host import bench_host
from tools.bench.loads import NetLoads, Window
from tools.measure.command import Run, benchmark
from tools.measure.result import Result

SECONDS = 15.0
STEPS = 8  # halvings: the rate is found within 1/128 of the first guess
WINDOW_MOST = 1.0
GRACE = 0.001  # seconds that a sender may be behind at the end: it publishes in batches
BATCH = 64
DEPTH = 512


@benchmark(seconds=SECONDS)
@flags.path()
@flags.size()
def command(run: Run, path: str, size: int) -> None:
    """Measure `no_drop_rate`: the highest fixed rate from one guest to another at which every frame arrives.

    A binary search between nothing and twice what saturates. A rate passes when the switch dropped nothing and the
    sender was at no time so far behind that frames due before the end could not be sent by then; in front of a real
    adapter those would have been lost. `latency` is that of the last window that passed.
    """
    with bench_host() as host, crew(host) as guests:
        load = NetLoads(guests, path, size)
        window = min(WINDOW_MOST, run.seconds / (STEPS + 2))

        def offer(rate: float) -> Window:
            return load.window(window, size=size, depth=DEPTH, batch=BATCH, rate=rate, drops_allowed=True)

        run.describe(**host.describe(), window=window,
                     verified="sender, sequence and check words of every frame that was not dropped")  # fmt: skip
        saturated = load.window(window, size=size, depth=DEPTH, batch=BATCH).rate
        low, high = 0.0, 2 * saturated
        best: Window | None = None
        tried = 0
        while tried < STEPS or (best is None and tried < 2 * STEPS):
            rate = (low + high) / 2
            run.progress.show(tried / STEPS, f"{rate:.0f} frames/s")
            found = offer(rate)
            if found.dropped == 0 and found.behind <= rate * GRACE:
                low, best = rate, found
            else:
                high = rate
            tried += 1
    if best is None or best.latency is None:
        raise click.ClickException(f"frames were dropped even at {high:.0f} frames/s")
    parameters: dict[str, Any] = {"path": path, "size": size, "batch": BATCH, "depth": DEPTH}
    run.results.append(Result("no_drop_rate", parameters, "frames/s", "closed loop", [low], [saturated]))
    for quantile in (0.5, 0.99, 1.0):
        at = {**parameters, "rate": round(low), "quantile": quantile}
        run.results.append(Result("latency", at, "seconds", samples=[best.latency.quantile(quantile)]))

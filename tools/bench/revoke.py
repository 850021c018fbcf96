"""hostctl bench revoke: how long memory takes to be revoked while devices write into it."""

from __future__ import annotations

import os
import random
import signal
import time

import click

from tools.bench import flags
from tools.bench.crew import crew, together
from tools.bench.host import BenchHost, bench_host
from tools.measure.command import Run, benchmark
from tools.measure.compare import Interval
from tools.measure.result import Result

SECONDS = 30.0
PAGE = 4096
DEPTH = 32
RANGE = 8 * PAGE
HOLDERS = ("cooperating", "stopped guest", "stopped device")
DEADLINE = 0.1  # seconds, for a holder that is stopped


@benchmark(seconds=SECONDS)
@click.option("--count", type=click.IntRange(20), default=100, show_default=True, help="Revocations of each kind.")
@flags.seed()
def command(run: Run, count: int, seed: int) -> None:
    """Measure `revoke`: seconds from the request to the receipt, for 32 KiB into which a disk reads at depth 32.

    `cooperating`: nobody is stopped. `stopped guest`: its process stands (SIGSTOP). `stopped device`: the process of
    the disk stands, so the receipt comes at the deadline of 100 ms and says quarantine; a fifth of the count. `value`
    is the 0.5 quantile, `max` the longest; `revoke_p99` has the 0.99 quantile.
    """
    draw = random.Random(seed)
    with bench_host(medium="ram") as host, crew(host) as guests:
        guest = guests.start("load", 4 << 20, disks=[{"name": "vda", "size": 8 << 20}])
        guest.call("open_disk", bytes_in_flight=DEPTH * PAGE, seed=seed)
        run.describe(**host.describe(), seed=seed, medium="ram", verified="the state that each receipt says")
        for holder in HOLDERS:
            samples: list[float] = []
            wanted = count // 5 if holder == "stopped device" else count

            def happen(
                _start: float,
                _seconds: float,
                holder: str = holder,
                wanted: int = wanted,
                samples: list[float] = samples,
            ) -> None:
                for number in range(wanted):
                    run.progress.show(number / wanted, holder)
                    samples.append(revoked(host, holder, PAGE * draw.randrange(DEPTH - RANGE // PAGE)))

            load = {"op": "read", "block": PAGE, "depth": DEPTH, "timed": False, "rate": 0}
            together([], [(guest, "disk", load)], run.seconds / len(HOLDERS), happen)
            samples.sort()
            parameters = {"holder": holder, "size": RANGE, "path": "redirect", "depth": DEPTH, "seed": seed}
            p99 = samples[min(len(samples) - 1, int(0.99 * len(samples)))]
            run.results += [
                Result("revoke", parameters, "seconds", samples=samples),
                Result(
                    "revoke_p99",
                    parameters,
                    "seconds",
                    samples=samples,
                    interval=Interval(p99, samples[0], p99),
                ),
            ]


def revoked(host: BenchHost, holder: str, offset: int) -> float:
    """Seconds of one revocation, which is undone again."""
    rows = {row["name"]: row["pid"] for row in host.client.get("/v1/partitions")["partitions"]}
    stopped = {"stopped guest": rows["load"], "stopped device": rows["disk0"]}.get(holder)
    body = {"memory": {"offset": offset, "size": RANGE}, "deadline": DEADLINE if holder == HOLDERS[2] else 1.0}
    if stopped:
        os.kill(stopped, signal.SIGSTOP)
    try:
        receipt = host.client.post("/v1/partitions/load/revocations", body)
    finally:
        if stopped:
            os.kill(stopped, signal.SIGCONT)
    expected = "quarantine" if holder == HOLDERS[2] else "freed"
    if receipt["state"] != expected:
        raise click.ClickException(f"{holder}: the receipt says {receipt['state']}, not {expected}")
    end = time.monotonic() + 20
    while host.client.get("/v1/partitions/load/view")["true"]["revoked"][0]["state"] != "freed":
        if time.monotonic() > end:
            raise click.ClickException("what was in quarantine is not freed")
        time.sleep(0.005)
    host.client.post("/v1/partitions/load/grants", {"offset": offset})
    return float(receipt["seconds"])

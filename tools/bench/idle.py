"""hostctl bench idle: processor time of a whole host whose guests do nothing."""

import os
import time
from pathlib import Path

import click

from tools.bench.host import bench_host
from tools.measure.command import Run, benchmark
from tools.measure.result import Result

SECONDS = 10.0
SETTLE = 1.0  # seconds after the last start


@benchmark(seconds=SECONDS)
@click.option(
    "--guests", type=click.IntRange(1, 64), default=16, show_default=True, help="Idle guests with disk and NIC."
)
def command(run: Run, guests: int) -> None:
    """Measure `idle_cpu`: processor time of all processes of the host, hostd and API included, per second.

    Read from the kernel (schedstat of every thread); nothing asks the host while it is measured.
    """
    with bench_host() as host:
        for number in range(guests):
            host.spawn(
                f"idle{number}", "partitions.load:idle", disks=[{"name": "vda", "size": 1 << 20}],
                nics=[{"name": "eth0"}],
            )  # fmt: skip
        run.describe(**host.describe(), verified="every guest has used its disk and its NIC")
        pids = [row["pid"] for row in host.status()["processes"] if row["pid"]]
        time.sleep(SETTLE)
        result = Result("idle_cpu", {"guests": guests}, "fraction", None)
        begin, before = time.monotonic(), used(pids)
        time.sleep(run.seconds)
        result.samples.append((used(pids) - before) / (time.monotonic() - begin))
        run.results.append(result)


def used(pids: list[int]) -> float:
    """Seconds of processor time of all threads of these processes."""
    total = 0
    for pid in pids:
        for thread in os.listdir(f"/proc/{pid}/task"):
            total += int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0])
    return total / 1e9

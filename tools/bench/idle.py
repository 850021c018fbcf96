"""hostctl bench idle: processor time of a whole host whose guests do nothing."""

import time

import click

from tools.bench.host import bench_host
from tools.measure.command import Run, benchmark
from tools.measure.processor_time import used
from tools.measure.result import Result

SECONDS = 10.0
MEMORY = 4 << 20  # bytes of each guest
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
                nics=[{"name": "eth0"}], memory=MEMORY,
            )  # fmt: skip
        run.describe(**host.describe(), verified="every guest has used its disk and its NIC")
        pids = [row["pid"] for row in host.status()["processes"] if row["pid"]]
        time.sleep(SETTLE)
        result = Result("idle_cpu", {"guests": guests}, "fraction", None)
        begin, before = time.monotonic(), used(pids)
        time.sleep(run.seconds)
        result.samples.append((used(pids) - before) / (time.monotonic() - begin))
        run.results.append(result)

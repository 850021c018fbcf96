"""hostctl bench disk: a guest's disk through all processes, against the bare file."""

import os
import tempfile
from pathlib import Path

import click

from tools.bench.host import BenchHost, bench_host
from tools.measure.command import Run, benchmark
from tools.measure.turns import Case, Measure

SECONDS = 12.0
WINDOW = 0.5
SIZE = 64 << 20  # of the disk: it stays in the page cache
ROUND_TRIPS = 2000
FILE = "bench.img"


@benchmark(seconds=SECONDS)
@click.option(
    "--path", type=click.Choice(["redirect"]), default="redirect", show_default=True, help="Path of the data."
)
@click.option("--block", type=click.IntRange(512, 1 << 20), default=4096, show_default=True, help="Bytes of a request.")
@click.option("--depth", type=click.IntRange(1, 256), default=32, show_default=True, help="Requests in flight.")
@click.option("--op", type=click.Choice(["read", "write"]), default="read", show_default=True)
@click.option(
    "--medium",
    type=click.Choice(["file", "tmpfs"]),
    default="file",
    show_default=True,
    help="A file of the state folder's file system, in its page cache, or of a tmpfs.",
)
def command(run: Run, path: str, block: int, depth: int, op: str, medium: str) -> None:
    """Measure random requests of one guest: `iops` and `throughput` with `depth` in flight, `round_trip` of a lone one.

    The baseline reads or writes the same file in one thread, without a host in between.
    """
    if block % 512:
        raise click.BadParameter(f"{block} is no multiple of 512", param_hint="--block")
    parameters = {"path": path, "block": block, "depth": depth, "op": op, "medium": medium}
    with tempfile.TemporaryDirectory(
        prefix="partvisor-bench-", dir="/dev/shm" if medium == "tmpfs" else None
    ) as folder, bench_host(Path(folder)) as host:
        disk = {"name": "vda", "size": SIZE, "file": FILE}
        host.spawn("prepare", "partitions.load:prepare", disks=[disk])
        host.finish("prepare", 60)
        host.remove("prepare")
        run.describe(
            **host.describe(),
            size_bytes=SIZE,
            page_cache="warm",
            verified="status and length of every completion; content by the tests",
        )
        file = os.open(Path(folder) / FILE, os.O_RDWR | os.O_CLOEXEC)
        try:
            load = Load(host, disk, parameters)
            window = min(WINDOW, run.seconds / 20)
            cases = [
                Case("iops", "requests/s", load.rate(1), parameters, "bare file", bare(file, op, block, 1), window),
                Case(
                    "throughput",
                    "bytes/s",
                    load.rate(block),
                    parameters,
                    "bare file",
                    bare(file, op, block, block),
                    window,
                ),
                Case("round_trip", "seconds", load.round_trip, {**parameters, "depth": 1}, window=window),
            ]
            run.in_turn(cases)
        finally:
            os.close(file)


class Load:
    """A guest for each sample, so that samples and baseline alternate."""

    def __init__(self, host: BenchHost, disk: dict, parameters: dict) -> None:
        self.host = host
        self.disk = disk
        self.given = {name: parameters[name] for name in ("block", "depth", "op")}

    def _run(self, seconds: float, **given: int) -> None:
        self.host.spawn("load", "partitions.load:disk", {**self.given, "seconds": seconds, **given}, disks=[self.disk])
        self.host.finish("load", seconds + 60)
        self.host.remove("load")

    def rate(self, unit: int) -> Measure:
        def measure(seconds: float) -> float:
            self._run(seconds, runs=1, round_trips=0)
            report = self.host.reports("disk")[-1]
            if report["errors"] or report["unanswered"]:
                raise click.ClickException(f"{report['errors']} errors, {report['unanswered']} requests unanswered")
            return report["requests"] * unit / report["seconds"]

        return measure

    def round_trip(self, seconds: float) -> float:
        self._run(seconds, runs=0, round_trips=ROUND_TRIPS)
        return self.host.reports("round_trip")[-1]["p50"]


def bare(file: int, op: str, block: int, unit: int) -> Measure:
    from pyx.load import file_load

    def measure(seconds: float) -> float:
        requests, taken = file_load(file, op == "write", block, SIZE, seconds)
        return requests * unit / taken

    return measure

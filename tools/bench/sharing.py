"""hostctl bench sharing: many guests on one adapter, against one guest that has it to itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from tools.bench import flags
from tools.bench.crew import crew
from tools.bench.host import bench_host
from tools.bench.loads import DiskLoads, NetLoads
from tools.measure.command import Run, benchmark
from tools.measure.turns import Case, Measure

SECONDS = 18.0
WINDOW = 0.2
SIZES = (64, 1500, 65536)
BLOCK = 4096
BATCH = 64
DISK_SIZE = 16 << 20
DEPTH_NET = 256  # of all senders together
DEPTH_DISK = 64


@benchmark(seconds=SECONDS)
@flags.paths()
@click.option("--guests", type=click.IntRange(2, 32), default=8, show_default=True, help="That share the adapter.")
@click.option("--size", "sizes", type=click.IntRange(40, 65536), multiple=True, default=SIZES, show_default=True,
              help="Bytes of a frame; may be repeated.")  # fmt: skip
def command(run: Run, paths: Sequence[str], guests: int, sizes: Sequence[int]) -> None:
    """Measure what guests reach together that share an adapter; the baseline is one of them with the adapter to itself.

    `rate`: all send to one receiver. `iops`: all read from one disk device with a null medium. The requests in flight
    are the same in number with one guest as with all of them, so the adapter has the same queue before it.
    """
    with bench_host(medium="null") as host, crew(host) as crowd:
        run.describe(
            **host.describe(), batch=BATCH,
            verified="sender, sequence and check words of every frame; status and length of every completion",
        )  # fmt: skip
        cases: list[Case] = []
        window = min(WINDOW, run.seconds / (len(paths) * (len(sizes) + 1) * 8))
        for path in paths:
            for size in sizes:
                net = NetLoads(crowd, path, size, senders=guests)
                parameters: dict[str, Any] = {"path": path, "size": size, "guests": guests, "depth": DEPTH_NET}
                together, alone = frames(net, size, guests), frames(net, size, 1)
                cases.append(Case("rate", "frames/s", together, parameters, "one guest", alone, window))
            disk = DiskLoads(crowd, path, DISK_SIZE, DEPTH_DISK * BLOCK, guests=guests)
            parameters = {"path": path, "block": BLOCK, "guests": guests, "depth": DEPTH_DISK}
            together, alone = reads(disk, guests), reads(disk, 1)
            cases.append(Case("iops", "requests/s", together, parameters, "one guest", alone, window))
        run.in_turn(cases)


def frames(net: NetLoads, size: int, active: int) -> Measure:
    def measure(seconds: float) -> float:
        return net.window(seconds, size=size, depth=DEPTH_NET // active, batch=BATCH, active=active).rate

    return measure


def reads(disk: DiskLoads, active: int) -> Measure:
    def measure(seconds: float) -> float:
        return disk.window(seconds, op="read", block=BLOCK, depth=DEPTH_DISK // active, active=active).rate

    return measure

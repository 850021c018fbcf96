"""hostctl bench sweep: every path with every size, number of guests and depth, in turn."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import click

from tools.bench import flags
from tools.bench.crew import Crew, crew
from tools.bench.host import bench_host
from tools.bench.loads import DiskLoads, NetLoads, Window
from tools.bench.results import Shared, cpu_cases
from tools.measure.command import Run, benchmark
from tools.measure.turns import Case

SECONDS = 25.0
WINDOW = 0.15
BATCH = 64
DISK_SIZE = 16 << 20


@benchmark(seconds=SECONDS)
@flags.paths()
@click.option("--load", "loads", type=click.Choice(["net", "disk"]), multiple=True, default=["net", "disk"],
              show_default=True, help="May be repeated.")  # fmt: skip
@click.option("--size", "sizes", type=click.IntRange(40, 65536), multiple=True, default=[64, 1500, 65536],
              show_default=True, help="Bytes of a frame; may be repeated.")  # fmt: skip
@click.option("--block", "blocks", type=flags.BLOCK, multiple=True, default=[4096, 65536], show_default=True,
              help="Bytes of a disk request; may be repeated.")  # fmt: skip
@click.option("--guests", "numbers", type=click.IntRange(1, 16), multiple=True, default=[1], show_default=True,
              help="Guests that send or read; may be repeated.")  # fmt: skip
@click.option("--depth", "depths", type=click.IntRange(1, 256), multiple=True, default=[1, 32], show_default=True,
              help="Requests in flight of each; may be repeated.")  # fmt: skip
@click.option("--medium", type=click.Choice(["null", "ram"]), default="null", show_default=True)
def command(
    run: Run, paths: Sequence[str], loads: Sequence[str], sizes: Sequence[int], blocks: Sequence[int],
    numbers: Sequence[int], depths: Sequence[int], medium: str,
) -> None:  # fmt: skip
    """Measure `rate`, `iops`, `throughput` and `cpu_per_byte` of every combination of path, size, guests and depth.

    All of them live on one host at the same time and take turns in short windows, so that a slow minute of the machine
    is a slow minute of all.
    """
    with bench_host(medium=medium) as host, crew(host) as guests:
        run.describe(
            **host.describe(), batch=BATCH, medium=medium,
            verified="sender, sequence and check words of every frame; status and length of every completion",
        )  # fmt: skip
        run.in_turn(cases(guests, run.seconds, paths, loads, sizes, blocks, numbers, depths))


def cases(
    guests: Crew, seconds: float, paths: Sequence[str], loads: Sequence[str], sizes: Sequence[int],
    blocks: Sequence[int], numbers: Sequence[int], depths: Sequence[int],
) -> list[Case]:  # fmt: skip
    """All cases; guests of one path, size and number serve every depth."""
    cells = len(paths) * len(numbers) * len(depths)
    cells *= len(sizes) * ("net" in loads) + len(blocks) * ("disk" in loads)
    window = min(WINDOW, max(0.02, seconds / (cells * 5)))
    found: list[Case] = []
    for path, number in itertools.product(paths, numbers):
        for size in sizes if "net" in loads else ():
            net = NetLoads(guests, path, size, number, number)
            for depth in depths:
                parameters = {"path": path, "size": size, "guests": 2 * number, "depth": depth}
                found += _cell("rate", "frames/s", _frames(net, size, depth), "nic0", parameters, window)
        for block in blocks if "disk" in loads else ():
            disk = DiskLoads(guests, path, DISK_SIZE, max(depths) * block, guests=number)
            for depth in depths:
                parameters = {"path": path, "block": block, "guests": number, "depth": depth, "op": "read"}
                found += _cell("iops", "requests/s", _reads(disk, block, depth), "disk0", parameters, window)
    return found


def _frames(net: NetLoads, size: int, depth: int) -> Shared:
    def take(seconds: float) -> Window:
        return net.window(seconds, size=size, depth=depth, batch=min(BATCH, depth), cpu=True)

    return Shared(take)


def _reads(disk: DiskLoads, block: int, depth: int) -> Shared:
    return Shared(lambda seconds: disk.window(seconds, op="read", block=block, depth=depth, cpu=True))


def _cell(
    name: str, unit: str, shared: Shared, device: str, parameters: dict[str, Any], window: float
) -> list[Case]:
    return [
        Case(name, unit, shared.first(lambda w: w.rate), parameters, window=window),
        Case("throughput", "bytes/s", shared.then(lambda w: w.throughput), parameters),
        *cpu_cases(shared, device, parameters),
    ]

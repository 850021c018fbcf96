"""hostctl bench sharing: many guests on one adapter, against one guest that has it to itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from tools.bench import flags
from tools.bench.crew import crew
from tools.bench.disk import CAPACITY, FILE, fill
from tools.bench.host import MEDIA, WITH_FILES, bench_host, disk_files
from tools.bench.loads import DiskLoads, NetLoads
from tools.measure.command import Run, benchmark
from tools.measure.turns import Case, Measure

SECONDS = 18.0
WINDOW = 0.2
SIZES = (64, 1500, 65536)
BLOCK = 4096
BATCH = 64
DISK_SIZE = 16 << 20
DEPTH = 512  # of all guests together: what the queue of one receiver holds
DEPTH_LARGE = 256  # of frames whose buffers together would be larger than the processor's cache
LARGE = 32768


@benchmark(seconds=SECONDS)
@flags.paths()
@click.option("--medium", type=click.Choice(MEDIA), default="file", show_default=True, help="Of the disks.")
@click.option("--guests", type=click.IntRange(2, 32), default=8, show_default=True, help="That share the adapter.")
@flags.sizes(SIZES)
def command(run: Run, paths: Sequence[str], medium: str, guests: int, sizes: Sequence[int]) -> None:
    """Measure what guests reach together that share an adapter; the baseline is one of them with the adapter to itself.

    `rate`: all send to one receiver. `iops`: all read from one disk device, a file in the page cache; with
    the medium `null` a request costs the device nothing, and what shows are the guests' own processor and its switches.
    The requests in flight are the same in number with one guest as with all of them, so the adapter has the same queue
    before it and the buffers take the same room in the caches.
    """
    with disk_files(medium) as folder, bench_host(folder, medium) as host, crew(host) as crowd:
        file = FILE if medium in WITH_FILES else None
        if file:
            fill(folder / FILE, DISK_SIZE)
        run.describe(
            **host.describe(), batch=BATCH,
            verified="sender, sequence and check words of every frame; status and length of every completion",
        )  # fmt: skip
        cases: list[Case] = []
        window = min(WINDOW, run.seconds / (len(paths) * (len(sizes) + 1) * 8))
        for path in paths:
            for size in sizes:
                net = NetLoads(crowd, path, size, senders=guests)
                depth = DEPTH if size < LARGE else DEPTH_LARGE
                parameters: dict[str, Any] = {"path": path, "size": size, "guests": guests, "depth": depth}
                together, alone = frames(net, size, depth, guests), frames(net, size, depth, 1)
                cases.append(Case("rate", "frames/s", together, parameters, "one guest", alone, window))
            disk = DiskLoads(crowd, path, DISK_SIZE, CAPACITY * BLOCK, file, guests)
            parameters = {"path": path, "block": BLOCK, "medium": medium, "guests": guests, "depth": CAPACITY}
            together, alone = reads(disk, guests), reads(disk, 1)
            cases.append(Case("iops", "requests/s", together, parameters, "one guest", alone, window))
        run.in_turn(cases)


def frames(net: NetLoads, size: int, depth: int, active: int) -> Measure:
    def measure(seconds: float) -> float:
        return net.window(seconds, size=size, depth=depth // active, batch=BATCH, active=active).rate

    return measure


def reads(disk: DiskLoads, active: int) -> Measure:
    def measure(seconds: float) -> float:
        return disk.window(seconds, op="read", block=BLOCK, depth=CAPACITY // active, active=active).rate

    return measure

"""hostctl bench net: frames from guest to guest through the switch of the NIC."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import click

from tools.bench import flags, large, memif
from tools.bench.crew import crew
from tools.bench.host import bench_host
from tools.bench.loads import NetLoads, Window
from tools.bench.results import LOAD, Shared, cpu_cases, host_cases, latency_cases, window_of
from tools.measure.command import Run, benchmark
from tools.measure.turns import Case, Measure

SECONDS = 20.0
BATCH = 64
CAPACITY = 512  # of a NIC's queues, in buffers


@benchmark(seconds=SECONDS)
@flags.path()
@flags.size()
@click.option(
    "--guests",
    type=click.IntRange(2, 16),
    default=2,
    show_default=True,
    help="Half of them send, each to a receiver of its own.",
)
@click.option("--depth", type=click.IntRange(1, CAPACITY), default=CAPACITY, show_default=True,
              help="Frames in flight of each sender.")  # fmt: skip
@click.option("--batch", type=click.IntRange(1, CAPACITY), default=BATCH, show_default=True,
              help="Frames that are published at once.")  # fmt: skip
@flags.rate()
@click.option("--offload", is_flag=True,
              help="Large sends of that size through the guest's API; baseline: frames of 1,500 bytes.")  # fmt: skip
def command(
    run: Run, path: str, size: int, guests: int, depth: int, batch: int, rate: float | None, offload: bool
) -> None:
    """Measure `rate` and `throughput` of frames that arrived, and `round_trip` of a lone send until its completion.

    `latency` is that of an open loop, from the intended time of a send to the arrival; `cpu_per_byte` counts the
    processor time of all processes of the host and its guests; `notifications` are wake-ups for each frame, at most.

    Every frame's sender, sequence and check words are verified by its receiver; a lost, repeated or corrupt one ends
    the run with an error. The baseline of `throughput` is memcpy of the same blocks over the same working set in one
    thread, that of `rate` a pair of DPDK's testpmd over memif, where that is installed, for the direct path.
    """
    if offload:
        large.measure(run, path, size)
        return
    if guests % 2:
        raise click.BadParameter("an even number: senders and receivers in pairs", param_hint="--guests")
    parameters: dict[str, Any] = {"path": path, "size": size, "guests": guests, "depth": depth, "batch": batch}
    window = window_of(run)
    pairs = guests // 2
    with ExitStack() as stack:
        host = stack.enter_context(bench_host())
        load_guests = stack.enter_context(crew(host))
        load = NetLoads(load_guests, path, size, pairs, pairs)
        peer = None
        if path == "direct" and size in memif.SIZES and memif.installed():
            peer = stack.enter_context(memif.memif(size))
        run.describe(**host.describe(), verified=VERIFIED)

        def saturated(seconds: float) -> Window:
            return load.window(seconds, size=size, depth=depth, batch=batch, cpu=True)

        asked = rate or round(LOAD * load.window(window, size=size, depth=depth, batch=batch).rate)
        closed = Shared(saturated)
        opened = Shared(lambda seconds: load.window(seconds, size=size, depth=depth, batch=batch, rate=asked / pairs))
        lone = Shared(lambda seconds: load.window(seconds, size=size, depth=1, batch=1, timed=True, active=1))
        run.in_turn(
            [
                Case("rate", "frames/s", closed.first(lambda w: w.rate), parameters,
                     "dpdk memif" if peer else None, peer.rate if peer else None, window),
                Case("throughput", "bytes/s", closed.then(lambda w: w.throughput), parameters, "memcpy",
                     copies(size, depth * pairs, CAPACITY * pairs, window)),
                *cpu_cases(closed, "nic0", parameters),
                *host_cases(load_guests, [*load.senders, *load.receivers], saturated, parameters, window),
                Case("round_trip", "seconds", lone.first(lambda w: w.completion.quantile(0.5) if w.completion else 0.0),
                     {**parameters, "depth": 1, "batch": 1}, window=window),
                *(latency_cases(opened, {**parameters, "rate": asked}, window) if size >= TIMED else []),
            ]
        )  # fmt: skip


VERIFIED = "sender, sequence and check words of every frame; lost, repeated, corrupt: 0"
TIMED = 48  # bytes: smaller frames have no room for a time


def copies(size: int, sources: int, targets: int, window: float) -> Measure:
    """Bytes a second of memcpy between as many buffers as the senders and receivers have."""
    from pyx.baseline import Copies

    areas = Copies(size, sources, targets)

    def measure(_seconds: float) -> float:
        done, taken = areas.run(window)
        return done * size / taken

    return measure

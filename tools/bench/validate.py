"""hostctl bench validate: fetch, check and translate requests on one processor."""

import os

import click

from tools.measure.command import Run, benchmark
from tools.measure.turns import Case, Measure

PAGES = 1 << 18  # 1 GiB of partition memory
BATCH = 32
INVALID_EVERY = 100
SEED = 1
SECONDS = 5.0


@benchmark(seconds=SECONDS)
@click.option("--seed", type=int, default=SEED, show_default=True, help="Seed of addresses and offsets.")
def command(run: Run, seed: int) -> None:
    """Measure how fast one processor fetches requests from a ring, validates them and translates their addresses.

    Random unaligned ranges of 4 KiB over 1 GiB of partition memory; the mapping cache is cold for each batch of 32; one
    request of 100 is invalid. With contiguous frames a range is one host extent, with scattered frames it is two.
    """
    from pyx.bench import ValidateLoad

    before = os.sched_getaffinity(0)
    processor = max(before)
    run.describe(
        placement=[processor], memory_bytes=PAGES * 4096, batch=BATCH, mapping_cache="cold for each batch",
        verified="number of refusals and of host extents",
    )
    loads = {frames: ValidateLoad(PAGES, frames == "scattered", INVALID_EVERY, seed)
             for frames in ("contiguous", "scattered")}

    def rate(frames: str) -> Measure:
        def measure(seconds: float) -> float:
            requests, taken = loads[frames].run(BATCH, seconds)
            return requests / taken

        return measure

    def cost(frames: str) -> Measure:
        return lambda seconds: 1 / rate(frames)(seconds)

    def parameters(frames: str) -> dict[str, object]:
        return {"frames": frames, "length": 4096, "invalid": 1 / INVALID_EVERY, "seed": seed}

    os.sched_setaffinity(0, {processor})
    try:
        run.in_turn([Case("throughput", "requests/s", rate(frames), parameters(frames)) for frames in loads]
                    + [Case("cost", "seconds", cost(frames), parameters(frames)) for frames in loads])
    finally:
        os.sched_setaffinity(0, before)

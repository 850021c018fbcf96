"""hostctl bench disks: the rates that a disk is judged by, each against what else could do it, in one run."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from tools.bench import flags
from tools.bench.disk import set_up
from tools.measure.command import Run, benchmark
from tools.measure.turns import Case

SECONDS = 100.0
DEPTH = 32
WINDOW = 0.5  # seconds, or a share of all
RANDOM, SEQUENTIAL = 4096, 128 << 10

#: (medium, operation, access). A volume is compared with a plain file of another host, all else with fio. Cached writes
#: of a file system on a disk are reported by `bench disk`: what they reach depends on the state of the page cache.
POINTS = (
    ("file", "read", "random"),
    ("tmpfs", "write", "random"),
    ("direct", "read", "random"),
    ("direct", "write", "random"),
    ("volume", "read", "random"),
    ("volume", "write", "random"),
    ("file", "read", "sequential"),
    ("tmpfs", "write", "sequential"),
)


@benchmark(seconds=SECONDS)
@flags.path(default="direct")
def command(run: Run, path: str) -> None:
    """Measure `iops` of one guest for every medium, and `throughput` of long requests: depth 32, 64 MiB.

    The baseline is the better of fio's psync and io_uring, with one worker and the same depth, on the same file; of a
    volume, every block of which is allocated, a plain file through the same processes. `bench nbd` and `bench volume`
    measure the rest.
    """
    share = 1 / len(POINTS)
    window = min(WINDOW, run.seconds * share / 12)
    for medium, op, access in POINTS:
        block = RANDOM if access == "random" else SEQUENTIAL
        parameters: dict[str, Any] = {
            "path": path, "block": block, "depth": DEPTH, "op": op, "access": access, "medium": medium,
        }  # fmt: skip
        with ExitStack() as hosts:
            setup = set_up(hosts, parameters, window)
            references = setup.references
            best = max(references, key=lambda name: references[name](window), default=None)
            measured, scale = ("iops", 1) if access == "random" else ("throughput", block)

            def rate(seconds: float, setup: Any = setup, scale: int = scale) -> float:
                return scale * float(setup.load.window(seconds, depth=DEPTH, **setup.kind).rate)

            def base(seconds: float, name: str | None = best, setup: Any = setup, scale: int = scale) -> float:
                return scale * float(setup.references[name](seconds))

            unit = "requests/s" if access == "random" else "bytes/s"
            verified = "status and length of every completion; content by the tests"
            run.describe(**setup.host.describe(), verified=verified)
            run.in_turn([Case(measured, unit, rate, parameters, best, base if best else None, window)], share)

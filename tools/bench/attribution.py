"""hostctl bench attribution: what the time stamps of the stages cost."""

from __future__ import annotations

from typing import Any

from tools.bench import flags
from tools.bench.sides import settings, sides
from tools.measure.command import Run, benchmark
from tools.measure.compare import CONFIDENCE, Interval, alternate
from tools.measure.result import Result

SECONDS = 20.0
WINDOW = 0.02
SHOWN = ("path", "size", "block", "depth", "batch", "op")
CASES = {"net": "path=direct,size=64", "disk": "path=redirect,block=4096"}


@benchmark(seconds=SECONDS)
@flags.seed()
def command(run: Run, seed: int) -> None:
    """Measure `overhead`: the share of the rate that is lost while the stages are stamped, on against off.

    Frames of 64 bytes on the direct path, and reads of 4 KiB on the redirect path from a null medium, where a request
    costs least, so that the stamps weigh most. Windows with and without stamps alternate in pairs whose order is drawn;
    the range of the result is its interval at 99 %.
    """
    run.results += [_overhead(run, load, settings(load, text), seed) for load, text in CASES.items()]


def _overhead(run: Run, load: str, given: dict[str, Any], seed: int) -> Result:
    off, on = {**given, "attribution": "off"}, {**given, "attribution": "on"}
    with sides(load, [given]) as found:
        run.describe(
            **found.facts(), seed=seed, window=WINDOW, confidence=CONFIDENCE,
            verified="every frame or completion, as bench net and bench disk do",
        )  # fmt: skip
        samples = alternate(
            lambda seconds: found.rate(off, seconds), lambda seconds: found.rate(on, seconds),
            run.seconds / len(CASES), WINDOW, seed,
            lambda share: run.progress.show(share, f"{load}, stamps off and on"),
        )  # fmt: skip
    ratio = samples.ratio(seed)
    overhead = Interval(1 - ratio.value, 1 - ratio.high, 1 - ratio.low, ratio.confidence)
    lost = [1 - b / a for a, b in zip(samples.first, samples.second, strict=True)]
    parameters: dict[str, Any] = {"load": load, **{key: given[key] for key in given if key in SHOWN}, "seed": seed}
    return Result("overhead", parameters, "fraction", samples=lost, interval=overhead)

"""hostctl bench ab: are two configurations different?"""

from __future__ import annotations

from typing import Any

import click

from tools.bench import flags
from tools.bench.sides import DEFAULTS, LOADS, settings, sides
from tools.measure.command import Run, benchmark
from tools.measure.compare import CONFIDENCE, alternate, verdict
from tools.measure.result import Result

SECONDS = 15.0
WINDOW = 0.02
UNITS = {"net": "frames/s", "disk": "requests/s"}
KEYS = "; ".join(f"{load}: {', '.join(keys)}" for load, keys in DEFAULTS.items())


@benchmark(seconds=SECONDS)
@click.option("--load", type=click.Choice(LOADS), default="net", show_default=True, help="What is measured.")
@click.option("--a", "first", metavar="KEY=VALUE,...", default="", help=f"First configuration. Keys: {KEYS}.")
@click.option("--b", "second", metavar="KEY=VALUE,...", default="", help="Second configuration.")
@click.option(
    "--plant",
    type=click.FloatRange(0, 1),
    help="Have the generator burn this share of the time in the second one: a slowdown that is to be found.",
)
@click.option("--window", type=click.FloatRange(0.005, 10), default=WINDOW, show_default=True, help="Seconds of each.")
@flags.seed()
def command(
    run: Run, load: str, first: str, second: str, plant: float | None, window: float, seed: int
) -> None:
    """Compare two configurations of a load: `ratio` of their rates, second over first, and whether it is `different`
    from 1.

    Windows alternate in pairs whose order is drawn, on the same guests. The range of `ratio` is its interval at 99 %;
    `different` is 1 where that does not hold 1, and the environment has the verdict in words.

    \b
        hostctl bench ab --load disk --a path=redirect --b path=direct
        hostctl bench ab --plant 0.05
    """
    both = [settings(load, first), settings(load, second)]
    if plant is not None:
        both = [{**given, "slowdown": burned} for given, burned in zip(both, (0.0, plant), strict=True)]
    with sides(load, both) as found:
        run.describe(
            **found.facts(), seed=seed, window=window, confidence=CONFIDENCE,
            verified="every frame or completion, as bench net and bench disk do",
        )  # fmt: skip
        samples = alternate(
            lambda seconds: found.rate(both[0], seconds), lambda seconds: found.rate(both[1], seconds),
            run.seconds, window, seed, lambda share: run.progress.show(share, f"{load} a, b"),
        )  # fmt: skip
    ratio = samples.ratio(seed)
    word = verdict(ratio)
    run.describe(verdict=word)
    parameters: dict[str, Any] = {"load": load, "a": first, "b": second, "window": window, "seed": seed}
    if plant is not None:
        parameters["plant"] = plant
    pairs = [b / a for a, b in zip(samples.first, samples.second, strict=True)]
    run.results += [
        Result("ratio", {**parameters, "confidence": CONFIDENCE}, "fraction", samples=pairs, interval=ratio),
        Result("different", parameters, "1", samples=[float(word == "different")]),
        Result("rate", {**parameters, "side": "a"}, UNITS[load], samples=samples.first),
        Result("rate", {**parameters, "side": "b"}, UNITS[load], samples=samples.second),
    ]

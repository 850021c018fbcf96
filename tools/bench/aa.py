"""hostctl bench aa: how often the harness calls a configuration different from itself."""

from __future__ import annotations

from typing import Any

import click

from tools.bench import flags
from tools.bench.sides import LOADS, settings, sides
from tools.measure.command import Run, benchmark
from tools.measure.compare import CONFIDENCE, alternate, verdict
from tools.measure.result import Result

SECONDS = 0.5  # of one comparison
RUNS = 20
WINDOW = 0.015


@benchmark(seconds=SECONDS)
@click.option("--load", type=click.Choice(LOADS), default="net", show_default=True, help="What is measured.")
@click.option("--settings", "text", metavar="KEY=VALUE,...", default="", help="As those of bench ab.")
@click.option("--runs", type=click.IntRange(1, 10000), default=RUNS, show_default=True, help="Comparisons.")
@flags.seed()
def command(run: Run, load: str, text: str, runs: int, seed: int) -> None:
    """Compare a configuration with itself, again and again: `different` is the share of runs that say so.

    With intervals of 99 % one of 100 is expected; more than 5 of 100 mean that the intervals are not what they say, or
    that windows are not alike. --seconds is the time of one comparison.
    """
    given = settings(load, text)
    with sides(load, [given]) as found:
        run.describe(
            **found.facts(), seed=seed, window=WINDOW, confidence=CONFIDENCE,
            verified="every frame or completion, as bench net and bench disk do",
        )  # fmt: skip
        words, spans = [], []
        for number in range(runs):
            run.progress.show(number / runs, f"comparison {number + 1} of {runs}")
            samples = alternate(
                lambda seconds: found.rate(given, seconds), lambda seconds: found.rate(given, seconds),
                run.seconds, WINDOW, seed + number,
            )  # fmt: skip
            ratio = samples.ratio(seed + number)
            words.append(float(verdict(ratio) == "different"))
            spans.append(ratio.high - ratio.low)
    parameters: dict[str, Any] = {"load": load, "settings": text, "runs": runs, "seed": seed}
    share = Result("different", parameters, "fraction", samples=[sum(words) / runs])
    run.results += [share, Result("interval", {**parameters, "confidence": CONFIDENCE}, "fraction", samples=spans)]

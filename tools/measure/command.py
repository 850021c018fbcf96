"""The decorator that makes a function a benchmark: `hostctl bench NAME`.

A file in tools/bench with a function under this decorator, named `command`, is a benchmark; nothing else is to be
registered.
"""

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from tools import output
from tools.measure.environment import environment
from tools.measure.result import Result, document
from tools.measure.show import table
from tools.measure.turns import ROUNDS_DEFAULT, ROUNDS_LEAST, Case, Progress, in_turn

SECONDS_MOST = 3600.0


class Run:
    """One run of a benchmark: how long it may take, and what it found."""

    def __init__(self, name: str, seconds: float, rounds: int) -> None:
        self.name = name
        self.seconds = seconds
        self.rounds = rounds  # at least
        self.progress = Progress(f"bench {name}")
        self.results: list[Result] = []
        self.facts: dict[str, Any] = {}
        self.on_document: Callable[[dict[str, Any]], None] | None = None  # called with the document before it is shown

    def describe(self, **facts: Any) -> None:
        """Adds to the environment block: placement, seed, what was verified."""
        self.facts.update(facts)

    def in_turn(self, cases: Sequence[Case], share: float = 1.0) -> list[Result]:
        """Measures `cases` in turn for `share` of the run's seconds and keeps the results."""
        self.progress.part(share)
        found = in_turn(cases, self.seconds * share, self.progress, self.rounds)
        self.results += found
        return found


def benchmark(seconds: float, **settings: Any) -> Callable[[Callable[..., None]], click.Command]:
    """Makes a function of (Run, flags...) the benchmark of its module; by default it takes about `seconds`, and five
    rounds at least."""
    asked = seconds

    def decorate(function: Callable[..., None]) -> click.Command:
        name = function.__module__.rpartition(".")[2]

        @functools.wraps(function)
        def call(seconds: float, form: str | None, as_json: bool, **flags: Any) -> None:
            run = Run(name, seconds, ROUNDS_DEFAULT if seconds >= asked else ROUNDS_LEAST)
            facts = environment()  # before the load of the benchmark itself
            try:
                function(run, **flags)
            finally:
                run.progress.clear()
            whole = document(name, facts | {"seconds": seconds} | run.facts, run.results)
            if run.on_document is not None:
                run.on_document(whole)
            form = "json" if as_json else form or "table"
            output.emit(whole, form, lambda: table(run.results), rows=whole["results"])

        command: Any = call
        for option in reversed(_shared(seconds)):
            command = option(command)
        short = (sys.modules[function.__module__].__doc__ or "").partition("\n")[0].partition(": ")[2]
        return click.command(name, short_help=short, **settings)(command)

    return decorate


def _shared(seconds: float) -> list[Any]:
    return [
        click.option(
            "--seconds",
            type=click.FloatRange(0.1, SECONDS_MOST),
            default=seconds,
            show_default=True,
            help="Time to measure.",
        ),
        click.option(
            "--output", "form", type=click.Choice(output.FORMATS), help="Form of the data. [default: table]"
        ),
        click.option("--json", "as_json", is_flag=True, help="Short for --output json."),
    ]

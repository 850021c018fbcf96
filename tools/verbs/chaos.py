"""hostctl chaos: faults on purpose."""

from __future__ import annotations

import random
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import TYPE_CHECKING, Any

import click

from tools import chaos, options
from tools.folders import FolderGroup

if TYPE_CHECKING:
    from tools.bench.host import BenchHost

FAILED = 1  # exit status where a figure is not 0
KINDS = ("kill", "stop", "slow")
SECONDS = 600.0


class Faults(FolderGroup):
    members = chaos


class Words(click.ParamType):
    """Words between commas; `known` empty: any."""

    name = "words"

    def __init__(self, *known: str) -> None:
        self._known = known

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        words = value if isinstance(value, list) else [word.strip() for word in value.split(",") if word.strip()]
        wrong = [word for word in words if self._known and word not in self._known]
        if wrong or not words:
            self.fail(f"{value!r}: known: {', '.join(self._known)}", param, ctx)
        return list(dict.fromkeys(words))


@options.verb(cls=Faults, invoke_without_command=True)
@click.option(
    "--roles", type=Words(),
    help="Whom to strike: io-a, io-b, monitor, guest, a device's name, ultravisor, command, operations, hostd. "
    "[default: all of the host]",
)  # fmt: skip
@click.option("--kinds", type=Words(*KINDS), default=",".join(KINDS), show_default=True, help="How.")
@click.option("--count", type=click.IntRange(1), default=3, show_default=True, help="Faults of each role and kind.")
@click.option("--together", type=click.IntRange(1), default=1, show_default=True,
              help="Strike so many roles within 200 ms.")  # fmt: skip
@click.option("--pairs", is_flag=True, help="Strike one more role 0 to 200 ms after each.")
@click.option("--seed", type=int, help="Of the sequence of faults and of the load. [default: drawn, and told]")
@click.option("--path", type=click.Choice(["copy", "redirect", "direct"]), default="redirect", show_default=True,
              help="Of the load's endpoints.")  # fmt: skip
@click.option("--seconds", type=click.FloatRange(1.0), default=SECONDS, show_default=True,
              help="No fault begins later.")  # fmt: skip
@click.option("--pause", type=options.DURATION, default="0", show_default=True,
              help="That the load rests after each round: processor time for whoever is started again.")  # fmt: skip
@click.option("--forked", is_flag=True,
              help="The next hostd is a fork of a process that has its imports done, which take most of its start.")
@click.option("--running", is_flag=True, help="Strike the running host. [default: one of the verb's own]")
def command(
    session: options.Session, roles: list[str] | None, kinds: list[str], count: int, together: int, pairs: bool,
    seed: int | None, path: str, seconds: float, pause: float, forked: bool, running: bool,
) -> int:  # fmt: skip
    """Kill (SIGKILL), stop (SIGSTOP, later SIGCONT) and slow roles of a host under load, and tell what came of it.

    Two guests move frames and blocks, and check each; one more is there to be struck (guest). Exit status 1 where
    anything was lost, repeated, changed, leaked or never answered, or a role did not come back. The same seed
    gives the same sequence of faults:

    \b
        hostctl chaos --roles io-a,io-b,monitor --kinds kill --count 20 --seed 1
        hostctl chaos delay disk0 device 5ms     # a running host, no load of its own
    """
    if click.get_current_context().invoked_subcommand is not None:
        return 0
    # Loaded here: the others of this group do without.
    from tools import daemon
    from tools.bench.crew import crew
    from tools.chaos import verdict
    from tools.chaos.campaign import Campaign, all_roles, known
    from tools.chaos.faults import sequence
    from tools.chaos.load import Load
    from tools.chaos.nursery import Nursery
    from tools.measure.turns import Progress

    seed = random.SystemRandom().getrandbits(32) if seed is None else seed
    progress = Progress("chaos")
    with _host(session, running) as host, crew(host) as guests, ExitStack() as stack:
        start = stack.enter_context(Nursery()).start if forked else daemon.start
        roles = roles or all_roles(host)
        known(host, roles)
        faults = sequence(seed, roles, kinds, count, pairs, together)
        load = Load(host, guests, path, seed, pause)
        try:
            outcome = Campaign(host, load, progress.show, start).run(faults, seconds)
        finally:
            progress.clear()
            load.close()
        document = verdict.document(seed, outcome)  # before the host is taken down, which may fail where much has
        session.emit(document, lambda: verdict.text(document), document["events"])
    return FAILED if verdict.failed(document) else 0


def _host(session: options.Session, running: bool) -> AbstractContextManager[BenchHost]:
    from tools.bench.host import BenchHost, bench_host

    return nullcontext(BenchHost(session.paths, "")) if running else bench_host()

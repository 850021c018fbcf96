"""hostctl wait: until a partition has a state."""

from collections.abc import Iterable

import click

from tools import options
from tools.client import partition_path

STATES = ("running", "stopped", "failed", "starting", "stopping", "defined")
WAIT_SECONDS = 60.0
ANSWER_SECONDS = 10.0


class Condition(click.ParamType):
    """`state=NAME`."""

    name = "condition"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        key, _, state = value.partition("=")
        if key != "state" or state not in STATES:
            self.fail(f"{value!r} is not state=STATE; states: {', '.join(STATES)}", param, ctx)
        return state


@options.verb()
@click.argument("name", type=options.NAME)
@click.option("--for", "state", type=Condition(), required=True, metavar="state=STATE", help="What to wait for.")
@click.option("--timeout", type=options.DURATION, default=WAIT_SECONDS, help="Exit code 7 after this time.")
def command(session: options.Session, name: str, state: str, timeout: float) -> None:
    """Wait until the partition NAME has a state; at once where it has it already.

    Exit code 5 where it can not get there any more.
    """
    body = {"state": state, "timeout": timeout}
    row = session.client().post(partition_path(name, "/wait"), body, timeout=timeout + ANSWER_SECONDS)

    def text() -> Iterable[str]:
        yield f"{name} {row['state']}"

    session.emit(row, text)

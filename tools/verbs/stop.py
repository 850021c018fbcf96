"""hostctl stop: end a guest, and keep its record, log and counters."""

from collections.abc import Iterable

import click

from tools import options
from tools.client import partition_path
from tools.verbs.list import ending

GRACE_SECONDS = 5.0
ANSWER_SECONDS = 30.0  # beyond the grace: kill, revoke, record


@options.verb()
@click.argument("name", type=options.NAME)
@click.option(
    "--timeout", type=options.DURATION, default=GRACE_SECONDS, help="Time to end by itself, then it is killed."
)
@options.key_option
def command(session: options.Session, name: str, timeout: float, key: str | None) -> None:
    """Stop the partition NAME; `hostctl rm` removes it."""
    headers = {"Idempotency-Key": key} if key else None
    path = partition_path(name, "/stop")
    row = session.client().request(
        "POST", path, {"timeout": timeout}, timeout=timeout + ANSWER_SECONDS, headers=headers
    )

    def text() -> Iterable[str]:
        yield f"{name} {row['state']}: {ending(row)}"

    session.emit(row, text)

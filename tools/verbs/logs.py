"""hostctl logs: what a process wrote."""

from collections.abc import Iterable

import click

from tools import options
from tools.client import partition_path


@options.verb()
@click.argument("name", type=options.NAME)
@click.option("--tail", type=click.IntRange(min=0), metavar="N", help="Only the last N lines.")
def command(session: options.Session, name: str, tail: int | None) -> None:
    """Show the end of what the partition NAME wrote to stdout and stderr; also of hostd and keeper, which are none."""
    log = session.client().get(partition_path(name, "/logs"))["log"]
    lines = log.splitlines()
    if tail is not None:
        lines = lines[len(lines) - min(tail, len(lines)) :]

    def text() -> Iterable[str]:
        return lines

    session.emit({"name": name, "lines": lines}, text, rows=lines)

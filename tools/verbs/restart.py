"""hostctl restart: the next process of a role, also of one that was given up."""

import click

from tools import options
from tools.client import partition_path

ANSWER_SECONDS = 40.0  # longer than hostd waits


@options.verb()
@click.argument("name", type=options.NAME)
def command(session: options.Session, name: str) -> None:
    """Start the next process of the role NAME: monitor, io-a, io-b, ultravisor, command, operations, or a device.

    The host starts a role again by itself when it dies or hangs; one that dies again and again is given up, and the
    endpoints that need it say so (`hostctl view`). This brings it back, while guests go on.
    """
    row = session.client().request("POST", partition_path(name, "/restart"), timeout=ANSWER_SECONDS)
    session.emit(row, lambda: [f"{row['name']} runs again: pid {row['pid']}, {row['restarts']} restarts"])

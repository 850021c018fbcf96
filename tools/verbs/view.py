"""hostctl view: what a partition believes, beside what is true."""

import click

from tools import options, output
from tools.client import partition_path


@options.verb()
@click.argument("name", type=options.NAME)
def command(session: options.Session, name: str) -> None:
    """Show what the partition NAME sees of the host, beside what the resource database says."""
    document = session.client().get(partition_path(name, "/view"))
    session.emit(document, lambda: output.tree(document))

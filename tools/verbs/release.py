"""hostctl release: let a held world run again."""

import click

from tools import options
from tools.verbs.hold import switch


@options.verb()
@click.argument("name", type=options.NAME)
def command(session: options.Session, name: str) -> None:
    """Let the world NAME, which `hostctl hold` holds, run again.

    What stayed pending for it is delivered now, once for each burst. Of a world that is not held nothing changes.
    """
    switch(session, name, False)

"""hostctl hold: let the console's world stand, as between two of its turns."""

import click

from tools import options
from tools.client import partition_path


def switch(session: options.Session, name: str, on: bool) -> None:
    """Holds the world NAME or lets it go; prints what it is now."""
    document = session.client().request("PUT", partition_path(name, "/held"), {"held": on})
    session.emit(document, lambda: [f"{name} {'stands until `hostctl release`' if document['held'] else 'runs'}"])


@options.verb()
@click.argument("name", type=options.NAME)
def command(session: options.Session, name: str) -> None:
    """Hold the world NAME until `hostctl release`: a world switch by hand. NAME is the console's.

    Interrupts of its devices stay pending meanwhile, are masked, and arrive once when it runs again:
    `hostctl view NAME --vectors` counts them. Worlds of guests are held by the scheduler only.
    """
    switch(session, name, True)

"""hostctl vdisk clone: a second disk with the same data."""

import click

from tools import options
from tools.vdisk.medium import disk, disk_argument, opened, volume_argument


@options.verb()
@volume_argument
@disk_argument
@click.argument("new")
def command(session: options.Session, volume: str, name: str, new: str) -> None:
    """Make NEW, a disk that begins with what NAME holds now. Both share their blocks until one is written."""
    with opened(session, volume) as held:
        held.clone(name, new)
        document = disk(held, new)
    session.emit(document, lambda: [f"{new}: clone of {name}"])

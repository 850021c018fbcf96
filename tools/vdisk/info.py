"""hostctl vdisk info: a volume, or one of its disks."""

import click

from tools import options, output
from tools.vdisk.medium import disk, opened, volume_argument


@options.verb()
@volume_argument
@click.argument("name", required=False)
def command(session: options.Session, volume: str, name: str | None) -> None:
    """Show what VOLUME is and how much of it is used, or the same of its disk NAME."""
    with opened(session, volume, read_only=True) as held:
        document = disk(held, name) if name else held.info()
    told = {**document, "created": output.date(document["created"])} if name else document
    session.emit(document, lambda: output.tree(told))

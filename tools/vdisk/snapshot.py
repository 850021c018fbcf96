"""hostctl vdisk snapshot: keep what a disk holds now."""

import click

from tools import options
from tools.vdisk.medium import disk, disk_argument, opened, volume_argument


@options.verb()
@volume_argument
@disk_argument
@click.argument("snapshot")
def command(session: options.Session, volume: str, name: str, snapshot: str) -> None:
    """Make SNAPSHOT, a disk that can only be read and keeps what NAME holds now. Both share their blocks."""
    with opened(session, volume) as held:
        held.snapshot(name, snapshot)
        document = disk(held, snapshot)
    session.emit(document, lambda: [f"{snapshot}: snapshot of {name}"])

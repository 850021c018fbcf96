"""hostctl vdisk resize: change the size of a virtual disk."""

import click

from hostd.errors import HostError
from tools import options
from tools.vdisk.medium import disk, disk_argument, opened, volume_argument


@options.verb()
@volume_argument
@disk_argument
@click.option("--size", type=options.SIZE, required=True, help="The new size.")
@click.option("--shrink", is_flag=True, help="A smaller size, too: what lies beyond it is lost.")
def command(session: options.Session, volume: str, name: str, size: int, shrink: bool) -> None:
    """Grow the virtual disk NAME, or shrink it with --shrink."""
    with opened(session, volume) as held:
        before = disk(held, name)["size"]
        if size < int(str(before)) and not shrink:
            raise HostError("conflict", f"{name} has {before} bytes; a smaller size loses data and needs --shrink")
        held.resize(name, size)
        document = disk(held, name)
    session.emit(document, lambda: [f"{name}: {before} to {size} bytes"])

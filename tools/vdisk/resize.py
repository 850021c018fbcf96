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
    """Grow the virtual disk NAME, or shrink it with --shrink.

    Guests that have all of it are told at once; while one has it, it does not shrink.
    """
    with opened(session, volume) as held:
        before = disk(held, name)["size"]
        if size < int(str(before)) and not shrink:
            raise HostError("conflict", f"{name} has {before} bytes; a smaller size loses data and needs --shrink")
        told = held.resize(name, size) or []
        document = {**disk(held, name), "grown": told}
    guests = (f"  {one['partition']} sees them as {one['endpoint']}" for one in told)
    session.emit(document, lambda: [f"{name}: {before} to {size} bytes", *guests])

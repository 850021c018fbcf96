"""hostctl grow: a running guest gets more of a disk."""

from __future__ import annotations

from urllib.parse import quote

import click

from tools import options
from tools.client import partition_path


@options.verb()
@click.argument("name", type=options.NAME)
@click.argument("disk", type=options.ENDPOINT)
@click.argument("size", type=options.SIZE, required=False)
def command(session: options.Session, name: str, disk: str, size: int | None) -> None:
    """Let the running guest NAME have SIZE bytes of its DISK, and tell it; without SIZE all that the medium has.

    The file or virtual disk behind it grows where it has fewer bytes. The guest sees them as `disk.capacity` and in its
    configuration space, and an interrupt tells it; NBD clients see them with their next connection. `hostctl vdisk
    resize` does the same for all guests that have a virtual disk. A disk does not shrink while a guest has it.
    """
    target = partition_path(name, f"/disks/{quote(disk, safe='')}/size")
    told = session.client().request("PUT", target, {"size": size})
    session.emit(told, lambda: [f"{name} {disk}: {told['before']} to {told['size']} bytes"])

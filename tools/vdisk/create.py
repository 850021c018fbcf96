"""hostctl vdisk create: a new virtual disk."""

import click

from tools import options
from tools.vdisk.medium import disk, disk_argument, opened, volume_argument


@options.verb()
@volume_argument
@disk_argument
@click.option("--size", type=options.SIZE, required=True, help="Size of the disk; nothing is allocated yet.")
@click.option("--quota", type=options.SIZE, help="Bytes of blocks that the disk may have. [default: its size]")
def command(session: options.Session, volume: str, name: str, size: int, quota: int | None) -> None:
    """Make the virtual disk NAME. It reads as zeroes, and takes space as it is written."""
    with opened(session, volume) as held:
        held.create(name, size, quota)
        document = disk(held, name)
    session.emit(document, lambda: [f"{name}: {size} bytes, thin"])

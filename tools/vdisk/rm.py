"""hostctl vdisk rm: remove a virtual disk."""

from tools import options
from tools.vdisk.medium import disk, disk_argument, opened, volume_argument


@options.verb()
@volume_argument
@disk_argument
def command(session: options.Session, volume: str, name: str) -> None:
    """Remove the disk or snapshot NAME; blocks that no other disk has are free again, and holes in the file."""
    with opened(session, volume) as held:
        document = disk(held, name)
        before = held.info()["free_bytes"]
        held.remove(name)
        document["freed_bytes"] = held.info()["free_bytes"] - before
        held.give_back()
    session.emit(document, lambda: [f"{name}: removed, {document['freed_bytes']} bytes are free again"])

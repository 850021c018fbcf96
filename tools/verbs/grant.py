"""hostctl grant: gives back what was revoked."""

from __future__ import annotations

import click

from hostd.units import show_size
from tools import options, output
from tools.client import partition_path


@options.verb()
@click.argument("name", type=options.NAME)
@click.argument("offset", type=options.SIZE)
@options.key_option
def command(session: options.Session, name: str, offset: int, key: str | None) -> None:
    """Give the memory that was revoked at OFFSET back to the running guest NAME, full of zeroes."""
    headers = {"Idempotency-Key": key} if key else None
    target = partition_path(name, "/grants")
    document = session.client().request("POST", target, {"offset": offset}, headers=headers)
    took = output.seconds(document["seconds"])
    what = f"{show_size(document['size'])} of memory at {document['offset']:#x}"
    session.emit(document, lambda: [f"{name} has {what} again, generation {document['generation']}, after {took}"])

"""hostctl grant: gives back what was revoked."""

from __future__ import annotations

from typing import Any

import click

from hostd.units import show_size
from tools import options, output
from tools.client import partition_path


@options.verb()
@click.argument("name", type=options.NAME)
@click.argument("offset", type=options.SIZE, required=False)
@click.option("--channel", metavar="@calls", help="The call ring, in place of memory.")
@options.key_option
def command(session: options.Session, name: str, offset: int | None, channel: str | None, key: str | None) -> None:
    """Give the memory that was revoked at OFFSET back to the running guest NAME, full of zeroes; or its call ring."""
    if (offset is None) == (channel is None):
        raise click.UsageError("give either OFFSET or --channel")
    headers = {"Idempotency-Key": key} if key else None
    body: dict[str, Any] = {"offset": offset} if channel is None else {"channel": channel}
    document = session.client().request("POST", partition_path(name, "/grants"), body, headers=headers)
    took = output.seconds(document["seconds"])
    what = document.get("channel") or f"{show_size(document['size'])} of memory at {document['offset']:#x}"
    session.emit(document, lambda: [f"{name} has {what} again, generation {document['generation']}, after {took}"])

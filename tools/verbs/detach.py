"""hostctl detach: takes an endpoint from a running guest."""

from __future__ import annotations

from urllib.parse import quote

import click

from tools import options, output
from tools.client import partition_path


@options.verb()
@click.argument("name", type=options.NAME)
@click.argument("endpoint", type=options.ENDPOINT)
@options.key_option
def command(session: options.Session, name: str, endpoint: str, key: str | None) -> None:
    """Take ENDPOINT from the running guest NAME.

    Afterwards nothing of it is in flight, its place in the guest's hardware reads all ones, and an interrupt has told
    the guest. Requests that the guest still makes there are refused.
    """
    headers = {"Idempotency-Key": key} if key else None
    target = partition_path(name, f"/endpoints/{quote(endpoint, safe='')}")
    document = session.client().request("DELETE", target, headers=headers)
    took = output.seconds(document["seconds"])
    session.emit(document, lambda: [f"{name} has no {endpoint} any more, after {took}"])

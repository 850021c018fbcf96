"""hostctl path: change how the data of a running endpoint travels."""

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

import click

from tools import options
from tools.client import partition_path

PATHS = ("copy", "redirect", "direct")
FOLLOW_SECONDS = 1.0
ANSWER_SECONDS = 30.0  # beyond the guest's time: decision, set-up, taking back


@options.verb()
@click.argument("name", type=options.NAME)
@click.argument("endpoint", type=options.ENDPOINT)
@click.argument("path", type=click.Choice(PATHS))
@click.option(
    "--timeout", type=options.DURATION, default=FOLLOW_SECONDS, show_default=True,
    help="Time for the guest to go over; exit code 7 where it does not, and the endpoint stays as it was.",
)
@options.key_option
def command(session: options.Session, name: str, endpoint: str, path: str, timeout: float, key: str | None) -> None:
    """Bring ENDPOINT of the partition NAME onto another path while it works.

    \b
        copy      the monitor copies every byte to and from the I/O partition
        redirect  the device moves the data, the I/O partition passes requests on
        direct    guest and device by themselves, over queues that the monitor set up

    The guest stops, drains and goes on over the other path; nothing is lost. `hostctl explain NAME` says
    why a policy did not allow it.
    """
    headers = {"Idempotency-Key": key} if key else None
    document = session.client().request(
        "PUT",
        partition_path(name, f"/endpoints/{quote(endpoint, safe='')}/path"),
        {"path": path, "timeout": timeout},
        timeout=timeout + ANSWER_SECONDS,
        headers=headers,
    )
    session.emit(document, lambda: _text(document))


def _text(document: dict[str, Any]) -> Iterable[str]:
    subject = f"{document['partition']} {document['endpoint']}"
    if document["before"] == document["path"]:
        yield f"{subject} is on {document['path']} already"
    else:
        yield f"{subject}: {document['before']} to {document['path']} in {document['seconds'] * 1e3:.1f} ms"

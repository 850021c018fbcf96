"""hostctl unload: the kernel goes; guests stop first, devices and interrupt routes go back to the console."""

from collections.abc import Iterable
from typing import Any

import click

from hostd.errors import EXIT_FAILURE
from tools import options
from tools.resources import changes

ANSWER_SECONDS = 120.0


@options.verb()
@click.option("--timeout", type=options.DURATION, default=5.0, show_default=True, help="Time for each guest to end.")
@options.key_option
def command(session: options.Session, timeout: float, key: str | None) -> int:
    """Stop all guests, the last one first, and unload the kernel; the console goes on as before.

    Prints what has changed in the resources of the host, and whether they are what they were before the first load;
    --json has all of them, before and after. Exit code 1 where something is left over.
    """
    headers = {"Idempotency-Key": key} if key else None
    document = session.client().request(
        "POST", "/v1/kernel/unload", {"timeout": timeout}, timeout=timeout + ANSWER_SECONDS, headers=headers
    )
    session.emit(document, lambda: _text(document))
    return 0 if document["same"] else EXIT_FAILURE


def _text(document: dict[str, Any]) -> Iterable[str]:
    yield f"kernel unloaded in {document['seconds'] * 1e3:.0f} ms"
    yield from changes(document["before"], document["after"])
    yield "resources as before the first load" if document["same"] else "resources differ from those before the load"

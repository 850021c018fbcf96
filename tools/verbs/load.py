"""hostctl load: bring the kernel in: monitor and I/O partitions, then the guests of the manifest."""

from collections.abc import Iterable
from typing import Any

from tools import options
from tools.resources import changes

ANSWER_SECONDS = 120.0  # guests of the manifest start in it


@options.verb()
@options.key_option
def command(session: options.Session, key: str | None) -> None:
    """Load the kernel into a host that has only booted: the monitor takes over interrupt routes and devices.

    The console goes on as one world among others, with the queue pairs that it had; no request of its own waits.
    Prints what has changed in the resources of the host; --json has all of them, before and after.
    """
    headers = {"Idempotency-Key": key} if key else None
    document = session.client().request("POST", "/v1/kernel/load", timeout=ANSWER_SECONDS, headers=headers)
    session.emit(document, lambda: _text(document))


def _text(document: dict[str, Any]) -> Iterable[str]:
    yield f"kernel loaded in {document['seconds'] * 1e3:.0f} ms"
    yield from changes(document["before"], document["after"])

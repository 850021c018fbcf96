"""hostctl queues: over how many of a NIC's queue pairs the frames for it are spread."""

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

import click

from pyx.abi import NIC_QUEUES_MAX
from tools import options
from tools.client import partition_path
from tools.verbs.path import ANSWER_SECONDS, FOLLOW_SECONDS


@options.verb()
@click.argument("name", type=options.NAME)
@click.argument("nic", type=options.ENDPOINT)
@click.argument("count", type=click.IntRange(1, NIC_QUEUES_MAX))
@click.option(
    "--timeout", type=options.DURATION, default=FOLLOW_SECONDS, show_default=True,
    help="Time for the guest to take what was delivered; exit code 7 where it does not, and nothing changes.",
)
def command(session: options.Session, name: str, nic: str, count: int, timeout: float) -> None:
    """Spread the frames for NIC of the partition NAME over COUNT of its queue pairs.

    How many it has is said when it is made: `--nic eth0,queues=4`. Which pair a frame goes to is a hash of its
    addresses and ports, so a flow keeps its order; also now, while their number changes.
    """
    document = session.client().request(
        "PUT",
        partition_path(name, f"/endpoints/{quote(nic, safe='')}/queues"),
        {"queues": count, "timeout": timeout},
        timeout=timeout + ANSWER_SECONDS,
    )
    session.emit(document, lambda: _text(document))


def _text(document: dict[str, Any]) -> Iterable[str]:
    subject = f"{document['partition']} {document['endpoint']}"
    if document["before"] == document["queues"]:
        yield f"{subject} uses {document['queues']} of {document['made']} queue pairs already"
    else:
        change = f"{document['before']} to {document['queues']} of {document['made']} queue pairs"
        yield f"{subject}: {change} in {document['seconds'] * 1e3:.1f} ms"

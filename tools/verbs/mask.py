"""hostctl mask: hold the interrupts of an endpoint, or let them through again."""

from urllib.parse import quote

import click

from tools import options
from tools.client import partition_path


@options.verb()
@click.argument("name", type=options.NAME)
@click.argument("endpoint", type=options.ENDPOINT)
@click.option(
    "--queue", type=click.IntRange(0, 1), default=0, show_default=True, help="Of a NIC, 0 sends and 1 receives."
)
@click.option("--off", is_flag=True, help="End the mask: what is pending is delivered once.")
def command(session: options.Session, name: str, endpoint: str, queue: int, off: bool) -> None:
    """Mask one interrupt vector of the partition NAME: that of a queue of ENDPOINT, or of @hardware.

    What is raised meanwhile stays pending as one interrupt, whoever posts it and on whatever path.
    `hostctl view NAME --vectors` shows masks, pending state and counts.
    """
    path = partition_path(name, f"/vectors/{quote(endpoint, safe='')}/{queue}")
    document = session.client().request("PUT", path, {"masked": not off})
    state = "masked" if document["masked"] else "not masked"
    session.emit(document, lambda: [f"{name} {endpoint}.{queue} is {state}"])

"""hostctl unwire: takes a wire from a NIC device."""

from __future__ import annotations

from urllib.parse import quote

import click

from tools import options


@options.verb()
@click.argument("device")
@click.argument("name")
def command(session: options.Session, device: str, name: str) -> None:
    """Take the wire NAME from the NIC device DEVICE; an interface that was made for it goes.

    The one of a partition (`--expose`) stays as long as that runs.
    """
    target = f"/v1/devices/{quote(device, safe='')}/wires/{quote(name, safe='')}"
    document = session.client().request("DELETE", target)
    session.emit(document, lambda: [f"{document['device']} has no wire {document['name']} any more"])

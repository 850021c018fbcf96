"""hostctl console: what the console drives by itself, and the verified stream over it."""

from collections.abc import Iterable
from operator import itemgetter
from typing import Any

import click

from tools import options, output

DEPTH_MAX = 32  # as the API has it
COLUMNS: list[output.Column] = [
    ("ENDPOINT", itemgetter("name")), ("KIND", itemgetter("kind")), ("DEVICE", itemgetter("device")),
]  # fmt: skip


@options.verb()
@click.option("--stream", type=click.Choice(("on", "off")), help="Start or stop the stream; its figures stay.")
@click.option(
    "--depth", type=click.IntRange(1, DEPTH_MAX), metavar="N", help="Disk requests of the stream at once. [default: 1]"
)
def command(session: options.Session, stream: str | None, depth: int | None) -> None:
    """Show the console's own endpoints, at devices of class host-managed, and the figures of its stream.

    The stream writes blocks and sends frames over them without end, reads and receives them again, and compares
    every byte. It goes on through `hostctl load` and `hostctl unload`.
    """
    if depth is not None and stream != "on":
        raise click.UsageError("--depth is for --stream on")
    client = session.client()
    if stream is None:
        document = client.get("/v1/console")
    else:
        body = {"on": stream == "on"} | ({"depth": depth} if depth is not None else {})
        document = client.request("PUT", "/v1/console/stream", body)
    session.emit(document, lambda: _text(document))


def _text(document: dict[str, Any]) -> Iterable[str]:
    if document["endpoints"]:
        yield from output.table(document["endpoints"], COLUMNS)
    else:
        yield "no device is host-managed, so the console has no endpoint"
    writes = ", ".join(document["writes_entries_of"]) or "none: the monitor writes them"
    yield f"translation entries that it writes itself: {writes}"
    figures = dict(document["stream"])
    streaming, gap, error = (figures.pop(name, None) for name in ("streaming", "longest_gap", "last_error"))
    yield f"stream {'on' if streaming else 'off'}: " + ", ".join(f"{value} {name}" for name, value in figures.items())
    if gap is not None:
        yield f"longest time between two rounds: {output.seconds(gap)}"
    if error:
        yield f"last error: {error}"

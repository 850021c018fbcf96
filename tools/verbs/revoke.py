"""hostctl revoke: takes memory, an endpoint or a channel from a running guest, with a deadline and a receipt."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

from hostd.units import show_size
from tools import options, output
from tools.client import partition_path
from tools.verbs.path import ANSWER_SECONDS


@options.verb()
@click.argument("name", type=options.NAME)
@click.argument("offset", type=options.SIZE, required=False)
@click.argument("size", type=options.SIZE, required=False)
@click.option("--endpoint", type=options.ENDPOINT, help="The endpoint of that name, NIC or disk, in place of memory.")
@click.option(
    "--channel", type=options.ENDPOINT, metavar="ENDPOINT|@calls",
    help="The endpoint's queue pair to its device, or the call ring to the monitor, in place of memory.",
)
@click.option(
    "--deadline", type=options.DURATION, default="1s", show_default=True,
    help="Time for monitor, devices and channel servers to let go; what they still hold then is in quarantine until "
    "they do.",
)
@options.key_option
def command(
    session: options.Session,
    name: str,
    offset: int | None,
    size: int | None,
    endpoint: str | None,
    channel: str | None,
    deadline: float,
    key: str | None,
) -> None:
    """Take memory (SIZE bytes from OFFSET on), an endpoint or a channel from the running guest NAME, asked or not.

    After the receipt says `freed`, no byte that was there can change or be read by anybody, no request that came by it
    is carried out, and its ids can be used again. Requests of the guest that name it are refused or given back, and
    counted. The receipt says `quarantine`, and whose, where somebody had not let go by the deadline: `hostctl view
    NAME` shows what came of it.

    \b
    memory         comes back by `hostctl grant NAME OFFSET`, full of zeroes
    endpoint       is gone; another one may have its name at once: `hostctl attach`
    queue pair     the endpoint is on the path redirect then; `hostctl path NAME ENDPOINT direct` gives it another one
    @calls         comes back by `hostctl grant NAME --channel @calls`
    """
    body: dict[str, Any] = {"endpoint": endpoint, "channel": channel}
    if offset is not None and size is not None:
        body["memory"] = {"offset": offset, "size": size}
    body = {kind: what for kind, what in body.items() if what is not None}
    if len(body) != 1 or (offset is None) != (size is None):
        raise click.UsageError("give either OFFSET and SIZE, --endpoint or --channel")
    body["deadline"] = deadline
    headers = {"Idempotency-Key": key} if key else None
    target = partition_path(name, "/revocations")
    document = session.client().request("POST", target, body, headers=headers, timeout=deadline + ANSWER_SECONDS)
    session.emit(document, lambda: text(document))


def text(receipt: dict[str, Any]) -> Iterable[str]:
    took = output.seconds(receipt["seconds"])
    kind = receipt["kind"]
    if kind == "memory":
        what = f"{show_size(receipt['size'])} of memory at {receipt['offset']:#x}"
    else:
        what = f"{kind} {receipt[kind]}"
    subject = f"{receipt['name']}: {what}, generation {receipt['generation']}"
    yield f"{subject}: {receipt['state']} after {took}, {receipt['how']}"
    for holder in receipt["holders"]:
        when = "not yet" if holder["released"] is None else f"after {output.seconds(holder['released'])}"
        ended = ": its process had ended" if holder["ended"] else ""
        yield f"  {holder['name']} ({holder['pid']}) let go {when}{ended}"

"""hostctl revoke: takes memory from a running guest, with a deadline and a receipt."""

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
@click.argument("offset", type=options.SIZE)
@click.argument("size", type=options.SIZE)
@click.option(
    "--deadline", type=options.DURATION, default="1s", show_default=True,
    help="Time for monitor and devices to let go; what they still hold then is in quarantine until they do.",
)
@options.key_option
def command(session: options.Session, name: str, offset: int, size: int, deadline: float, key: str | None) -> None:
    """Take SIZE bytes of memory, from OFFSET on, from the running guest NAME.

    After the receipt says `freed`, no byte that was there can change or be read by anybody: nothing is translated to
    it, no device works on it, and its pages have gone back to the kernel. Requests of the guest that name it are
    refused and counted. `hostctl grant` gives the range back, full of zeroes.
    """
    headers = {"Idempotency-Key": key} if key else None
    body = {"memory": {"offset": offset, "size": size}, "deadline": deadline}
    target = partition_path(name, "/revocations")
    document = session.client().request("POST", target, body, headers=headers, timeout=deadline + ANSWER_SECONDS)
    session.emit(document, lambda: text(document))


def text(receipt: dict[str, Any]) -> Iterable[str]:
    took = output.seconds(receipt["seconds"])
    subject = f"{receipt['name']}: {show_size(receipt['size'])} of memory at {receipt['offset']:#x}"
    yield f"{subject}, generation {receipt['generation']}: {receipt['state']} after {took}"
    for holder in receipt["holders"]:
        when = "not yet" if holder["released"] is None else f"after {output.seconds(holder['released'])}"
        yield f"  {holder['name']} ({holder['pid']}) let go {when}"

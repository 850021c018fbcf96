"""hostctl line: the simulated line of a running guest's NIC: speed, delay, jitter, loss, reordering."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote

import click

from tools import options
from tools.client import partition_path

#: Facts of a line as the manifest has them; the host checks their values.
FACTS = {
    "speed": ("SPEED", "Bits a second, as 100Mbit. [default: unlimited]"),
    "delay": ("TIME", "From the departure of a frame's last bit to its arrival, as 2ms. [default: none]"),
    "jitter": ("TIME", "Most that the delay varies, both ways; frames keep their order. [default: none]"),
    "loss": ("CHANCE", "Probability that a frame is lost, as 1%. [default: 0]"),
    "reorder": ("CHANCE", "Probability that a frame arrives without the delay. [default: 0]"),
    "seed": ("NUMBER", "Of all that is drawn: the same seed, the same fate of each frame. [default: 1]"),
}


def line_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a verb the facts of a line as options; `line_of` makes a line of what was given."""
    for name, (metavar, text) in reversed(FACTS.items()):
        kind = click.IntRange(1) if name == "seed" else click.STRING
        function = click.option(f"--{name}", metavar=metavar, type=kind, help=text)(function)
    return function


def line_of(facts: dict[str, Any]) -> dict[str, Any] | None:
    """As in a manifest; None where no fact was given."""
    return {name: value for name, value in facts.items() if value is not None} or None


@options.verb()
@click.argument("name", type=options.NAME)
@click.argument("nic", type=options.ENDPOINT)
@line_options
@click.option("--none", "ends", is_flag=True, help="No line any more.")
def command(session: options.Session, name: str, nic: str, ends: bool, **facts: Any) -> None:
    """Simulate a line between NIC of the running partition NAME and its switch, for the frames that NIC sends.

    It replaces the line that is there, from the next frame on: frames on their way arrive when they would have, and
    later ones behind them. Both ways are slow where both ends have one.
    """
    line = line_of(facts)
    if ends == (line is not None):
        raise click.UsageError("either --none or a fact of the line is needed, such as --delay 2ms")
    target = partition_path(name, f"/endpoints/{quote(nic, safe='')}/line")
    document = session.client().request("PUT", target, {"line": line})
    session.emit(document, lambda: _text(document))


def _text(document: dict[str, Any]) -> Iterable[str]:
    yield f"{document['partition']} {document['endpoint']}: {shown(document['line'])}, was: {shown(document['before'])}"


def shown(line: dict[str, Any] | None) -> str:
    """What a line does, in words."""
    if line is None:
        return "no line"
    speed = f"{line['speed'] / 1e6:g} Mbit/s" if line["speed"] else "unlimited"
    times = ", ".join(f"{name} {line[name] * 1e3:g} ms" for name in ("delay", "jitter"))
    return f"{speed}, {times}, " + ", ".join(f"{name} {line[name]:g}" for name in ("loss", "reorder"))

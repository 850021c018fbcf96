"""hostctl plan: what `hostctl apply` would change."""

from collections.abc import Iterable
from typing import Any

import click

from tools import options

MARKS = {"create": "+", "attach": "+", "detach": "-", "remove": "-", "replace": "~", "set": "~", "restart": "!"}


def load(file: str) -> dict[str, Any]:
    """A manifest as the API takes it; raises all its problems."""
    import sys

    from hostd import manifest_source

    manifest = manifest_source.loads(sys.stdin.read(), "<stdin>") if file == "-" else manifest_source.load(file)
    return manifest.model_dump(mode="json")


def lines(changes: list[dict[str, Any]]) -> Iterable[str]:
    """Changes as people read them."""
    for change in changes:
        yield f"{MARKS[change['action']]} {_sentence(change)}"
        for key, (running, wanted) in change["fields"].items():
            yield f"    {key}: {running} -> {wanted}"
    if any(change["action"] == "restart" for change in changes):
        yield "! can not change while the host runs: `hostctl down`, then `hostctl up` with this manifest"


def _sentence(change: dict[str, Any]) -> str:
    if change["kind"] == "endpoint":
        partition, _, endpoint = change["name"].partition(".")
        return f"{change['action']} {endpoint} {'to' if change['action'] == 'attach' else 'from'} {partition}"
    text = f"{change['action']} {change['kind']} {change['name']}"
    return f"{text}: ends it and starts it anew" if change["action"] == "replace" else text


@options.verb()
@click.argument("manifest", type=click.Path(dir_okay=False, allow_dash=True))
def command(session: options.Session, manifest: str) -> None:
    """Show what `hostctl apply MANIFEST` would change; changes nothing."""
    document = session.client().post("/v1/plan", load(manifest))
    changes = document["changes"]

    def text() -> Iterable[str]:
        yield from lines(changes)
        if not changes:
            yield "nothing to change"

    session.emit(document, text, rows=changes)

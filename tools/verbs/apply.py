"""hostctl apply: make the running host equal to a manifest."""

from collections.abc import Iterable

import click

from tools import options
from tools.verbs.plan import lines, load

APPLY_SECONDS = 600.0


@options.verb()
@click.argument("manifest", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--dry-run", is_flag=True, help="Only show the changes, as `hostctl plan` does.")
@options.key_option
def command(session: options.Session, manifest: str, dry_run: bool, key: str | None) -> None:
    """Create, replace and remove partitions until the host is as MANIFEST says; a second time changes nothing.

    Partitions are compared by what the manifest says of them: a guest that ended is not started again.
    """
    headers = {"Idempotency-Key": key} if key else None
    path = "/v1/plan" if dry_run else "/v1/apply"
    document = session.client().request("POST", path, load(manifest), timeout=APPLY_SECONDS, headers=headers)
    changes = document["changes"]

    def text() -> Iterable[str]:
        yield from lines(changes)
        yield f"{document['applied']} of {len(changes)} changes done" if changes else "nothing to change"

    session.emit(document, text, rows=changes)

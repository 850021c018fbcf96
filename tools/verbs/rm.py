"""hostctl rm: remove a guest that ended."""

from collections.abc import Iterable

import click

from tools import options
from tools.client import partition_path


@options.verb()
@click.argument("name", type=options.NAME)
@click.option("--force", is_flag=True, help="Also where it runs: stop it first.")
@options.key_option
def command(session: options.Session, name: str, force: bool, key: str | None) -> None:
    """Remove the partition NAME with its memory, channels and metrics. Its disk files stay."""
    headers = {"Idempotency-Key": key} if key else None
    document = session.client().request("DELETE", partition_path(name), query={"force": force}, headers=headers)

    def text() -> Iterable[str]:
        yield f"{name} removed"

    session.emit(document, text)

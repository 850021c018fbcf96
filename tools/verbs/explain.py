"""hostctl explain: why a decision was made."""

from collections.abc import Iterable
from typing import Any

import click

from hostd.errors import EXIT_FAILURE, EXIT_OK
from tools import options, output


@options.verb()
@click.argument("name", required=False, type=options.NAME)
@click.option("--decision", type=int, metavar="N", help="Only the decision with this number.")
@click.option(
    "--replay", is_flag=True, help="Decide again from the stored inputs; exit code 1 where the answer differs."
)
def command(session: options.Session, name: str | None, decision: int | None, replay: bool) -> int:
    """Show decisions of the command partition: inputs, rule, answer, and what was rejected for which reason.

    With NAME only those about that partition; refused ones too.
    """
    document = session.client().get("/v1/explain", partition=name, decision=decision, replay=replay)
    records = document["decisions"]
    session.emit(document, lambda: _text(records), rows=records)
    different = [record for record in records if replay and not (record.get("replay") or {}).get("same")]
    return EXIT_FAILURE if different else EXIT_OK


def _text(records: list[dict[str, Any]]) -> Iterable[str]:
    if not records:
        yield "no decision is stored"
    for index, record in enumerate(records):
        if index:
            yield ""
        yield from output.tree(record)

"""hostctl switchover: planned handover of what an I/O partition does, and back."""

from typing import Any
from urllib.parse import quote

import click

from tools import options


@options.verb()
@click.argument("name", type=options.NAME, required=False)
@click.option("--to", "target", type=options.NAME, help="I/O partition that is to serve; default: the other one.")
@click.option("--all", "everything", is_flag=True, help="Each I/O partition serves its own clients again (fail back).")
def command(session: options.Session, name: str | None, target: str | None, everything: bool) -> None:
    """Hand over what I/O partition NAME does for its clients, without an error and with a pause of milliseconds.

    After a death the work does not come back by itself: `hostctl switchover --all` brings it back.
    """
    if everything == (name is not None):
        raise click.UsageError("give NAME or --all")
    client = session.client()
    offices = client.get("/v1/status")["host"]["offices"] if everything else []
    wanted = [(office["name"], office["name"]) for office in offices] if name is None else [(name, target)]
    rows: list[dict[str, Any]] = [
        client.request("PUT", f"/v1/offices/{quote(office)}", {} if to is None else {"target": to})
        for office, to in wanted
    ]
    session.emit({"offices": rows}, lambda: [_line(row) for row in rows])


def _line(row: dict[str, Any]) -> str:
    return f"{row['name']} is served by {row['target']}" + ("" if row["changed"] else " already")

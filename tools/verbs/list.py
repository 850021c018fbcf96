"""hostctl list: the guests of the host."""

from collections.abc import Iterable
from typing import Any

import click

from hostd.units import show_size
from tools import options, output


def endpoints(row: dict[str, Any]) -> str:
    """Endpoints of a partition as `vda@disk0:redirect eth0@nic0:redirect>direct`; the second is on its way."""
    return " ".join(f"{end['name']}@{end['device']}:{_path(end)}" for end in row.get("endpoints") or [])


def _path(end: dict[str, Any]) -> str:
    return end["path"] if end["wanted"] == end["path"] else f"{end['path']}>{end['wanted']}"


def ending(row: dict[str, Any]) -> str:
    """How a process ended, in words."""
    status = row.get("exit_status") or {}
    if "exited" in status:
        return f"exit code {status['exited']}"
    return f"signal {status['signalled']}" if "signalled" in status else "-"


COLUMNS: list[output.Column] = [
    ("NAME", lambda row: row["name"]),
    ("STATE", lambda row: row["state"]),
    ("PID", lambda row: row["pid"]),
    ("AGE", lambda row: output.age(row["start_time"]) if row["pid"] else "-"),
    ("RESIDENT", lambda row: show_size(row["memory"]) if row.get("memory") else None),
    ("ENDPOINTS", endpoints),
    ("ENDED", ending),
]


@options.verb()
@click.option("--all", "everything", is_flag=True, help="Also the host's own partitions and devices.")
@click.option("--state", help="Only partitions in this state.")
def command(session: options.Session, everything: bool, state: str | None) -> None:
    """List the guests of the host, those that ended included."""
    rows = [
        row
        for row in session.client().get("/v1/partitions")["partitions"]
        if (everything or row["type"] == "guest") and state in (None, row["state"])
    ]
    session.emit({"partitions": rows}, lambda: _text(rows), rows=rows)


def _text(rows: list[dict[str, Any]]) -> Iterable[str]:
    return output.table(rows, COLUMNS)

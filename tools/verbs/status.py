"""hostctl status: all processes of the host, and whether memory maps and database agree."""

from collections.abc import Iterable
from typing import Any

from hostd.errors import EXIT_FAILURE, EXIT_OK
from hostd.units import show_size
from tools import options, output

COLUMNS: list[output.Column] = [
    ("NAME", lambda row: row["name"]),
    ("TYPE", lambda row: row["type"]),
    ("STATE", lambda row: row["state"]),
    ("PID", lambda row: row["pid"]),
    ("AGE", lambda row: output.age(row["start_time"]) if row["pid"] else "-"),
    ("CPU", lambda row: output.seconds(row.get("cpu_seconds"))),
    ("MEMORY", lambda row: show_size(row["memory"]) if row.get("memory") else None),
    ("WORLD", lambda row: row.get("world")),
]


@options.verb()
def command(session: options.Session) -> int:
    """Show every process of the host and check its memory maps against the resource database.

    A mismatch makes the exit code 1.
    """
    document = session.client().get("/v1/status")
    failed = [check for check in document["checks"] if not check["ok"]]

    def text() -> Iterable[str]:
        yield from _host(document["host"])
        yield from output.table(document["processes"], COLUMNS)
        for check in document["checks"]:
            yield f"{output.result('PASS' if check['ok'] else 'FAIL')}  {check['name']}: {check['detail']}"

    session.emit(document, text, rows=document["processes"])
    return EXIT_FAILURE if failed else EXIT_OK


def _host(host: dict[str, Any]) -> Iterable[str]:
    facts = [f"{key} {value}" for key, value in host.items() if isinstance(value, str | int) and key != "memory"]
    if isinstance(host.get("memory"), int):
        facts.append(f"memory {show_size(host['memory'])}")
    if facts:
        yield f"host: {', '.join(facts)}"
        yield ""

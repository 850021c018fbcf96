"""hostctl status: all processes of the host, and whether memory maps and database agree."""

from collections import Counter
from collections.abc import Iterable
from operator import itemgetter
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
    ("RESIDENT", lambda row: show_size(row["memory"]) if row.get("memory") else None),
    ("WORLD", lambda row: row.get("world")),
]


def _leads_to(wire: dict[str, Any]) -> str:
    known = [wire.get(key) for key in ("interface", "remote", "file", "replay")]
    return " ".join(word for word in (*known, *wire.get("addresses", ())) if word)


WIRES: list[output.Column] = [
    ("WIRE", lambda wire: wire["name"]),
    ("DEVICE", lambda wire: wire["device"]),
    ("KIND", lambda wire: wire["kind"]),
    ("TO", _leads_to),
    ("OF", lambda wire: wire["partition"] or ""),
    ("IN", lambda wire: wire.get("frames_in")),
    ("OUT", lambda wire: wire.get("frames_out")),
    ("DROPS", lambda wire: sum(wire.get("drops", {}).values())),
    ("FAILURE", lambda wire: wire.get("failure") or ""),
]


@options.verb()
def command(session: options.Session) -> int:
    """Show every process of the host and check its memory maps against the resource database.

    A mismatch makes the exit code 1. With --json every single check is listed.
    """
    document = session.client().get("/v1/status")

    def text() -> Iterable[str]:
        yield from _host(document["host"])
        yield ""
        yield from output.table(document["processes"], COLUMNS)
        yield from _media(document.get("media", {}))
        yield from _wires(document["host"].get("wires", []))
        yield ""
        yield from _checks(document["checks"])

    session.emit(document, text, rows=document["processes"])
    return EXIT_OK if all(check["ok"] for check in document["checks"]) else EXIT_FAILURE


def _host(host: dict[str, Any]) -> Iterable[str]:
    facts = {key.replace("_", " "): value for key, value in host.items() if isinstance(value, str | int)}
    if "memory" in facts:
        facts["memory"] = show_size(host["memory"])
    if isinstance(host.get("monitor"), dict):
        facts["monitor"] = _monitor(host["monitor"])
    width = max(map(len, facts), default=0)
    for key, value in facts.items():
        yield f"{key.ljust(width)}  {value}"


def _wires(wires: list[dict[str, Any]]) -> Iterable[str]:
    """What leads out of the host's NICs."""
    if wires:
        yield ""
        yield from output.table(wires, WIRES)


def _media(media: dict[str, dict[str, Any]]) -> Iterable[str]:
    """How the data of each disk file move."""
    rows = [(name, path, way) for name, device in media.items() for path, way in device["files"].items()]
    if rows:
        yield ""
        yield from output.table(rows, [("DEVICE", itemgetter(0)), ("FILE", itemgetter(1)), ("WAY", itemgetter(2))])
    for what in ("without_ring", "problem"):
        yield from (f"{name}: {device[what]}" for name, device in media.items() if device.get(what))


def _monitor(life: dict[str, Any]) -> str:
    times = f"{life['restarts']} restarts"
    if life["given_up"]:
        return f"{times}; it dies again and again and is not started any more: hostctl restart monitor"
    return times if life["last_seconds"] is None else f"{times}, the last took {life['last_seconds']:.3f} s"


def _checks(checks: list[dict[str, Any]]) -> Iterable[str]:
    """What passed in one line for each sort of check ("memory map of store"), what failed in full."""
    passed = Counter(check["name"].partition(" of ")[0] for check in checks if check["ok"])
    for sort, count in passed.items():
        yield f"{output.result('PASS')}  {sort}" + (f": {count} agree" if count > 1 else "")
    for check in checks:
        if not check["ok"]:
            yield f"{output.result('FAIL')}  {check['name']}: {check['detail']}"

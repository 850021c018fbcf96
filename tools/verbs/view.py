"""hostctl view: what a partition believes, beside what is true; who has what."""

from collections.abc import Iterable
from operator import itemgetter
from typing import Any

import click

from hostd.units import show_size
from tools import options, output
from tools.client import partition_path
from tools.resources import resource_map

SIDES = (("BELIEVED", "believed"), ("ENFORCED", "enforced"), ("TRUE", "true"))
# Facts of an endpoint in the order of the table; the rest is in the JSON form.
FACTS = ("kind", "length", "offset", "read_only", "mac", "max_transfer", "path", "wanted", "weight", "device", "file",
         "server")  # fmt: skip
SIZES = frozenset(("length", "offset", "max_transfer"))
VECTORS: list[output.Column] = [
    ("ENDPOINT", lambda row: f"{row['endpoint']}.{row['queue']}"),
    ("DEVICE", itemgetter("device")),
    ("OWNER", itemgetter("owner")),
    ("STATE", lambda row: "masked" if row["mask"] else "forwarded" if row["forwarded_route"] else "direct"),
    ("PENDING", lambda row: "yes" if row["pending"] else "-"),
    *((event.upper(), itemgetter(event)) for event in ("raised", "delivered", "forwarded", "coalesced", "masked")),
]
CONNECTIONS: list[output.Column] = [
    ("ENDPOINT", itemgetter(0)),
    ("CONNECTION", lambda row: row[1]["state"]),
    ("CAUSE", lambda row: row[1]["cause"]),
    ("SINCE", lambda row: output.seconds(row[1]["age"])),
    ("ERROR", lambda row: row[1]["error"] or "-"),
]
CAPABILITIES: list[output.Column] = [
    ("ENDPOINT", itemgetter("endpoint")),
    ("DEVICE", itemgetter("device")),
    ("PATH", itemgetter("path")),
    ("CAPABILITY", itemgetter("capability")),
    ("GRANTED", lambda row: "yes" if row["granted"] else "no"),
    ("WITHHELD BY", lambda row: ", ".join(row["withheld_by"]) + "".join(f" {name}" for name in row["peers"]) or "-"),
    ("PROVED", lambda row: {True: "yes", False: "no: the device lies", None: "-"}[row["proved"]]),
]


WIRES: list[output.Column] = [
    ("WIRE", itemgetter("name")),
    ("DEVICE", itemgetter("device")),
    ("OF", lambda row: row["partition"] or "-"),
    ("FRAMES IN", lambda row: row.get("frames_in")),
    ("BYTES IN", lambda row: row.get("bytes_in")),
    ("FRAMES OUT", lambda row: row.get("frames_out")),
    ("BYTES OUT", lambda row: row.get("bytes_out")),
    ("LEARNED", lambda row: row.get("learned")),
    ("DROPPED", lambda row: ", ".join(f"{why} {count}" for why, count in row.get("drops", {}).items()) or "-"),
    ("FAILURE", lambda row: row.get("failure") or "-"),
]


@options.verb()
@click.argument("name", required=False, type=options.NAME)
@click.option("--hardware", is_flag=True, help="What it is shown of devices and buses, beside the machine.")
@click.option("--vectors", is_flag=True, help="Its interrupt vectors: owner, mask, pending state and counts.")
@click.option("--registers", is_flag=True, help="Show the saved registers of each of its threads instead.")
@click.option("--capabilities", is_flag=True, help="What its NICs may leave to the device, and who withholds the rest.")
@click.option("--wires", is_flag=True, help="Frames from and to each wire of the host, drops by reason; without NAME.")
@click.option("--resources", is_flag=True, help="Who has what on the whole host; without NAME.")
def command(
    session: options.Session, name: str | None, hardware: bool, vectors: bool, registers: bool, capabilities: bool,
    resources: bool, wires: bool,
) -> None:  # fmt: skip
    """Show the partition NAME three times: what it believes, what the monitor enforces, what the database says.

    Below stands the processor time that each process of the data plane has spent for it.

    A dash stands where one of them does not know the fact: a guest is not told which file its disk is.

    With --resources, show the resource map of the host instead: partitions, memory, devices, endpoints, channels.
    """
    if resources:
        if name is not None or hardware or vectors or registers or capabilities:
            raise click.UsageError("--resources shows the whole host: it goes with no NAME and no other option")
        found = session.client().get("/v1/resources")
        session.emit(found, lambda: resource_map(found))
        return
    if wires:
        if name is not None or hardware or vectors or registers or capabilities:
            raise click.UsageError("--wires shows the whole host: it goes with no NAME and no other option")
        told = {"wires": session.client().get("/v1/status")["host"]["wires"]}
        session.emit(told, lambda: output.table(told["wires"], WIRES))
        return
    if name is None:
        raise click.UsageError("Missing argument 'NAME', or --resources or --wires for the whole host.")
    if hardware:
        document = session.client().get(partition_path(name, "/hardware"))
        session.emit(document, lambda: _hardware(document))
        return
    if vectors:
        document = session.client().get(partition_path(name, "/vectors"))
        session.emit(document, lambda: output.table(document["vectors"], VECTORS))
        return
    if capabilities:
        told = session.client().get(partition_path(name, "/capabilities"))
        session.emit(told, lambda: output.table(told["capabilities"], CAPABILITIES))
        return
    if registers:
        saved = session.client().get(partition_path(name, "/registers"))
        session.emit(saved, lambda: _registers(saved["threads"]))
        return
    document = session.client().get(partition_path(name, "/view"))
    session.emit(document, lambda: _text(document))


def _registers(threads: list[dict[str, Any]]) -> Iterable[str]:
    for thread in threads:
        vector = len(thread["vector"]) // 2
        yield f"thread {thread['thread']} of process {thread['process']}, {vector} bytes of vector state"
        values = [f"{name:>8} {value:016x}" for name, value in thread["registers"].items()]
        yield from ("  ".join(values[place : place + 4]) for place in range(0, len(values), 4))


def _text(document: dict[str, Any]) -> Iterable[str]:
    sides = {key: document.get(key) or {} for _, key in SIDES}
    rows = [("memory", *(_memory(side) for side in sides.values()))]
    names = [endpoint["name"] for endpoint in sides["true"].get("endpoints") or []]
    for name in names:
        ends = [_endpoint(side, name) for side in sides.values()]
        facts = [fact for fact in FACTS if any(end.get(fact) not in (None, "") for end in ends)]
        rows += [(f"{name} {fact}", *(_fact(fact, end.get(fact)) for end in ends)) for fact in facts]
    columns: list[output.Column] = [("FACT", itemgetter(0))]
    columns += [(heading, itemgetter(place)) for place, (heading, _) in enumerate(SIDES, 1)]
    yield from output.table(rows, columns)
    if document.get("connections"):
        yield ""
        yield from output.table(document["connections"].items(), CONNECTIONS)
    if document.get("charges"):
        yield ""
        yield from output.table(document["charges"].items(), [
            ("SPENT BY", itemgetter(0)), ("SECONDS", lambda row: f"{row[1]:.6f}"),
        ])  # fmt: skip
    if document.get("refused"):
        yield ""
        yield from output.table(sorted(document["refused"].items()), [
            ("REFUSED", itemgetter(0)), ("TIMES", itemgetter(1)),
        ])  # fmt: skip
    if document.get("sandbox"):
        yield ""
        yield from output.tree({"sandbox": document["sandbox"]})


def _endpoint(side: dict[str, Any], name: str) -> dict[str, Any]:
    return next((end for end in side.get("endpoints") or [] if end.get("name") == name), {})


def _fact(fact: str, value: Any) -> Any:
    if fact in SIZES and isinstance(value, int):
        return show_size(value)
    return None if value == "" else value


def _memory(side: dict[str, Any]) -> str | None:
    """The memory of a partition, which each side counts in its own way."""
    memory = side.get("memory")
    if isinstance(memory, list):
        extents = ", ".join(f"{extent['hpa']:#x}" for extent in memory)
        return f"{show_size(sum(extent['size'] for extent in memory))} at {extents}" if memory else show_size(0)
    if "memory_pages" in side:
        return show_size(side["memory_pages"] * 4096)
    return show_size(memory) if isinstance(memory, int) else None


def _hardware(document: dict[str, Any]) -> Iterable[str]:
    """Functions that the partition finds, and below them every device of the machine."""
    region, believed = document["region"] or {}, document["believed"]
    if region.get("files"):
        yield f"an unmodified program, which finds its hardware described below {region['files']}"
    elif not region.get("traps"):
        yield f"no configuration region that traps: {region.get('missing', 'not a Python guest')}"
    if believed is not None:
        yield "BELIEVED"
        yield from output.table(believed["functions"], _BELIEVED)
        pages = ", ".join(f"{count} {outcome}" for outcome, count in believed["pages"].items())
        yield f"pages installed: {pages}"
        yield ""
    yield "TRUE"
    yield from output.table(document["true"], _TRUE)


_BELIEVED: list[output.Column] = [
    ("ADDRESS", itemgetter("address")),
    ("KIND", itemgetter("kind")),
    ("NAME", itemgetter("name")),
    ("SHOWN", itemgetter("outcome")),
    ("SEEN", lambda row: "yes" if row["seen"] else "no"),
    ("DEVICE", itemgetter("device")),
]
_TRUE: list[output.Column] = [
    ("ADDRESS", itemgetter("address")),
    ("DEVICE", itemgetter("device")),
    ("KIND", itemgetter("kind")),
    ("OWNER", itemgetter("owner")),
    ("ENDPOINTS", lambda row: ", ".join(f"{end['partition']}.{end['endpoint']}" for end in row["endpoints"])),
]

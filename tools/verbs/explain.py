"""hostctl explain: why a decision was made."""

from collections.abc import Iterable
from typing import Any

import click

from hostd.errors import EXIT_FAILURE, EXIT_OK
from hostd.units import show_size
from tools import options, output

PLURALS = {"device": "devices", "bus": "buses"}


@options.verb()
@click.argument("name", required=False, type=options.NAME)
@click.option("--decision", type=int, metavar="N", help="Only the decision with this number.")
@click.option(
    "--replay", is_flag=True, help="Decide again from the stored inputs; exit code 1 where the answer differs."
)
def command(session: options.Session, name: str | None, decision: int | None, replay: bool) -> int:
    """Show decisions of the command partition: request, policy, rule, answer, and what was rejected and why.

    With NAME only those about that partition; refused ones too. --json has the inputs whole, as they are stored.
    """
    document = session.client().get("/v1/explain", partition=name, decision=decision, replay=replay)
    records = document["decisions"]
    session.emit(document, lambda: lines(records), rows=records)
    different = [record for record in records if replay and not (record.get("replay") or {}).get("same")]
    return EXIT_FAILURE if different else EXIT_OK


def lines(records: list[dict[str, Any]]) -> Iterable[str]:
    """Decisions as people read them."""
    if not records:
        yield "no decision is stored"
    for index, record in enumerate(records):
        if index:
            yield ""
        yield from _decision(record)


def _decision(record: dict[str, Any]) -> Iterable[str]:
    """One decision: a heading and what led to it, one fact a line."""
    answer, request = record.get("answer") or {}, record.get("request") or {}
    words = dict.fromkeys(("accepted" if answer.get("accepted") else "refused", record.get("outcome") or "-"))
    when = output.clock(record["time"]) if "time" in record else "-"
    yield f"decision {record['decision']}  {when}  {record.get('partition')}: {', '.join(words)}"
    facts = {
        "asked by": record.get("actor"),
        "request": _request(request),
        "policy": _facts(record.get("policy") or {}),
        "rule": answer.get("rule"),
        "reason": answer.get("reason"),
        "placement": _placement(answer.get("placement") or {}),
    }
    for key, value in facts.items():
        if value:
            yield f"  {key.ljust(9)}  {value}"
    for rejected in answer.get("rejected") or []:
        yield f"  rejected   {_facts(rejected) if isinstance(rejected, dict) else rejected}"
    if answer.get("rejected_more"):
        yield f"  rejected   {answer['rejected_more']} more"
    if "replay" in record:
        yield f"  replay     {'the same answer' if record['replay'].get('same') else 'ANOTHER ANSWER'}"


def _request(request: dict[str, Any]) -> str:
    if request.get("op") == "endpoint.path":
        return f"path {request.get('path')} for {request.get('endpoint')}"
    if request.get("op") == "endpoint.detach":
        return f"detach {request.get('endpoint')}"
    if str(request.get("op")).startswith("memory."):
        size = f" {show_size(request['size'])}" if "size" in request else ""
        return f"{request['op'].partition('.')[2]}{size} of memory at {request['gpa']:#x}"
    kind = "attach" if request.get("op") == "endpoint.attach" else str(request.get("type", "partition"))
    memory = [show_size(request["memory"])] if isinstance(request.get("memory"), int) else []
    endpoints = [f"{end.get('name')}@{end.get('device')}" for end in request.get("endpoints") or []]
    own = [f"{what} {name} alone" for what in ("device", "bus") for name in request.get(PLURALS[what]) or []]
    return ", ".join([kind, *memory, *endpoints, *own]) if request else ""


def _placement(placement: dict[str, Any]) -> str:
    extents = [f"{extent['frames']} frames at {extent['frame']}" for extent in placement.get("extents") or []]
    processors = [f"processors {', '.join(map(str, placement['processors']))}"] if placement.get("processors") else []
    return ", ".join(extents + processors)


def _facts(fields: dict[str, Any]) -> str:
    return ", ".join(f"{key} {_fact(key, value)}" for key, value in fields.items() if value is not None)


def _fact(key: str, value: Any) -> Any:
    if isinstance(value, list):
        return "/".join(map(str, value)) or "none"
    return show_size(value) if "memory" in key and isinstance(value, int) else value

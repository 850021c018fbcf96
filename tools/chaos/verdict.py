"""What a campaign found: figures that have to be 0, pauses, and the log of its faults."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from tools.chaos.away import Away
from tools.chaos.campaign import Happened, Outcome
from tools.chaos.holdings import grown
from tools.output import table

GRACE = 0.5  # seconds behind the return of a role that still belong to its fault
QUANTILES = {"p50": 0.5, "p99": 0.99, "max": 1.0}
AGAIN = ("time", "number", "expected")  # of a frame that came twice or late
MEANING = {
    "writes_lost": "acknowledged writes that were not there when they were read",
    "stale_overwrites": "blocks that went back to an earlier write",
    "corrupt_blocks": "blocks with bytes that nobody had written there",
    "duplicated_completions": "completions that no request waited for",
    "duplicated_frames": "frames that came twice or out of order",
    "corrupt_frames": "frames with other bytes",
    "unanswered": "requests that nothing came for",
    "frames_lost_outside": "frames lost while no role was away",
    "leaked": "descriptors, threads, processes, segments and rows more than before",
    "not_back": "faults after which a role did not come back",
    "ended_early": "what ended the campaign before its time, host or load: `error`",
}


def document(seed: int, outcome: Outcome) -> dict[str, Any]:
    reports = outcome.reports.values()
    disks, frames = [one["disk"] for one in reports], [one["frames"] for one in reports]
    inside, outside = _missing(frames, outcome.happened)
    leaks = grown(outcome.before, outcome.after)
    figures = {
        "writes_lost": _sum(disks, "lost"),
        "stale_overwrites": _sum(disks, "stale"),
        "corrupt_blocks": _sum(disks, "corrupt"),
        "duplicated_completions": _sum(reports, "foreign"),
        "duplicated_frames": _sum(frames, "repeated"),
        "corrupt_frames": _sum(frames, "corrupt"),
        "unanswered": _sum(reports, "unanswered"),
        "frames_lost_outside": outside,
        "leaked": sum(leaks.values()),
        "not_back": sum(story.back is None for story in outcome.happened),
        "ended_early": int(outcome.error is not None),
    }
    return {
        "seed": seed,
        "faults": len(outcome.happened),
        "left_out": outcome.left_out,
        "error": outcome.error,
        "struck": _struck(outcome.happened),
        "figures": figures,
        "leaks": leaks,
        "frames_lost_inside": inside,
        "frames_again": [dict(zip(AGAIN, row, strict=True)) for one in frames for row in one["again"]],
        "failed": {"disk": _sum(disks, "failed"), "frames": _sum(frames, "failed")},
        "dropped": _dropped(frames),
        "moved": {"written": _sum(disks, "written"), "read": _sum(disks, "read"), "frames": _sum(frames, "received")},
        "pauses": _pauses(disks, outcome.happened),
        "events": [_event(story, _pause(disks, story)) for story in outcome.happened],
    }


def failed(document: dict[str, Any]) -> bool:
    return any(document["figures"].values())


def text(document: dict[str, Any]) -> Iterable[str]:
    struck = ", ".join(f"{what} {count}" for what, count in sorted(document["struck"].items()))
    yield f"{document['faults']} faults of seed {document['seed']}: {struck}"
    if document["left_out"]:
        yield f"{document['left_out']} faults left out"
    if document["error"]:
        yield document["error"]
    moved = document["moved"]
    yield f"load: {moved['written']} blocks written, {moved['read']} read, {moved['frames']} frames"
    yield ""
    columns = [("figure", _first), ("is", _second), ("what", lambda row: MEANING[row[0]])]
    yield from table(document["figures"].items(), columns)
    for what, count in document["leaks"].items():
        yield f"leaked: {count} {what}"
    for event in document["events"]:
        for away in event["away"]:
            yield f"fault {event['number']}: {Away(**away).text}"
    yield ""
    quantiles = [(name, lambda row, name=name: f"{row[1][name] * 1e3:.0f} ms") for name in QUANTILES]
    yield from table(document["pauses"].items(), [("longest pause, by fault", _first), *quantiles])
    for what in ("frames_lost_inside", "failed", "dropped"):
        yield f"{what.replace('_', ' ')}: {document[what]}"


def _first(row: tuple[str, Any]) -> str:
    return row[0]


def _second(row: tuple[str, Any]) -> Any:
    return row[1]


def _sum(rows: Iterable[dict[str, Any]], name: str) -> int:
    return sum(int(row[name]) for row in rows)


def _dropped(frames: Iterable[dict[str, Any]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for one in frames:
        for reason, count in one["dropped"].items():
            total[reason] = total.get(reason, 0) + count
    return total


def _missing(frames: Iterable[dict[str, Any]], happened: list[Happened]) -> tuple[int, int]:
    """Frames that did not come, while some role was away and otherwise."""
    inside = outside = 0
    for one in frames:
        explained = 0
        for begin, end, count in one["missing"]:
            if any(begin <= story.end + GRACE and end >= story.begin for story in happened):
                explained += count
        inside += explained
        outside += one["lost"] - explained
    return inside, outside


def _struck(happened: list[Happened]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for story in happened:
        for blow in story.fault.blows:
            if blow.role not in story.missed:
                name = f"{blow.kind} {blow.role}"
                counts[name] = counts.get(name, 0) + 1
    return counts


def _pause(disks: list[dict[str, Any]], story: Happened) -> float:
    """The longest time in which one guest's disk gave no completion, that the fault fell into or began, in seconds."""
    gaps = (
        end - begin for disk in disks for begin, end in disk["gaps"] if begin <= story.end and end >= story.begin
    )
    return max(gaps, default=0.0)


def _pauses(disks: list[dict[str, Any]], happened: list[Happened]) -> dict[str, dict[str, float]]:
    found: dict[str, list[float]] = {}
    for story in happened:
        name = story.fault.name if len(story.fault.blows) == 1 else "pairs"
        found.setdefault(name, []).append(_pause(disks, story))
    return {
        name: {label: values[min(len(values) - 1, int(q * len(values)))] for label, q in QUANTILES.items()}
        for name, values in sorted((name, sorted(values)) for name, values in found.items())
    }


def _event(story: Happened, pause: float) -> dict[str, Any]:
    back = None if story.back is None else story.back - story.begin
    away = [asdict(one) for one in story.away]
    happened = {"begin": story.begin, "back": back, "pause": pause, "missed": story.missed, "away": away}
    return story.fault.document() | happened

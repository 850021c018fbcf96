"""The placement decision: pure, explained, first fit within limits (U13)."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partitions.command.decide import PIECES_MAX, REJECTED_MAX, decide

MIB = 1 << 20
POLICY = {
    "name": "default",
    "placement": "first-fit",
    "memory_limit": None,
    "partition_memory_limit": None,
    "partitions_limit": None,
    "version": 1,
}


def resources(free: list[tuple[int, int]] | None = None, **fields: Any) -> dict[str, Any]:
    extents = [(65536, 16384)] if free is None else free
    usage = {kind: {"partitions": 0, "memory": 0} for kind in ("guest", "console", "io")}
    return {
        "version": 7,
        "machine": {"first_frame": 65536, "frames": 16384},
        "free": [{"frame": frame, "frames": frames} for frame, frames in extents],
        "processors": [{"number": 0, "role": "guests"}, {"number": 1, "role": "infrastructure"}],
        "quotas": [],
        "usage": usage,
        "devices": [
            {"name": "disk0", "kind": "disk", "class": "shared", "ports": 2, "used": 0, "bus": None, "owner": None},
            {"name": "nic0", "kind": "nic", "class": "shared", "ports": 2, "used": 0, "bus": None, "owner": None},
        ],
        "servers": [{"name": "io-a", "state": "running"}, {"name": "io-b", "state": "failed"}],
        **fields,
    }


def request(memory: int = MIB, **fields: Any) -> dict[str, Any]:
    return {"name": "store", "type": "guest", "memory": memory, **fields}


def endpoint(kind: str = "disk", device: str = "disk0", server: str = "io-a") -> dict[str, Any]:
    return {"name": "vda", "kind": kind, "device": device, "server": server}


def test_the_first_extent_that_holds_everything_is_taken() -> None:
    decision = decide(request(), resources([(65536, 255), (66000, 256), (67000, 4096)]), POLICY)
    assert decision.accepted and decision.rule == "first-fit"
    assert decision.placement == {"extents": [{"frame": 66000, "frames": 256}], "processors": [0]}
    assert decision.rejected == [{"alternative": {"frame": 65536, "frames": 255}, "reason": "255 frames, 256 needed"}]


def test_memory_is_split_where_no_extent_is_large_enough() -> None:
    decision = decide(request(), resources([(65536, 100), (66000, 150), (67000, 120)]), POLICY)
    assert decision.placement is not None
    assert decision.placement["extents"] == [{"frame": 66000, "frames": 150}, {"frame": 67000, "frames": 106}]
    assert len(decision.rejected) == 3


def test_no_more_pieces_than_a_process_should_map() -> None:
    free = [(65536 + 64 * number, 31) for number in range(PIECES_MAX + 1)]
    assert decide(request(PIECES_MAX * 31 * 4096), resources(free), POLICY).accepted
    decision = decide(request((PIECES_MAX + 1) * 31 * 4096), resources(free), POLICY)
    assert (decision.accepted, decision.rule) == (False, "memory")


def test_named_alternatives_are_bounded() -> None:
    free = [(65536 + 2 * number, 1) for number in range(REJECTED_MAX + 5)]
    decision = decide(request(), resources(free), POLICY)
    assert (len(decision.rejected), decision.rejected_more) == (REJECTED_MAX, 5)


def test_what_needs_no_memory_needs_no_extent() -> None:
    decision = decide({"name": "m", "type": "monitor"}, resources([]), POLICY)
    assert decision.accepted and decision.placement == {"extents": [], "processors": []}


LIMITS = [
    ("partitions_limit", {"partitions_limit": 2}, {"partitions": 1, "memory": 0}, True),
    ("partitions_limit", {"partitions_limit": 2}, {"partitions": 2, "memory": 0}, False),
    ("partitions_limit", {"partitions_limit": 0}, {"partitions": 0, "memory": 0}, False),
    ("partition_memory_limit", {"partition_memory_limit": MIB}, {"partitions": 0, "memory": 0}, True),
    ("partition_memory_limit", {"partition_memory_limit": MIB - 1}, {"partitions": 0, "memory": 0}, False),
    ("memory_limit", {"memory_limit": 3 * MIB}, {"partitions": 1, "memory": 2 * MIB}, True),
    ("memory_limit", {"memory_limit": 3 * MIB - 1}, {"partitions": 1, "memory": 2 * MIB}, False),
    ("memory_limit", {"memory_limit": 0}, {"partitions": 0, "memory": 0}, False),
]


@pytest.mark.parametrize(("rule", "limit", "usage", "accepted"), LIMITS)
def test_limits_of_the_policy(rule: str, limit: dict[str, int], usage: dict[str, int], accepted: bool) -> None:
    decision = decide(request(), resources(usage={"guest": usage}), POLICY | limit)
    assert decision.accepted == accepted
    assert decision.rule == ("first-fit" if accepted else rule)
    assert accepted or str(next(iter(limit.values()))) in decision.reason


def test_policies_speak_about_guests() -> None:
    """A policy that allows no guest at all must not keep the host from starting."""
    strict = POLICY | {"partitions_limit": 0, "memory_limit": 0, "partition_memory_limit": 0}
    assert decide({"name": "console", "type": "console", "memory": MIB}, resources(), strict).accepted


REFUSED = [
    ("devices", request(endpoints=[endpoint(device="disk9")]), "there is no disk device disk9; known: disk0"),
    ("devices", request(endpoints=[endpoint(device="nic0")]), "there is no disk device nic0; known: disk0"),
    ("devices", request(endpoints=[endpoint()] * 3), "device disk0 has 2 ports and 0 of them are taken"),
    ("servers", request(endpoints=[endpoint(server="io-b")]), "no I/O partition io-b runs"),
    ("servers", request(endpoints=[endpoint(server="io-z")]), "no I/O partition io-z runs"),
    ("processors", request(processors=[0, 5]), "the machine has no processor 5; known: 0, 1"),
    ("memory", request(17000 * 4096), "no room for 17000 frames"),
]


@pytest.mark.parametrize(("rule", "asked", "reason"), REFUSED)
def test_a_refusal_names_its_rule(rule: str, asked: dict[str, Any], reason: str) -> None:
    decision = decide(asked, resources(), POLICY)
    assert (decision.accepted, decision.rule, decision.placement) == (False, rule, None)
    assert reason in decision.reason


def test_an_unknown_placement_is_refused() -> None:
    decision = decide(request(), resources(), POLICY | {"placement": "best-guess"})
    assert decision.rule == "placement" and "best-guess" in decision.reason


def test_processors_that_are_asked_for_are_given() -> None:
    decision = decide(request(processors=[1, 0, 1]), resources(), POLICY)
    assert decision.placement is not None and decision.placement["processors"] == [0, 1]


extents = st.lists(st.tuples(st.integers(1, 400), st.integers(1, 400)), max_size=40)


@settings(max_examples=300, deadline=None)
@given(extents, st.integers(0, 2000), st.one_of(st.none(), st.integers(0, 4 * MIB)))
def test_decisions_are_pure_and_sound(gaps: list[tuple[int, int]], frames: int, limit: int | None) -> None:
    """Inputs stay as they were, the same inputs give the same bytes, also after a way through JSON; what is given
    is free, disjoint and enough; a refusal for lack of room is right."""
    free, position = [], 65536
    for gap, count in gaps:
        free.append((position + gap, count))
        position += gap + count
    inputs = (request(frames * 4096), resources(free), POLICY | {"memory_limit": limit})
    kept = copy.deepcopy(inputs)
    decision = decide(*inputs)
    assert inputs == kept
    assert decision.text() == decide(*json.loads(json.dumps(inputs))).text()
    if decision.accepted:
        assert decision.placement is not None
        given_frames: set[int] = set()
        for extent in decision.placement["extents"]:
            piece = set(range(extent["frame"], extent["frame"] + extent["frames"]))
            assert piece and not piece & given_frames
            assert any(first <= min(piece) and max(piece) < first + count for first, count in free)
            given_frames |= piece
        assert len(given_frames) == frames
        assert limit is None or frames * 4096 <= limit
    elif decision.rule == "memory":
        assert sum(sorted((count for _, count in free), reverse=True)[:PIECES_MAX]) < frames
    else:
        assert decision.rule == "memory_limit" and limit is not None and frames * 4096 > limit

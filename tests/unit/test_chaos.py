"""`hostctl chaos`: one seed is one sequence, and every figure that is not 0 is a failure."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hostd.errors import HostError
from tools.chaos import verdict
from tools.chaos.campaign import Campaign, Happened, Outcome
from tools.chaos.faults import APART_MOST, KINDS, LASTS, Blow, Fault, sequence
from tools.chaos.holdings import grown
from tools.verbs.chaos import command

ROLES = ["io-a", "io-b", "monitor"]
KILL = Fault(0, 0.0, (Blow("io-a", "kill", 0.0, 0.0),))
HELD = {"threads": {"io-a": 3}}


def test_a_seed_is_a_sequence() -> None:
    assert sequence(7, ROLES, KINDS, 5, True) == sequence(7, ROLES, KINDS, 5, True)
    assert sequence(7, ROLES, KINDS, 5, True) != sequence(8, ROLES, KINDS, 5, True)


@pytest.mark.parametrize("pairs", [False, True])
def test_each_role_and_kind_has_its_count(pairs: bool) -> None:
    faults = sequence(1, ROLES, KINDS, 4, pairs)
    firsts = [(fault.blows[0].role, fault.blows[0].kind) for fault in faults]
    assert all(firsts.count((role, kind)) == 4 for role in ROLES for kind in KINDS)
    assert all(len({blow.role for blow in fault.blows}) == 1 + pairs for fault in faults)
    assert all(0 <= blow.after <= APART_MOST for fault in faults for blow in fault.blows)
    assert all(LASTS[blow.kind][0] <= blow.lasts <= LASTS[blow.kind][1] for fault in faults for blow in fault.blows)


def test_several_at_a_time() -> None:
    """As many different roles as asked for, and nobody more often than alone."""
    faults = sequence(3, ROLES, KINDS, 4, False, together=2)
    blows = [(blow.role, blow.kind) for fault in faults for blow in fault.blows]
    assert all(blows.count((role, kind)) == 4 for role in ROLES for kind in KINDS) and len(blows) == 36
    assert {len(fault.blows) for fault in faults} <= {1, 2} and len(faults) < 24
    assert all(len({blow.role for blow in fault.blows}) == len(fault.blows) for fault in faults)
    assert [fault.number for fault in faults] == list(range(len(faults)))


def report(**more: Any) -> dict[str, Any]:
    disk = {"written": 1, "read": 1, "failed": 0, "lost": 0, "stale": 0, "corrupt": 0, "gaps": [(1.0, 1.2), (9.0, 9.9)]}
    counts = {"received": 1, "lost": 0, "repeated": 0, "corrupt": 0, "failed": 0}
    frames = {**counts, "missing": [], "again": [], "dropped": {}}
    return {
        "unanswered": more.get("unanswered", 0), "foreign": more.get("foreign", 0),
        "disk": disk | more.get("disk", {}), "frames": frames | more.get("frames", {}),
    }  # fmt: skip


def judged(after: dict[str, Any] = HELD, back: float | None = 1.1, **more: Any) -> dict[str, Any]:
    happened = [Happened(KILL, 1.0, back)]
    return verdict.document(1, Outcome(happened, 0, {"left": report(**more)}, HELD, after))


def test_a_clean_campaign() -> None:
    document = judged()
    assert not verdict.failed(document) and set(document["figures"]) == set(verdict.MEANING)
    assert document["pauses"]["kill io-a"]["max"] == pytest.approx(0.2), "the gap that the fault fell into, no other"
    assert document["struck"] == {"kill io-a": 1}
    assert "writes_lost" in "\n".join(verdict.text(document))


@pytest.mark.parametrize(
    ("figure", "given"),
    [
        ("writes_lost", {"disk": {"lost": 1}}),
        ("stale_overwrites", {"disk": {"stale": 1}}),
        ("corrupt_blocks", {"disk": {"corrupt": 1}}),
        ("duplicated_completions", {"foreign": 1}),
        ("duplicated_frames", {"frames": {"repeated": 1}}),
        ("corrupt_frames", {"frames": {"corrupt": 1}}),
        ("unanswered", {"unanswered": 1}),
        ("frames_lost_outside", {"frames": {"lost": 1, "missing": [(5.0, 5.1, 1)]}}),
        ("leaked", {"after": {"threads": {"io-a": 4}}}),
        ("not_back", {"back": None}),
    ],
)
def test_every_figure_is_a_failure(figure: str, given: dict[str, Any]) -> None:
    document = judged(**given)
    assert verdict.failed(document) and document["figures"][figure] == 1
    assert sum(document["figures"].values()) == 1


def test_frames_lost_while_a_role_is_away_are_told_apart() -> None:
    document = judged(frames={"lost": 3, "missing": [(0.9, 1.05, 3)]})
    assert document["frames_lost_inside"] == 3 and not verdict.failed(document)


def test_what_there_is_more_of() -> None:
    before = {"threads": {"a": 1, "b": 2}, "rows": {}}
    assert grown(before, {"threads": {"a": 3, "b": 1}, "rows": {"x": 1}}) == {"threads a": 2, "rows x": 1}


@pytest.mark.parametrize(("option", "words"), [("--kinds", "kill,burn"), ("--kinds", ",")])
def test_unknown_kinds_are_refused(option: str, words: str) -> None:
    import click

    with pytest.raises(click.BadParameter, match="known: kill, stop, slow"):
        command.main([option, words], standalone_mode=False)


def test_a_campaign_that_breaks_ends_with_a_document(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest of the load breaks off, or nobody answers: what had happened by then is told, and that it was not all."""
    load = SimpleNamespace(begin=lambda: None)
    campaign = Campaign(cast(Any, None), cast(Any, load), lambda _done, _what: None)
    monkeypatch.setattr(campaign, "_holdings", lambda: HELD)

    def strike(story: Happened) -> None:
        story.back = story.begin
        if story.fault.number == 2:
            raise HostError("internal", "load guest chaos-left: it has broken off")

    monkeypatch.setattr(campaign, "_strike", strike)
    outcome = campaign.run([replace(KILL, number=number) for number in range(5)], 60.0)
    document = verdict.document(1, outcome)
    assert document["figures"]["ended_early"] == 1 and verdict.failed(document)
    assert document["error"] == "hostd.errors.HostError: load guest chaos-left: it has broken off"
    assert (document["faults"], document["left_out"]) == (3, 2)
    assert document["error"] in "\n".join(verdict.text(document))

"""`hostctl chaos`: one seed is one sequence, and every figure that is not 0 is a failure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hostd.errors import HostError
from tools.chaos import campaign as campaigns
from tools.chaos import verdict
from tools.chaos.campaign import Campaign, Happened, Outcome
from tools.chaos.faults import APART_MOST, KINDS, LASTS, Blow, Fault, sequence
from tools.chaos.holdings import grown
from tools.verbs.chaos import command

EVENTS = [
    {"sequence": 1, "time": 1.0, "kind": "device_lost", "partition": "disk0", "status": {"signalled": 9}},
    {"sequence": 2, "time": 1.1, "kind": "device_lost", "partition": "nic0", "status": {"signalled": 9}},
    {"sequence": 3, "time": 1.2, "kind": "error", "message": "the database is away"},
    {"sequence": 4, "time": 1.3, "kind": "error", "partition": "disk0", "message": "its file is locked"},
]

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


class Struck:
    """A host after a blow to some of its roles; `rows` None: nobody answers."""

    def __init__(self, folder: Path, rows: dict[str, dict[str, Any]] | None) -> None:
        self.client, self.rows, self.asked = self, rows, set[str]()
        self.paths = SimpleNamespace(log=folder / "hostd.log")
        self.paths.log.write_text("hostd: adoption: ultravisor: the peer has closed its end\n")

    def get(self, path: str) -> dict[str, Any]:
        self.asked.add(path.rpartition("/")[2])
        if self.rows is None:
            raise HostError("unreachable", "the daemon has died")
        return self.rows[path.rpartition("/")[2]]

    def lines(self, _path: str) -> list[dict[str, Any]]:
        return EVENTS

    def strike(self, patch: pytest.MonkeyPatch, *roles: str) -> Happened:
        """Each had the pid 7. Nobody is waited for for long."""
        target = {"pid": 7, "ended": lambda _seconds: True, "strike": lambda _blow: None, "close": lambda: None}
        patch.setattr(campaigns, "BACK", 0.05)
        patch.setattr(campaigns, "aim", lambda *_: {role: SimpleNamespace(role=role, **target) for role in roles})
        fault = Fault(3, 0.0, tuple(Blow(role, "kill", 0.0, 0.0) for role in roles))
        story = Happened(fault, 0.0)
        campaign = Campaign(cast(Any, self), cast(Any, None), lambda _done, _what: None, lambda *_: 8)
        campaign._wait_until_fresh(fault)
        campaign._strike(story)
        return story


def test_who_did_not_come_back_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what the host knows of it, and no other role's reasons."""
    host = Struck(tmp_path, {"nic0": {"state": "running", "pid": 9}, "disk0": {"state": "failed", "pid": None}})
    story = host.strike(monkeypatch, "nic0", "disk0")
    document = verdict.document(1, Outcome([story], 0, {"left": report()}, HELD, HELD))
    (away,) = document["events"][0]["away"]
    why = "device_lost status {'signalled': 9}; error message the database is away; error message its file is locked"
    assert away == {"role": "disk0", "struck": 7, "state": "failed", "pid": None, "why": why}
    assert document["figures"]["not_back"] == 1
    told = f"fault 3: disk0 (pid 7 was struck) is failed, pid None: {why}"
    assert told in "\n".join(verdict.text(document))


def test_a_host_that_does_not_answer_is_told_by_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nobody is waited for whom only hostd brings back."""
    host = Struck(tmp_path, None)
    story = host.strike(monkeypatch, "nic0", "hostd")
    (away,) = story.away
    assert (away.role, away.state, away.pid) == ("hostd", None, None) and host.asked == {"hostd"}
    assert "the daemon has died" in away.why and "the peer has closed its end" in away.why


def test_an_answer_that_ends_the_wait_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Struck(tmp_path, {})

    def refuse(_path: str) -> dict[str, Any]:
        raise HostError("not_found", "no partition 'disk0'")

    monkeypatch.setattr(host, "get", refuse)
    (away,) = host.strike(monkeypatch, "disk0").away
    assert away.why.startswith("no partition 'disk0'")

"""Roles are killed, stopped and slowed under load, in a seeded order (rules.md tests 16 to 18): all figures are 0.

`hostctl chaos` itself runs here, on a host of its own. That its load sees faults: tests/unit/test_chaos_load.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: those that come back whatever else happens
ROLES = ("io-a", "io-b", "monitor", "guest", "ultravisor", "command", "operations")
ALL = (*ROLES, "nic0", "disk0", "hostd")
KILLS, KILLS_LONG = 20, 1000  # of each of all ten roles, devices and hostd, too
#: five within 200 ms, and a hostd that has its imports done: what a kill costs would else be mostly those
TOGETHER = ("--together", "5", "--pause", "2ms", "--forked")
PAIRS, PAIRS_LONG = 1, 100  # of each first role and kind
PAUSES, PAUSES_LONG = 1, 60  # stops and slow times of each
SECONDS, SECONDS_LONG = 300, 6 * 3600


def chaos(seed: int, *words: str, roles: tuple[str, ...] = ROLES, long: bool = False) -> dict[str, Any]:
    """The document of a run, whose figures have to be 0."""
    limit = SECONDS_LONG if long else SECONDS
    command = [sys.executable, "-m", "tools.cli", "chaos", "--json", "--seed", str(seed), "--roles", ",".join(roles),
               "--seconds", str(limit), *words]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=2 * limit)
    assert done.stdout, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    wrong = {name: value for name, value in document["figures"].items() if value}
    away = [event for event in document["events"] if event["away"]]
    told = [wrong, document["error"], document["leaks"], away or document["events"][-3:]]
    assert (wrong, done.returncode) == ({}, 0), json.dumps(told)  # a text, for others are shown in part
    assert document["left_out"] == 0 and all(document["moved"].values())
    assert document["failed"] == {"disk": 0, "frames": 0}, "a role that comes back costs time and nothing else"
    print(json.dumps(document["pauses"]))
    return document


def test_kills(seed: int, long: bool) -> None:
    count = KILLS_LONG if long else KILLS
    document = chaos(seed, "--kinds", "kill", "--count", str(count), *TOGETHER, roles=ALL, long=long)
    missed = sum(len(event["missed"]) for event in document["events"])
    assert missed == 0 and document["struck"] == {f"kill {role}": count for role in ALL}


def test_pairs(seed: int, long: bool) -> None:
    """Two roles within 0 to 200 ms: also both I/O partitions, and who takes over while it does."""
    kinds, count = ("kill,stop", PAIRS_LONG) if long else ("kill", PAIRS)
    document = chaos(seed, "--pairs", "--kinds", kinds, "--count", str(count), long=long)
    assert all(len(event["blows"]) == 2 for event in document["events"])


def test_stops_and_slowness(seed: int, long: bool) -> None:
    """What goes on in time goes on; what does not is taken over (a zombie's requests: test_zombie.py)."""
    chaos(seed, "--kinds", "stop,slow", "--count", str(PAUSES_LONG if long else PAUSES), long=long)


@pytest.mark.parametrize("words", [["--roles", "nobody"], ["--running", "--runtime-dir", "/nonexistent"]])
def test_what_is_not_there_is_told(words: list[str]) -> None:
    command = [sys.executable, "-m", "tools.cli", "chaos", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and ("nobody" in done.stderr or "no host runs" in done.stderr), done.stderr

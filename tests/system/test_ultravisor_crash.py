"""A real ultravisor, killed with SIGKILL in every step of its changes and at random times (U2, rule test 31).

After each restart: the database is the one before the change or the one after it, its own checks and the checker
find nothing, the segments at the keeper are those on record, and what was acknowledged is there. Then the change is
repeated with its key, and has happened exactly once. 60 kills by default, 1,000 with --long; the seed is printed.
"""

from __future__ import annotations

import os
import random
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hostd.wire import RemoteError, WireError
from tests.framework.control_plane import MIB, disk, furnish, guest, nic
from tests.framework.servers import Server, Stage, staged

FAULTY = "tests.framework.faults:ultravisor"
SLOTS = 8  # guests that come and go; each has frames of its own
MEMORY = 256 << 10  # bytes of a guest: small, because each creation really allocates


@pytest.fixture
def stage(runtime_dir: Path) -> Iterator[Stage]:
    with staged(runtime_dir) as stage:
        yield stage


@pytest.fixture
def seed() -> int:
    seed = int(os.environ.get("PARTVISOR_SEED", random.randrange(1 << 32)))
    print(f"seed {seed} (set PARTVISOR_SEED to repeat)")
    return seed


class Expected:
    """What the database must hold, from the acknowledged changes alone: guests by slot, and their states."""

    def __init__(self, random: random.Random) -> None:
        self.random = random
        self.guests: dict[int, str] = {}
        self.number = 0

    def change(self) -> tuple[str, list[dict[str, Any]], dict[int, str]]:
        """A key, operations that are legal now, and the guests afterwards."""
        self.number += 1
        after = dict(self.guests)
        slot = self.random.randrange(SLOTS)
        name, state = f"g{slot}", self.guests.get(slot)
        partition = {"partition": name}
        if state is None:
            operations = [creation_of(slot)]
            after[slot] = "defined"
        elif state == "defined" and self.random.random() < 0.6:
            identity = {"pid": 100_000 + self.number, "start_time": self.number}
            operations = [
                {"op": "process.record", **partition, **identity},
                {"op": "partition.state", **partition, "state": "running"},
            ]
            after[slot] = "running"
        elif state == "running":
            operations = [{"op": "partition.state", **partition, "state": "failed"}]
            after[slot] = "failed"
        else:
            operations = [{"op": "partition.remove", **partition}]
            del after[slot]
            other = (slot + 1) % SLOTS
            if other not in self.guests and self.random.random() < 0.5:  # removal and creation in one change
                operations.append(creation_of(other))
                after[other] = "defined"
        return f"change-{self.number}", operations, after


def creation_of(slot: int) -> dict[str, Any]:
    name, frame = f"g{slot}", 65536 + slot * MEMORY // 4096
    return guest(name, frame, MEMORY, endpoints=[disk(file=f"{name}.img"), nic()])


def dump(server: Server) -> dict[str, Any]:
    """All rows, as the queries show them."""
    names = ("partitions", "memory", "segments", "channels", "devices", "resources")
    answers = {name: server.ask("query", what=name) for name in names}
    return {name: {key: value for key, value in answer.items() if key != "reply"} for name, answer in answers.items()}


def guests(server: Server) -> dict[int, str]:
    rows = server.ask("query", what="partitions")["partitions"]
    return {int(row["name"][1:]): row["state"] for row in rows if row["type"] == "guest"}


def verify(stage: Stage, server: Server) -> None:
    """Database, checker and keeper agree; compared here once more by other means than the checker's."""
    assert server.ask("check")["violations"] == []
    recorded = {row["id"]: (row["kind"], row["size"]) for row in server.ask("query", what="segments")["segments"]}
    assert recorded == {number: (row["kind"], row["size"]) for number, row in stage.segments().items()}
    memory = server.ask("query", what="memory")["memory"]
    assert {row["segment"]: row["size"] for row in memory} == {
        number: row["size"] for number, row in stage.segments().items() if row["kind"] == "memory"
    }


def audit_of(server: Server, key: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    while page := server.ask("query", what="audit", after=rows[-1]["sequence"] if rows else 0)["audit"]:
        rows += page
    return [row for row in rows if row["key"] == key]


def attempt(server: Server, key: str, operations: list[dict[str, Any]]) -> bool:
    """Sends a change to a server that may die of it; whether it was acknowledged."""
    try:
        server.transaction(*operations, key=key)
    except (EOFError, WireError):
        return False
    return True


def settle(
    stage: Stage,
    before: dict[str, Any],
    key: str,
    operations: list[dict[str, Any]],
    after: dict[int, str],
    acknowledged: bool,
) -> tuple[Server, bool]:
    """Restarts after a kill, checks, and repeats the change. Returns the server and whether it had happened."""
    server = stage.ultravisor(FAULTY)
    verify(stage, server)
    happened = bool(server.ask("query", what="transactions", key=key)["transactions"])
    assert happened or not acknowledged, "an acknowledged change is lost"
    if happened:
        assert guests(server) == after
    else:
        assert dump(server) == before, "a half change"
    answer = server.transaction(*operations, key=key)
    assert answer["replayed"] == happened
    assert guests(server) == after
    return server, happened


def test_killed_at_every_step_of_a_change(stage: Stage, seed: int, long: bool) -> None:
    expected = Expected(random.Random(seed))
    server = stage.ultravisor(FAULTY)
    server.transaction(*furnish(SLOTS * MEMORY), key="furnish")
    kills, wanted, happened_count = 0, 1000 if long else 45, 0
    steps: dict[tuple[str, ...], int] = {}
    while kills < wanted:
        key, operations, after = expected.change()
        shape = tuple(operation["op"] for operation in operations)
        if shape not in steps:  # once undisturbed, to learn how many steps it has
            server.ask("arm")
            server.transaction(*operations, key=key)
            steps[shape] = server.ask("steps")["steps"]
            expected.guests = after
            continue
        before = dump(server)
        server.ask("arm", die_at=expected.random.randint(1, steps[shape]))
        acknowledged = attempt(server, key, operations)
        server.kill()
        kills += 1
        server, happened = settle(stage, before, key, operations, after, acknowledged)
        expected.guests = after
        happened_count += happened
    server.stop()
    print(f"{kills} kills, {happened_count} changes had happened; steps {sorted(steps.values())}")
    assert 0 < happened_count < kills, "the kills hit one side of the commit only"


def test_killed_around_every_commit_of_a_creation_and_a_removal(stage: Stage) -> None:
    """Intent and confirmation, end and release: the steps before, in and after each commit, one by one."""
    server = stage.ultravisor(FAULTY)
    server.transaction(*furnish(SLOTS * MEMORY), key="furnish")
    creation = [creation_of(0)]
    removal = [{"op": "partition.remove", "partition": "g0"}]
    for name, operations, undo, after, decisive in (
        ("create", creation, removal, {0: "defined"}, 2),
        ("remove", removal, creation, {}, 1),
    ):
        server.ask("arm")
        server.transaction(*operations, key=name)
        assert server.ask("steps")["commits"] == 2, "two durable commits each"
        for commit in (1, 2):
            for near in range(6):
                key = f"{name}-{commit}-{near}"
                server.transaction(*undo, key=f"{key}-undo")
                before = dump(server)
                server.ask("arm", commit=commit, near=near)
                acknowledged = attempt(server, key, operations)
                server.kill()  # where the answer came before that step
                server, happened = settle(stage, before, key, operations, after, acknowledged)
                outcomes = [row["outcome"] for row in audit_of(server, key)]
                if name == "create" and (1, 1) < (commit, near) <= (2, 0):
                    assert outcomes == ["rolled back", "committed"], "the intent was on record"
                else:
                    assert outcomes[-1] == "committed" and len(outcomes) <= 2
                if (commit, near) <= (decisive, 0):
                    assert not happened, "before the decisive commit nothing has happened"
                elif (commit, near) > (decisive, 1):  # the first step may still lie inside the statement itself
                    assert happened, "after the decisive commit everything has happened"
    server.stop()


def test_killed_while_it_starts(stage: Stage, long: bool) -> None:
    """Recovery itself is cut at its steps, with an unfinished removal and an orphan to clean up."""
    server = stage.ultravisor(FAULTY)
    server.transaction(*furnish(SLOTS * MEMORY), key="furnish")
    creation = creation_of(0)
    server.transaction(creation, key="create")
    server.ask("arm")
    server.transaction({"op": "partition.remove", "partition": "g0"}, key="remove-0")
    steps = server.ask("steps")["steps"]
    for number, die_at in enumerate(range(1, 400, 7 if long else 45), 1):
        server.transaction(creation, key=f"create-{number}")
        server.ask("arm", die_at=steps - 20)  # between the commit and the release of its segments
        attempt(server, f"remove-{number}", [{"op": "partition.remove", "partition": "g0"}])
        server.kill()
        orphan = {"kind": "view", "size": 4096, "label": "ultravisor:nobody:1:view"}
        stage.wire.request({"op": "segment.create", **orphan})
        stage.ultravisor(FAULTY, die_at=die_at).kill()
        server = stage.ultravisor(FAULTY)
        verify(stage, server)
        server.transaction({"op": "partition.remove", "partition": "g0"}, key=f"remove-{number}")
        assert guests(server) == {}
    server.stop()


def test_killed_at_random_times_under_load(stage: Stage, seed: int, long: bool) -> None:
    """The kill comes from outside, at any instruction, also inside a system call; the file opens at once again."""
    expected = Expected(random.Random(seed))
    server = stage.ultravisor()
    server.transaction(*furnish(SLOTS * MEMORY), key="furnish")
    kills, changes, reopenings = 200 if long else 15, 0, []
    for _ in range(kills):
        delay = expected.random.uniform(0, 0.03)
        killer = threading.Timer(delay, server.shoot)
        killer.start()
        acknowledged = True
        while acknowledged:
            before = dict(expected.guests)
            key, operations, after = expected.change()
            acknowledged = attempt(server, key, operations)
            if acknowledged:
                expected.guests, changes = after, changes + 1
        killer.join()
        server.wait()
        begin = time.perf_counter()
        server = stage.ultravisor()
        server.ask("ping")
        reopenings.append(time.perf_counter() - begin)
        verify(stage, server)
        happened = bool(server.ask("query", what="transactions", key=key)["transactions"])
        assert guests(server) == (after if happened else before)
        assert server.transaction(*operations, key=key)["replayed"] == happened
        expected.guests = after
    server.stop()
    median = statistics.median(reopenings)
    print(f"{kills} kills in {changes} changes; process start to first answer: median {median * 1e3:.1f} ms")


def test_an_orphaned_segment_of_a_killed_request_does_not_stay(stage: Stage) -> None:
    """A large allocation is on its way when the ultravisor dies: the keeper ends up with nothing of it."""
    server = stage.ultravisor(FAULTY)
    server.transaction(*furnish(512 * MIB), key="furnish")
    known = stage.segments()
    killer = threading.Timer(0.02, server.shoot)
    killer.start()
    assert not attempt(server, "big", [guest("big", memory=256 * MIB)])
    killer.join()
    server.wait()
    server = stage.ultravisor()
    server.ask("reconcile", processes=[{"pid": pid, "start_time": 1, "name": ""} for pid in (100, 101, 102, 103)])
    assert stage.segments() == known
    with pytest.raises(RemoteError, match="no partition"):
        server.ask("query", what="partition", partition="big")
    server.stop()

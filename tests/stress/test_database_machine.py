"""Random transactions on the resource database against an independent model (U2, rule test 33).

After each: accepted exactly when the model says so; contents equal; the checker finds nothing; no id was ever given
to two things. 1,000 operations by default, a million with --long (hours). PARTVISOR_SHRINK=1 looks for a shorter
counterexample, which takes minutes.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from partitions.messages import Refusal
from tests.framework.control_plane import Host, disk, furnish, nic
from tests.framework.database_model import FIRST, Model

FRAMES = 96  # few, so that everything is always in the way of something
NAMES = ["a", "b", "c", "d", "e"]
MACS = st.sampled_from([f"02:00:00:00:00:0{number}" for number in range(3)])
PATH_NUMBERS = {"copy": 1, "redirect": 2, "direct": 3}
PATHS = st.sampled_from(["copy", "redirect", "direct"])
ENDPOINT_NAMES = st.sampled_from(["vda", "vdb", "eth0", "eth1"])
STATES = st.sampled_from(["defined", "starting", "running", "stopping", "stopped", "failed"])
EXTENT = st.builds(
    lambda frame, frames: {"frame": FIRST + frame, "frames": frames}, st.integers(-1, FRAMES - 1), st.integers(1, 6)
)
ENDPOINT = st.one_of(
    st.builds(lambda name, mac, path: nic(name, mac=mac, path=path), st.sampled_from(["eth0", "eth1"]), MACS, PATHS),
    st.builds(
        lambda name, file, offset, length, read_only: disk(
            name, file=file, offset=offset * 512, length=length * 512, read_only=read_only
        ),
        st.sampled_from(["vda", "vdb"]), st.sampled_from(["x.img", "y.img"]), st.integers(0, 3), st.integers(1, 4),
        st.sampled_from([False, False, True]),
    ),
)  # fmt: skip


def creation(name: str, extents: list[dict[str, int]], spare: int, endpoints: list[dict[str, Any]]) -> dict[str, Any]:
    pages = sum(extent["frames"] for extent in extents)
    return {
        "op": "partition.create", "name": name, "type": "guest", "memory": pages * 4096, "extents": extents,
        "memory_maximum": (pages + spare) * 4096, "endpoints": endpoints,
    }  # fmt: skip


def operation(name: str) -> st.SearchStrategy[dict[str, Any]]:
    """Any operation but a creation, on the partition `name`."""
    partition = {"partition": name}
    return st.one_of(
        st.builds(lambda state: {"op": "partition.state", **partition, "state": state}, STATES),
        st.builds(
            lambda pid: {"op": "process.record", **partition, "pid": 1000 + pid, "start_time": 1}, st.integers(0, 4)
        ),
        st.just({"op": "partition.remove", **partition}),
        st.builds(
            lambda extents: {"op": "memory.assign", **partition, "extents": extents},
            st.lists(EXTENT, min_size=1, max_size=2),
        ),
        st.builds(lambda pages: {"op": "memory.release", **partition, "memory": pages * 4096}, st.integers(0, 8)),
        st.builds(lambda endpoint: {"op": "endpoint.attach", **partition, **endpoint}, ENDPOINT),
        st.builds(lambda endpoint: {"op": "endpoint.detach", **partition, "name": endpoint}, ENDPOINT_NAMES),
        st.builds(
            lambda endpoint, sectors: {"op": "endpoint.grow", **partition, "name": endpoint, "length": 512 * sectors},
            ENDPOINT_NAMES, st.integers(1, 8),
        ),
        st.builds(
            lambda change, endpoint, path: {"op": change, **partition, "name": endpoint, "path": path},
            st.sampled_from(["endpoint.path", "endpoint.path_settle"]), ENDPOINT_NAMES, PATHS,
        ),
    )  # fmt: skip


verdicts: Counter[str] = Counter()  # of transactions, by rule
performed: Counter[str] = Counter()  # operations, rehearsed ones not counted


class DatabaseMachine(RuleBasedStateMachine):
    """One database, its keeper and the model of both."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="partvisor-machine-"))
        self.host = Host(self.folder / "resources.db")
        self.host.database.execute("PRAGMA synchronous = OFF")  # durability is the crash tests' business
        self.host.transaction(*furnish(FRAMES * 4096))
        self.model = Model(FRAMES)
        self.ids: dict[int, str] = {}
        self.generations: set[int] = set()

    def teardown(self) -> None:
        if hasattr(self, "host"):
            self.host.close()
            shutil.rmtree(self.folder)

    def draw(self, data: st.DataObject) -> dict[str, Any]:
        """An operation; mostly on what exists, and creations mostly of what does not."""
        known = sorted(self.model.guests)
        name = data.draw(st.sampled_from(known + NAMES))
        if name not in known or data.draw(st.integers(0, 9)) == 0:
            extents = data.draw(st.lists(EXTENT, min_size=1, max_size=3))
            endpoints = data.draw(st.lists(ENDPOINT, max_size=2))
            return creation(name, extents, data.draw(st.integers(0, 8)), endpoints)
        return data.draw(operation(name))

    @rule(data=st.data())
    def change(self, data: st.DataObject) -> None:
        self.perform([self.draw(data)])

    @rule(data=st.data(), count=st.integers(2, 3))
    def change_of_several(self, data: st.DataObject, count: int) -> None:
        self.perform([self.draw(data) for _ in range(count)])

    def perform(self, operations: list[dict[str, Any]]) -> None:
        performed["operations"] += len(operations)
        version = self.host.database.version
        expected = self.model.after(operations, keeper_answers=not self.host.keeper.silent)
        try:
            answer = self.host.transaction(*operations)
        except Refusal as refusal:
            verdicts[refusal.details["rule"]] += 1
            assert expected is None, f"refused by {refusal.details['rule']}, the model accepts"
            assert self.host.database.version == version
            return
        verdicts["accepted"] += 1
        assert expected is not None, "accepted, the model refuses"
        assert answer["version"] == version + 1
        self.model = expected

    @rule(data=st.data(), count=st.integers(1, 3))
    def rehearsal(self, data: st.DataObject, count: int) -> None:
        operations = [self.draw(data) for _ in range(count)]
        expected = self.model.after(operations, keeper_answers=True)
        try:
            self.host.transaction(*operations, dry_run=True)
        except Refusal:
            assert expected is None
        else:
            assert expected is not None

    @precondition(lambda self: not self.host.keeper.silent)
    @rule()
    def keeper_falls_silent(self) -> None:
        self.host.keeper.silent = True

    @precondition(lambda self: self.host.keeper.silent)
    @rule()
    def keeper_answers_again(self) -> None:
        self.host.keeper.silent = False

    @rule(data=st.data())
    def keeper_cannot_create(self, data: st.DataObject) -> None:
        operation = self.draw(data)
        if operation["op"] not in ("partition.create", "memory.assign", "endpoint.attach"):
            return
        self.host.keeper.fails = True
        try:
            self.host.transaction(operation)
        except Refusal:
            pass
        else:
            raise AssertionError("made segments without a keeper")
        self.host.keeper.fails = False

    @rule()
    def restart(self) -> None:
        self.host.keeper.silent = False
        self.host.restart()
        self.host.database.execute("PRAGMA synchronous = OFF")
        self.model.settle()

    @invariant()
    def contents_are_the_models(self) -> None:
        if not hasattr(self, "host"):
            return
        assert self.host.check() == []
        database = self.host.database
        rows = database.rows("SELECT id, name, state, memory FROM partition WHERE type = 'guest'")
        assert {row["name"]: row["state"] for row in rows} == {
            name: "removed" if guest.removed else guest.state for name, guest in self.model.guests.items()
        }
        owned = database.rows("SELECT name, frame, frames FROM extent JOIN partition ON partition.id = partition")
        frames = [(row["name"], frame) for row in owned for frame in range(row["frame"], row["frame"] + row["frames"])]
        assert sorted(frames) == sorted(
            (name, frame)
            for name, guest in self.model.guests.items()
            for extent in guest.memory + guest.limbo
            for frame in extent
        )
        for row in rows:
            self.view_is_the_models(row, self.model.guests[row["name"]])

    def view_is_the_models(self, row: dict[str, Any], guest: Any) -> None:
        assert self.ids.setdefault(row["id"], row["name"]) == row["name"], "an id was given twice"
        words = self.host.map_words(row["id"])[: guest.pages]
        flat = [frame for extent in guest.memory for frame in extent]
        assert words == [frame << 12 | 3 for frame in flat] + [0] * (guest.pages - len(flat))
        shown = self.host.descriptor(row["id"])
        assert shown is not None and shown["memory_pages"] == len(flat)
        assert {entry["name"]: entry["flags"] >> 8 & 3 for entry in shown["endpoints"]} == {
            name: PATH_NUMBERS[endpoint.wanted] for name, endpoint in guest.endpoints.items()
        }
        paths = self.host.database.rows("SELECT name, path FROM endpoint WHERE partition = ?", (row["id"],))
        assert {end["name"]: end["path"] for end in paths} == {
            name: endpoint.path for name, endpoint in guest.endpoints.items()
        }


@pytest.mark.parametrize("operations", [1_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_random_transactions_agree_with_the_model(operations: int) -> None:
    verdicts.clear()
    performed.clear()
    while performed["operations"] < operations:
        run_state_machine_as_test(
            DatabaseMachine,
            settings=settings(
                max_examples=20,
                stateful_step_count=50,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                phases=(Phase.generate, Phase.shrink) if "PARTVISOR_SHRINK" in os.environ else (Phase.generate,),
                database=None,
                print_blob=True,
            ),
        )
    print(f"{performed['operations']} operations; verdicts: {dict(verdicts.most_common())}")
    rules = {"accepted", "frames_overlap", "endpoint.device, endpoint.mac", "state_move", "partition.name", "mapped"}
    assert rules <= verdicts.keys(), f"the operations never met {rules - verdicts.keys()}"

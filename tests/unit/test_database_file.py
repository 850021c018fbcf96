"""The file under the resource database: opening, foreign and damaged files, one holder, a full disk, restarts, and
the comparison with what lives (rules 31 to 34)."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sqlite3
import statistics
import time
from pathlib import Path
from typing import Any

import pytest

from partitions.messages import Fields, Refusal
from partitions.store import Fault
from partitions.ultravisor import database as module
from partitions.ultravisor.database import Database
from pyx import abi
from tests.framework.control_plane import MIB, FakeKeeper, Host, disk, furnish, guest, nic


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "resources.db"


# -- opening


def test_a_new_file_is_private(path: Path) -> None:
    Database(path).close()
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_a_file_of_another_schema_version_is_refused(path: Path) -> None:
    Database(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 6")
    connection.close()
    with pytest.raises(Fault, match=r"schema version 6, this program knows 7 only"):
        Database(path)


def test_a_file_of_another_program_is_refused(path: Path) -> None:
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE notes (text)")
    connection.close()
    with pytest.raises(Fault, match="belongs to another program"):
        Database(path)


def test_what_is_no_database_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"these are my notes, and no database at all" * 200)
    with pytest.raises(Fault, match="not a database"):
        Database(path)
    assert path.read_bytes().startswith(b"these are my notes")


def test_a_damaged_file_is_refused(path: Path) -> None:
    host = Host(path)
    host.transaction(*furnish())
    host.stop()
    sqlite3.connect(path).close()  # nothing is left in the WAL
    data = bytearray(path.read_bytes())
    for page in range(2, len(data) // 4096):
        data[page * 4096 + 8 : page * 4096 + 200] = os.urandom(192)
    path.write_bytes(data)
    with pytest.raises(Fault):
        Database(path)
    host.keeper.close()


def test_a_row_that_breaks_a_rule_is_found_at_the_start(path: Path) -> None:
    host = Host(path)
    host.transaction(*furnish(), guest("one", endpoints=[disk()]))
    host.stop()
    connection = sqlite3.connect(path)
    connection.execute("DELETE FROM processor")  # foreign keys are off by default
    connection.execute("PRAGMA ignore_check_constraints = ON")
    connection.execute("UPDATE quota SET used = -4 WHERE resource = 'frames'")
    connection.commit()
    connection.close()
    with pytest.raises(Fault, match="damaged: CHECK constraint failed in quota"):
        Database(path)
    host.keeper.close()


def test_an_interrupted_creation_begins_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.Database, "fill", lambda self: os._exit(9))
    child = multiprocessing.get_context("fork").Process(target=Database, args=(path,))
    child.start()
    child.join()
    assert child.exitcode == 9 and path.exists()
    monkeypatch.undo()
    database = Database(path)
    assert database.version == 0 and database.integrity() == []
    database.close()


def test_two_ultravisors_never_share_a_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("partitions.store.LOCK_TIMEOUT", 0.05)
    first = Database(path)
    with pytest.raises(Fault, match="locked"):
        Database(path)
    first.close()
    Database(path).close()


def test_a_full_disk_is_a_clean_refusal(path: Path) -> None:
    host = Host(path)
    host.transaction(*furnish())
    before = host.database.version
    pages = host.database.value("PRAGMA page_count")
    host.database.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(Refusal, match="the disk is full; nothing has changed"):
        for number in range(100):
            host.do(guest(f"p{number}", frame=65536 + 256 * number, endpoints=[disk(file=f"{number}.img"), nic()]))
    assert host.check() == []
    host.database.execute("PRAGMA max_page_count = 1000000")
    assert host.database.version >= before and host.do(guest("after", frame=65536 + 256 * 60))
    assert host.check() == []
    host.close()


def test_commits_are_synced(path: Path) -> None:
    """What no kill of a process can show: without these, a power cut would take acknowledged changes along."""
    database = Database(path)
    assert database.value("PRAGMA journal_mode") == "wal" and database.value("PRAGMA synchronous") == 2
    assert database.value("PRAGMA locking_mode") == "exclusive" and database.value("PRAGMA foreign_keys") == 1
    database.close()


@pytest.mark.parametrize("reached", [True, False])
def test_a_commit_with_an_unknown_end_is_left_to_the_restart(
    path: Path, monkeypatch: pytest.MonkeyPatch, reached: bool
) -> None:
    """A sync that failed: the record may be on the disk or not. Either way nothing is torn afterwards."""
    host = Host(path)
    host.transaction(*furnish())
    commit, commits = host.database._commit, []

    def fail() -> None:
        commits.append(1)
        if len(commits) < 2 or reached:  # the second one is the confirmation
            commit()
        if len(commits) == 2:
            host.database._roll_back()
            raise Fault("commit failed: disk I/O error")

    monkeypatch.setattr(host.database, "_commit", fail)
    with pytest.raises(Fault):
        host.do(guest("one"), key="k")
    host.restart()
    assert host.check() == []
    assert [row["name"] for row in host.query("partitions")["partitions"][4:]] == (["one"] if reached else [])
    assert host.transaction(guest("one"), key="k")["replayed"] == reached
    host.close()


def test_a_start_takes_less_than_50_ms_with_a_full_host(path: Path) -> None:
    host = Host(path)
    host.transaction(*furnish(256 * MIB))
    for number in range(64):
        host.do(guest(f"p{number}", frame=65536 + 256 * number, endpoints=[disk(file=f"{number}.img"), nic()]))
    seconds = []
    for number in range(9):
        # What a killed process leaves: the file, and a WAL that nobody has moved into it.
        image = path.parent / f"killed{number}.db"
        shutil.copy(path, image)
        shutil.copy(f"{path}-wal", f"{image}-wal")
        begin = time.perf_counter()
        database = Database(image)
        seconds.append(time.perf_counter() - begin)
        assert database.version == host.database.version
        database.close()
    host.stop()
    print(f"opening with 64 guests: median {statistics.median(seconds) * 1e3:.1f} ms, max {max(seconds) * 1e3:.1f} ms")
    assert statistics.median(seconds) < 0.05
    host.keeper.close()


# -- answers and audit log do not grow for ever


def test_old_answers_and_audit_rows_go(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWERS_MAX", 5)
    monkeypatch.setattr(module, "AUDIT_ROWS_MAX", 7)
    host = Host(path)
    host.transaction(*furnish())
    for number in range(20):
        host.do({"op": "epoch.reserve", "partition": "io-a", "count": 1}, key=f"k{number}")
    assert [row["key"] for row in host.query("transactions")["transactions"]] == [f"k{n}" for n in range(15, 20)]
    assert [row["key"] for row in host.query("audit")["audit"]] == [f"k{n}" for n in range(13, 20)]
    assert host.query("transactions", key="k19")["transactions"][0]["results"][0]["last"] == 20
    host.close()


def test_lists_are_paged(path: Path) -> None:
    host = Host(path)
    host.transaction(*furnish())
    for number in range(10):
        host.do(guest(f"p{number}", frame=65536 + 256 * number, endpoints=[disk(file=f"{number}.img")]))
    for what, key in (("partitions", "id"), ("channels", "id"), ("memory", "frame"), ("segments", "id")):
        whole = host.query(what)[what]
        pages, after = [], 0
        while page := host.query(what, after=after, limit=3)[what]:
            assert len(page) <= 3
            pages += page
            after = page[-1][key]
        assert pages == whole and len(whole) >= 10
    host.close()


# -- restarts


def test_an_unfinished_intent_never_happened(path: Path) -> None:
    host = Host(path)
    host.transaction(*furnish())
    with host.database.transaction():
        host.database.execute("INSERT INTO intent (key, actor, operations) VALUES ('k', 'alice', '[]')")
    orphan = host.keeper.make({"kind": "memory", "size": MIB, "label": "ultravisor:one:262144:memory"})
    foreign = host.keeper.make({"kind": "statistics", "size": 4096, "label": "hostd:statistics"})
    host.restart()
    assert orphan not in host.keeper.segments and foreign in host.keeper.segments
    row = host.query("audit")["audit"][-1]
    assert (row["outcome"], row["key"], row["actor"]) == ("rolled back", "k", "alice")
    assert host.check() == []
    host.close()


def test_a_new_keeper_means_a_new_host(path: Path) -> None:
    """Whatever an old keeper held is gone; its numbers may mean somebody else's segments now."""
    host = Host(path)
    host.transaction(*furnish(), guest("one", endpoints=[disk(), nic()]), guest("two", frame=65792))
    host.transaction({"op": "process.record", "partition": "one", "pid": 4000, "start_time": 5})
    numbers = [row["id"] for row in host.query("segments")["segments"]]
    ghosts = {row["id"] for row in host.query("segments")["segments"] if row["partition"] == "io-b"}
    host.stop()
    host.keeper.close()
    host.keeper = FakeKeeper()
    for number in numbers:
        label = "ultravisor:ghost:262144:view" if number in ghosts else "hostd:ring"
        host.keeper.make({"kind": "hardware", "size": 4096, "label": label})
    assert host.keeper.segments.keys() == set(numbers)
    host.start()
    # Devices have no segments, so only a reconciliation can say that their processes are gone.
    assert [row["name"] for row in host.query("partitions")["partitions"]] == ["nic0", "disk0"]
    assert host.query("memory")["memory"] == []
    assert host.keeper.segments.keys() == set(numbers) - ghosts
    assert host.check() == []
    host.reconcile(processes=[])
    host.transaction(*furnish(), guest("one"))
    host.close()


def test_reconciliation_goes_both_ways(path: Path) -> None:
    host = Host(path)
    host.transaction(*furnish())
    for number, name in enumerate(("lives", "died", "stopped")):
        host.do(guest(name, frame=65536 + number * 256, endpoints=[nic()]))
        host.do({"op": "process.record", "partition": name, "pid": 4000 + number, "start_time": 5})
        host.do({"op": "partition.state", "partition": name, "state": "running"})
    host.do({"op": "partition.state", "partition": "stopped", "state": "stopped"})
    host.do(guest("halfway", frame=65536 + 1024))
    living = [{"pid": pid, "start_time": 1, "name": "role"} for pid in (100, 101, 102, 103)]
    living += [{"pid": 4000, "start_time": 5, "name": "lives"}, {"pid": 4001, "start_time": 6, "name": "other"}]
    orphan = host.keeper.make({"kind": "view", "size": 4096, "label": "ultravisor:x:1:view"})
    answer = host.reconcile(processes=living)
    assert (answer["removed"], answer["failed"]) == (["died", "halfway"], [])
    assert answer["unknown"] == [{"pid": 4001, "start_time": 6, "name": "other"}]
    assert (answer["dropped"], answer["lost"]) == ([orphan], [])
    left = {row["name"]: row["state"] for row in host.query("partitions")["partitions"] if row["type"] == "guest"}
    assert left == {"lives": "running", "stopped": "stopped"}
    again = host.reconcile(processes=living)
    assert (again["removed"], again["dropped"]) == ([], [])
    assert host.check() == []
    host.close()


def test_a_dead_server_of_living_partitions_is_kept_as_failed(path: Path) -> None:
    host = Host(path)
    host.transaction(*furnish(), guest("one", endpoints=[disk()]))
    host.do({"op": "process.record", "partition": "one", "pid": 4000, "start_time": 5})
    host.keeper.processes = [{"id": 1, "pid": 4000, "start_time": 5, "name": "one", "type": "guest", "status": None}]
    answer = host.reconcile()
    assert (answer["removed"], sorted(answer["failed"])) == (["io-b", "nic0"], ["disk0", "io-a"])
    states = {row["name"]: row["state"] for row in host.query("partitions")["partitions"]}
    assert states == {"io-a": "failed", "disk0": "failed", "one": "starting"}
    host.do({"op": "process.record", "partition": "io-a", "pid": 200, "start_time": 9})
    host.keeper.processes = []
    assert sorted(host.reconcile()["removed"]) == ["disk0", "io-a", "one"]
    assert host.query("resources")["usage"]["guest"] == {"partitions": 0, "memory": 0}
    host.close()


def test_a_lost_segment_takes_its_partition_along(path: Path) -> None:
    host = Host(path)
    host.transaction(*furnish(), guest("one"), guest("two", frame=65792))
    for name in ("one", "two"):
        host.do({"op": "partition.state", "partition": name, "state": "failed"})
    segment = host.query("partition", partition="two")["partition"]["memory"][0]["segment"]
    host.keeper.drop([segment])
    assert host.check() == [f"segment {segment} (memory) is not at the keeper"]
    living = [{"pid": pid, "start_time": 1, "name": "role"} for pid in (100, 101, 102, 103)]
    answer = host.reconcile(processes=living)
    assert (answer["lost"], answer["removed"]) == ([segment], ["two"])
    assert host.check() == []
    host.close()


@pytest.mark.parametrize(
    "message",
    [
        {"operations": None},
        {"operations": {}},
        {"operations": [None]},
        {"operations": [[]]},
        {"operations": ["partition.create"]},
        {"operations": [{}]},
        {"operations": [{"op": "nonsense"}]},
        {"operations": [{"op": ["partition.create"]}]},
        {"operations": [{"op": "partition.remove", "partition": {}}]},
        {"operations": [{"op": "partition.remove", "partition": 1 << 80}]},
        {"operations": [{"op": "partition.remove", "partition": "io-a", "surprise": 1}]},
        {"operations": [{"op": "partition.remove", "partition": "\ud800"}]},
        {"operations": [{"op": "machine.define"}] * 257},
        {"operations": [], "expect": "1"},
        {"operations": [], "expect": True},
        {"operations": [], "dry_run": 1},
        {"operations": [], "key": "k" * 129},
        {"operations": [], "key": "line\nbreak"},
        {"operations": [], "actor": 7},
        {"operations": [guest("a" * 32)]},
        {"operations": [guest("Upper")]},
        {"operations": [guest("a", memory=4097)]},
        {"operations": [guest("a", memory=MIB) | {"extents": []}]},
        {"operations": [guest("a") | {"extents": [{"frame": 65536, "frames": 256, "more": 1}]}]},
        {"operations": [guest("a") | {"extents": [{"frame": 65536, "frames": 1}] * 65}]},
        {"operations": [guest("a") | {"extents": [{"frame": 1.5, "frames": 256}]}]},
        {"operations": [guest("a", memory_maximum=0)]},
        {"operations": [guest("a", uid=-1)]},
        {"operations": [guest("a", uid=1, uid_base=1)]},
        {"operations": [guest("a", services=["nonsense"])]},
        {"operations": [guest("a", program="text")]},
        {"operations": [guest("a", program={"text": "\ud800"})]},
        {"operations": [guest("a", program={"number": float("nan")})]},
        {"operations": [guest("a", program={"text": "x" * 70000})]},
        {"operations": [guest("a", endpoints=[disk(f"d{n}", file=f"{n}") for n in range(33)])]},
        {"operations": [guest("a", endpoints=[disk(), disk()])]},
        {"operations": [guest("a", endpoints=[{"name": "vda"}])]},
        {"operations": [{"op": "partition.create", "name": "d", "type": "device", "memory": MIB, "extents": []}]},
        {"operations": [{"op": "partition.create", "name": "d", "type": "device", "endpoints": [nic()]}]},
        {"operations": [{"op": "device.create", "name": "x", "kind": "nic", "partition": "io-a"}]},
        {"operations": [{"op": "machine.define", "memory": 4096, "processors": [{"number": 0, "role": "x"}]}]},
        {"operations": [{"op": "machine.define", "memory": 4097, "processors": []}]},
        {"operations": [{"op": "machine.define", "memory": 4096, "processors": [{"number": 0, "role": "both"}] * 2}]},
        {"operations": [{"op": "epoch.reserve", "partition": "io-a", "count": 1 << 60}]},
    ],
)
def test_malformed_transactions_are_refused_and_change_nothing(path: Path, message: dict[str, Any]) -> None:
    host = Host(path)
    host.transaction(*furnish())
    version, segments = host.database.version, len(host.keeper.segments)
    with pytest.raises(Refusal) as caught:
        host.transactions.run(Fields({"key": "k", **message}, "transaction"), "test")
    assert caught.value.code in ("invalid", "not_found", "conflict")
    assert caught.value.message.isascii() and len(caught.value.message) < 500
    assert (host.database.version, len(host.keeper.segments)) == (version, segments)
    assert host.check() == []
    host.close()


def test_the_numbers_of_the_schema_are_those_of_the_shared_layout(path: Path) -> None:
    database = Database(path)
    text = " ".join(row["sql"] for row in database.rows("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL"))
    assert f"slot BETWEEN 0 AND {abi.PARTITIONS_MAX} - 1" in text
    assert "$" not in text
    database.close()

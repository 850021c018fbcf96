"""The whole host: each role a process of its own, and a status that notices when something is not as it should be."""

import os
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from hostd.errors import HostError
from tests.framework import monitors
from tests.framework.host import INFRASTRUCTURE, Host, running

DISK = {"name": "vda", "size": "1MiB"}


@pytest.fixture
def doomed() -> Iterator[Host]:
    """A host of the test's own, to be broken; with a guest in it."""
    with running() as host:
        host.guest("guest", disks=[DISK], nics=["eth0"])
        assert host.failed_checks() == []
        yield host


def test_all_roles_are_processes_of_their_own(host: Host) -> None:
    guests = ["first", "second"]
    for name in guests:
        host.guest(name, disks=[DISK], nics=["eth0"])
    status = host.status()
    rows = {row["name"]: row for row in status["processes"]}
    assert set(rows) == {"hostd", "keeper", *INFRASTRUCTURE, *guests}
    assert len({row["pid"] for row in rows.values()}) == len(rows)
    assert {row["state"] for row in rows.values()} == {"running"}
    assert {check["name"] for check in status["checks"]} == {
        "resource database", *(f"memory map of {name}" for name in rows),
        *(f"process of {name}" for name in rows if name not in ("hostd", "keeper")),
    }  # fmt: skip
    assert [check for check in status["checks"] if not check["ok"]] == []
    for name, row in rows.items():
        process = psutil.Process(row["pid"])
        assert process.create_time() == pytest.approx(row["start_time"], abs=0.02), name
        if name not in ("hostd", "keeper"):
            assert process.ppid() == rows["keeper"]["pid"], name
            assert process.name() == f"pv-{name}"[:15]


def test_database_and_processes_agree(host: Host, tmp_path: Path) -> None:
    """The resource database itself, not the ultravisor's word, names each process by pid and start time (U1)."""
    host.guest("guest", disks=[DISK])
    for suffix in ("", "-wal"):  # a copy: the ultravisor holds the file for itself
        shutil.copy(f"{host.paths.resources}{suffix}", tmp_path)
    with closing(sqlite3.connect(tmp_path / host.paths.resources.name)) as database:
        query = "SELECT name, pid, start_time FROM partition JOIN process ON process.partition = partition.id"
        found = database.execute(query).fetchall()
    assert {name for name, _, _ in found} == {*INFRASTRUCTURE, "guest"}
    for name, pid, start_time in found:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        assert (host.row(name)["pid"], start_time) == (pid, int(fields[19])), name


def test_worlds_are_the_partitions(host: Host) -> None:
    """Each partition, the console too, has a control block in the kernel region (W4)."""
    host.guest("guest")
    worlds = {world["partition"]: world for world in host.status()["host"]["worlds"]}
    rows = {row["id"]: row for row in host.rows().values() if row["name"] not in ("hostd", "keeper")}
    with_views = {identity: row for identity, row in rows.items() if row["type"] not in ("monitor", "device")}
    assert set(worlds) == set(with_views)
    for identity, row in with_views.items():
        assert (worlds[identity]["type"], worlds[identity]["pid"]) == (row["type"], row["pid"]), row["name"]


def test_a_segment_that_is_no_longer_mapped_is_a_mismatch(host: Host) -> None:
    guest = host.guest("guest")
    guest.call("memory:unmap", which="/dev/shm")
    failed = host.failed_checks()
    assert [check["name"] for check in failed] == ["memory map of guest"]
    assert "is not mapped" in failed[0]["detail"]


def test_lost_rights_are_a_mismatch(host: Host) -> None:
    guest = host.guest("guest")
    guest.call("memory:protect", which="/dev/shm")
    failed = host.failed_checks()
    assert [check["name"] for check in failed] == ["memory map of guest"]
    assert "is mapped r, not rw" in failed[0]["detail"]


@pytest.mark.parametrize("role", INFRASTRUCTURE)
def test_a_dead_role_is_a_mismatch(doomed: Host, role: str) -> None:
    """Its death is named, its guests live on, what needs it is refused in time, and `down` works."""
    guest = doomed.row("guest")
    if role == "console":
        os.kill(doomed.row(role)["pid"], signal.SIGKILL)
    else:
        monitors.exhaust(doomed, role)  # one death is followed by another process
    row = doomed.until(lambda: (found := doomed.row(role))["exit_status"] and found)
    assert row["exit_status"] == {"signalled": signal.SIGKILL}
    doomed.until(doomed.failed_checks)
    assert os.path.exists(f"/proc/{guest['pid']}") and doomed.row("guest")["state"] == "running"
    if role == "console":  # nothing needs it yet
        return
    if role in ("io-a", "io-b"):  # nothing needs it while there is the other one
        doomed.guest("other", disks=[DISK]).call("disk:write", disk="vda", length=4096, seed=1)
        return
    with pytest.raises(HostError) as refused:
        doomed.spawn("other", ["puppet:main"], disks=[DISK], nics=[{"name": "eth0"}])
    assert refused.value.code in ("unreachable", "not_placed") and role in refused.value.message
    assert "other" not in doomed.rows()

"""Data threads make room for threads of the kernel that end a disk's requests, and come back (U10)."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from hostd.disk_interrupts import disk_of, endings
from tests.framework.host import MANIFEST, Host, running
from tests.framework.puppet import Puppet
from tests.system.test_revocation import classes, data_threads, need_real_time

WRITING = 1.5  # seconds: several answers of the disk to pings
ROLES = ("monitor", "io-a", "io-b", "disk0", "nic0")


def told(host: Host, since: int) -> list[tuple[bool, Any]]:
    events = [event for event in host.events(since) if event["kind"] == "data_threads"]
    return [(event["lowered"], event.get("partition")) for event in events]


def write_for_long(guest: Puppet) -> None:
    """One block again and again, and no flush behind it."""
    end = time.monotonic() + WRITING
    while time.monotonic() < end:
        assert guest.call("disk:attempt", disk="vda", operation="write", offset=0, length=4096) == []


def test_while_a_disk_flushes(host: Host) -> None:
    guest = host.guest("store", disks=[{"name": "vda", "size": "1MiB"}])
    need_real_time(host)
    guest.call("disk:write", disk="vda", length=4096, seed=1)  # the file has a block there
    host.until(lambda: told(host, 0)[-1:] == [(True, "disk0")])
    need_real_time(host)
    pids, since = host.pids(), host.events()[-1]["sequence"]
    data = [thread for name in ROLES for thread in data_threads(pids[name])]
    assert len(data) >= len(ROLES)
    write_for_long(guest)  # into the page cache: no thread ends it
    assert told(host, since) == []

    def flushed() -> bool:
        guest.call("disk:write_durable", disk="vda", length=4096, seed=1)
        return classes(data) == {os.SCHED_BATCH}

    host.until(flushed)
    assert {os.getpriority(os.PRIO_PROCESS, thread) for thread in data} == {-10}
    assert host.status()["host"]["scheduling"] == "batch: threads of the kernel end what disk0 has begun"
    host.until(lambda: classes(data) == {os.SCHED_RR})
    assert {os.sched_getparam(thread).sched_priority for thread in data} == {10}
    host.until(lambda: told(host, since) == [(True, "disk0"), (False, None)])
    assert host.status()["host"]["scheduling"] == "real-time"


def processor_where(apart: bool, folder: Path) -> int:
    """One where writes that it asks the disk under `folder` for end on others, or may end there."""
    disk, present = disk_of(folder), sorted(os.sched_getaffinity(0))
    ends = endings(disk, present) if disk else {}
    found = [one for one in ends if apart == (one not in ends[one])]
    if not found:
        pytest.skip(f"no processor whose direct writes end {'on another one' if apart else 'there'}")
    return found[-1]


@pytest.mark.parametrize("apart", [True, False])
def test_direct_writes_need_room_where_they_end(tmp_path: Path, apart: bool) -> None:
    """Where that is another processor, nobody gives way to them, and to flushes as ever."""
    own = processor_where(apart, tmp_path)
    others = [one for one in sorted(os.sched_getaffinity(0)) if one != own] or [own]
    disk = {"name": "disk0", "kind": "disk", "medium": "direct", "folder": str(tmp_path)}
    processors = {"infrastructure": [own], "guests": others}
    with running(
        {**MANIFEST, "host": {**MANIFEST["host"], "processors": processors}, "devices": [MANIFEST["devices"][0], disk]}
    ) as host:
        need_real_time(host)
        guest = host.guest("store", disks=[{"name": "vda", "size": "1MiB"}])
        (way,) = host.status()["media"]["disk0"]["files"].values()
        if "past the page cache" not in way:
            pytest.skip(f"{tmp_path} is on a file system without direct I/O")
        assert way.endswith("writes end on another processor") == apart
        guest.call("disk:write", disk="vda", length=4096, seed=1)  # the file has a block there
        host.until(lambda: told(host, 0)[-1:] == [(True, "disk0")])
        need_real_time(host)
        since = host.events()[-1]["sequence"]
        write_for_long(guest)
        assert told(host, since) == ([] if apart else [(True, "disk0")])
        guest.call("disk:write_durable", disk="vda", length=4096, seed=1)
        host.until(lambda: told(host, since)[:1] == [(True, "disk0")])

"""Data threads make room for threads of the kernel that end a disk's requests, and come back (U10)."""

import os
from typing import Any

from tests.framework.host import Host
from tests.system.test_revocation import classes, data_threads, need_real_time

ROLES = ("monitor", "io-a", "io-b", "disk0", "nic0")


def told(host: Host, since: int) -> list[tuple[bool, Any]]:
    events = [event for event in host.events(since) if event["kind"] == "data_threads"]
    return [(event["lowered"], event.get("partition")) for event in events]


def test_while_a_disk_flushes(host: Host) -> None:
    guest = host.guest("store", disks=[{"name": "vda", "size": "1MiB"}])
    guest.call("disk:write", disk="vda", length=4096, seed=1)  # the file has a block there
    need_real_time(host)
    pids, since = host.pids(), host.events()[-1]["sequence"]
    data = [thread for name in ROLES for thread in data_threads(pids[name])]
    assert len(data) >= len(ROLES)
    guest.call("disk:write", disk="vda", length=4096, seed=2)  # into the page cache: no thread ends it
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

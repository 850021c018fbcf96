"""hostd is killed while it takes memory, an endpoint and a channel from a guest: the next one ends what it had begun,
and its receipts are true (rules 24 and 32)."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import pytest

from hostd.errors import HostError
from tests.framework.canary import memory_of, put, stands
from tests.framework.host import Host
from tests.system.test_hostd_death import kill
from tests.system.test_revocation import classes, data_threads

MIB = 1 << 20
PAGE = 4096
WANTED: dict[str, dict[str, Any]] = {
    "m": {"memory": {"offset": 0, "size": 8 * PAGE}}, "e": {"endpoint": "vdb"}, "c": {"channel": "vda"},
}  # fmt: skip


@pytest.mark.parametrize("device", ["goes on", pytest.param("dies too", marks=pytest.mark.long)])
def test_the_next_hostd_ends_what_was_begun(own: Host, device: str) -> None:
    own.start()
    disks = [{"name": "vda", "size": "1MiB", "path": "direct"}, {"name": "vdb", "size": "1MiB"}]
    guest = own.guest("store", memory="4MiB", disks=disks)
    guest.call("disk:write", disk="vda", length=MIB, seed=1)
    own.until(lambda: own.path("store", "vda") == "direct")
    guest.begin("load:disk", disk="vda", depth=32, seconds=3600)
    own.await_progress("store", 200)
    disk = own.pids()["disk0"]
    data = [thread for name in ("monitor", "nic0", "io-a") for thread in data_threads(own.pids()[name])]
    before = classes(data)
    os.kill(disk, signal.SIGSTOP)  # so that nothing comes to its end
    answers: dict[str, dict[str, Any]] = {}

    def ask(key: str) -> None:
        try:
            answers[key] = own.take("store", key=key, deadline=15.0, **WANTED[key])
        except HostError as error:
            assert error.code == "unreachable", error

    threads = [threading.Thread(target=ask, args=(key,)) for key in WANTED]
    for thread in threads:
        thread.start()
    own.until(lambda: len(own.view("store")["receipts"]) == len(WANTED))
    kill(own)
    for thread in threads:
        thread.join()
    assert answers == {}
    os.kill(disk, signal.SIGCONT if device == "goes on" else signal.SIGKILL)
    own.start()
    control = [own.pids()[name] for name in ("ultravisor", "command", "monitor", "nic0")]
    assert classes(control) == {os.SCHED_OTHER} and classes(data) == before  # nothing is urgent now
    own.until(lambda: {end["name"]: end["path"] for end in own.row("store")["endpoints"]} == {"vda": "redirect"})
    own.until(lambda: [row["state"] for row in own.view("store")["true"]["revoked"]] == ["freed"])
    own.until(lambda: all(one["state"] == "freed" for one in own.view("store")["receipts"]))
    known = sorted(one["kind"] for one in own.view("store")["receipts"])
    assert known == ["channel", "memory"]  # that of the endpoint went with it; `hostctl explain` has it
    for key, what in WANTED.items():  # whoever did not hear the answer asks again
        receipt = own.take("store", key=key, **what)
        assert receipt["state"] == "freed" and receipt["generation"] > 0, receipt
    outcomes = [one["outcome"] for one in own.client.get("/v1/explain", partition="store")["decisions"][-3:]]
    assert outcomes == ["committed"] * 3
    with memory_of(own, "store") as fd:
        put(fd, 0, 8 * PAGE)
        own.attach("store", disk={"name": "vdb", "size": "1MiB"})
        own.until(lambda: own.metrics().value("io_refused_total", partition="store", reason="address_withheld") > 0)
        assert stands(fd, 0, 8 * PAGE)
    own.grant("store", 0)
    own.set_path("store", "vda", "direct")
    own.await_progress("store", 200)
    # It has not looked for changes, so it still maps rings of an endpoint that went; nobody else does.
    assert [one for one in own.failed_checks() if one["name"] != "memory map of store"] == []
    own.stop()

"""Memory that is taken from a running guest: nobody changes a byte of it after the receipt, and it comes in time (U5,
A3; rules 24 to 26, 30)."""

from __future__ import annotations

import os
import random
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from hostd.errors import HostError
from hostd.families import threads_of
from tests.framework.canary import memory_of, put, stands
from tests.framework.host import Host, running
from tests.framework.puppet import Puppet

MIB = 1 << 20
PAGE = 4096
DEPTH = 32
RANGE = 8 * PAGE
CYCLES, CYCLES_LONG = 200, 10_000
PATIENCE = 0.050  # seconds: demanded of cooperating holders at p99 (`bench revoke`), and beyond a deadline always
WITHHELD = ["refused", "address_withheld"]


def loaded(host: Host, path: str, name: str = "store") -> Puppet:
    """A guest whose disk reads into 32 pages of its memory, from the first one on, all the time."""
    guest = host.guest(name, memory="4MiB", disks=[{"name": "vda", "size": "1MiB", "path": path}])
    guest.call("disk:write", disk="vda", length=MIB, seed=1)
    host.until(lambda: host.path(name, "vda") == path)
    guest.begin("load:disk", disk="vda", depth=DEPTH, seconds=3600)
    host.await_progress(name, 1000)
    return guest


def test_after_the_receipt_no_byte_changes(host: Host, long: bool, seed: int) -> None:
    """Two guests, both servers, load into the very pages: revoked, watched while the load goes on, granted again. Each
    generation is a new one."""
    generator, times = random.Random(seed), []
    guests = {"near": "direct", "store": "redirect"}
    written, generations = dict.fromkeys(guests, 0), {name: [0] for name in guests}
    for name, path in guests.items():
        loaded(host, path, name)
    with ExitStack() as stack:
        memory = {name: stack.enter_context(memory_of(host, name)) for name in guests}
        offsets = dict.fromkeys(guests, 0)
        for _ in range((CYCLES_LONG if long else CYCLES) // 2):
            for name, fd in memory.items():
                written[name] += os.pread(fd, RANGE, offsets[name]) != bytes(RANGE)
                offset = offsets[name] = PAGE * generator.randrange((DEPTH * PAGE - RANGE) // PAGE + 1)
                receipt = host.revoke(name, offset, RANGE)
                assert receipt["state"] == "freed" and os.pread(fd, RANGE, offset) == bytes(RANGE)
                put(fd, offset, RANGE)
                times.append(receipt["seconds"])
                generations[name].append(receipt["generation"])
            for name, fd in memory.items():  # after a while: the other guest's revocation
                assert stands(fd, offsets[name], RANGE), f"{name}: a byte of revoked memory has changed"
                generations[name].append(host.grant(name, offsets[name])["generation"])
    for name, found in generations.items():
        assert found == sorted(set(found)), f"{name}: a generation came twice"
        assert written[name] > len(found) / 8, f"{name}: the load does not reach the range, so nothing was shown"
        assert host.metrics().value("io_refused_total", partition=name, reason="address_withheld") > 0
    times.sort()
    print(f"p50 {times[len(times) // 2] * 1e3:.1f} ms, p99 {times[int(len(times) * 0.99)] * 1e3:.1f} ms")
    assert times[len(times) // 4] <= PATIENCE  # the load leaves the control plane what it can
    assert host.failed_checks() == []


def test_a_stopped_guest_holds_nothing_up(host: Host, bystander: Puppet) -> None:
    """It stands with its requests in flight; when it goes on, those that name the range are refused and counted."""
    guest = loaded(host, "redirect")
    os.kill(guest.pid, signal.SIGSTOP)
    try:
        with memory_of(host, "store") as fd:
            receipts = [host.revoke("store", place * RANGE, RANGE) for place in range(2)]
            put(fd, 0, 2 * RANGE)
            assert [one["state"] for one in receipts] == ["freed"] * 2
            before = host.metrics()
            os.kill(guest.pid, signal.SIGCONT)
            host.await_progress("store", 1000)
            assert stands(fd, 0, 2 * RANGE)
            refused = host.metrics().changes(before, "io_refused_total")
            assert {dict(key)["reason"] for key in refused} == {"address_withheld"}
    finally:
        os.kill(guest.pid, signal.SIGCONT)
    assert {one["name"] for one in receipts[0]["holders"]} == {"monitor", "disk0"}
    assert all(0 < one["released"] <= receipts[0]["seconds"] for one in receipts[0]["holders"])
    assert list(receipts[0]["stages"]) == ["revoking", "drained", "revoked", "freed"]


def test_a_device_that_stands_still_leaves_a_quarantine(host: Host) -> None:
    """At the deadline the receipt says whose; nothing there is granted before that device has let go, and then it is
    freed without anybody's asking."""
    loaded(host, "redirect")
    device, late = host.pids()["disk0"], []
    with memory_of(host, "store") as fd:
        for _ in range(3):
            os.kill(device, signal.SIGSTOP)
            try:
                receipt = host.revoke("store", 0, RANGE, deadline=0.3)
                late.append(receipt["seconds"] - 0.3)
                assert receipt["state"] == "quarantine"
                holders = {one["name"]: one["released"] for one in receipt["holders"]}
                assert holders["disk0"] is None and holders["monitor"] is not None
                assert host.metrics().value("quarantine_bytes", partition="store") == RANGE
                with pytest.raises(HostError, match="quarantine") as refused:
                    host.grant("store", 0)
                assert refused.value.code == "state"
            finally:
                os.kill(device, signal.SIGCONT)
            host.until(lambda: host.metrics().value("quarantine_bytes", partition="store") == 0)
            host.until(lambda: host.view("store")["true"]["revoked"][0]["state"] == "freed")
            put(fd, 0, RANGE)
            host.await_progress("store", 200)
            assert stands(fd, 0, RANGE)
            host.grant("store", 0)
    assert min(late) <= PATIENCE, late
    assert host.failed_checks() == []


def test_control_comes_before_data_meanwhile(host: Host) -> None:
    """Otherwise a control process that waits on a data thread's processor waits until the kernel moves it, and a commit
    waits for workers of the kernel that it does not move."""
    loaded(host, "redirect")
    need_real_time(host)
    pids = host.pids()
    control = [pids[name] for name in ("keeper", "ultravisor", "command", "monitor", "disk0", "nic0")]
    data = [thread for name in ("monitor", "io-a", "io-b", "disk0", "nic0") for thread in data_threads(pids[name])]
    assert classes(control) == {os.SCHED_OTHER} and len(data) >= 5
    os.kill(pids["disk0"], signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(1) as one:
            receipt = one.submit(host.revoke, "store", 0, RANGE, deadline=2.0)
            host.until(lambda: classes(control) == {os.SCHED_RR})
            assert all(os.sched_getparam(pid).sched_priority > 10 for pid in control)
            assert classes(data) == {os.SCHED_BATCH}
            assert {os.getpriority(os.PRIO_PROCESS, thread) for thread in data} == {-10}
            assert receipt.result()["state"] == "quarantine"
    finally:
        os.kill(pids["disk0"], signal.SIGCONT)
    assert classes(control) == {os.SCHED_OTHER}
    assert classes(data) == {os.SCHED_RR}
    assert {os.sched_getparam(thread).sched_priority for thread in data} == {10}


def need_real_time(host: Host) -> None:
    """And waits until threads of the kernel have ended what a disk has begun (hostd.kernel_work)."""
    host.until(lambda: not host.status()["host"]["scheduling"].startswith("batch"))
    if host.status()["host"]["scheduling"] != "real-time":
        pytest.skip("data threads are of the normal class: a real-time class needs CAP_SYS_NICE")


def data_threads(process: int) -> list[int]:
    """Without the kernel's workers for them, which come and go."""
    named = {thread: Path(f"/proc/{process}/task/{thread}/comm").read_text() for thread in threads_of(process)}
    ours = [thread for thread, name in named.items() if not name.startswith("iou-")]
    return [thread for thread in ours if classes([thread]) == {os.SCHED_RR}]


def classes(pids: list[int]) -> set[int]:
    return {os.sched_getscheduler(pid) & ~os.SCHED_RESET_ON_FORK for pid in pids}


def test_posted_receive_buffers_are_given_back(host: Host) -> None:
    """What lies at the device unexecuted and names the range comes back refused; the rest is used."""
    guest = host.guest("store", nics=["eth0"])
    to = guest.call("nic:open", nic="eth0", buffers=64)
    before = host.metrics()
    receipt = host.revoke("store", 0, 32 * PAGE)
    refused = host.metrics().by("reason", "io_refused_total", partition="store")
    assert receipt["state"] == "freed" and refused["address_withheld"] >= 16
    sender = host.guest("sender", nics=["eth0"])
    assert sender.call("nic:send", nic="eth0", to=to, frames=[(64, 1)] * 5) == {}
    with memory_of(host, "store") as fd:
        assert os.pread(fd, 32 * PAGE, 0) == bytes(32 * PAGE)
    assert before.value("quarantine_bytes", partition="store") == 0


@pytest.mark.parametrize("path", ["copy", "redirect", "direct"])
def test_a_request_there_is_refused_on_each_path(host: Host, path: str) -> None:
    guest = host.guest("store", disks=[{"name": "vda", "size": "1MiB", "path": path}])
    guest.call("disk:write", disk="vda", length=PAGE, seed=1)
    host.until(lambda: host.path("store", "vda") == path)
    attempt: dict[str, Any] = {"disk": "vda", "gpa": MIB + PAGE, "length": PAGE}
    assert guest.call("containment:try_transfer", **attempt) == [[], []]
    host.revoke("store", MIB, RANGE)
    assert guest.call("containment:try_transfer", **attempt) == [WITHHELD] * 2
    assert guest.call("containment:try_transfer", **{**attempt, "gpa": MIB - PAGE}) == [[], []]
    host.grant("store", MIB)
    assert guest.call("containment:try_transfer", **attempt) == [[], []]


def test_a_guest_whose_touches_trap_loses_its_own_mapping_too(host: Host) -> None:
    """Without traps it finds zeroes there, in pages of its own; with them its next touch ends it."""
    for trapped in (False, True):
        guest = host.guest("store", trap_memory=trapped)
        guest.call("containment:touch", first=256, pages=1, write=True)
        host.revoke("store", 256 * PAGE, PAGE)
        if trapped:
            guest.begin("containment:touch", first=256, pages=1)
            row = host.wait_for_end("store")
            assert row["exit_status"] == {"signalled": signal.SIGBUS}
        else:
            guest.call("containment:touch", first=256, pages=1)
        host.remove("store")


def test_what_cannot_be_revoked_or_granted_says_why(host: Host) -> None:
    host.guest("store")
    host.revoke("store", MIB, RANGE)
    for act, code, text in (
        (lambda: host.revoke("store", MIB, RANGE), "conflict", "withheld already"),
        (lambda: host.revoke("store", MIB + PAGE, RANGE), "conflict", "withheld already"),
        (lambda: host.revoke("store", 2 * MIB - PAGE, 2 * PAGE), "invalid", "are not in it"),
        (lambda: host.revoke("store", 100, PAGE), "invalid", "4096"),
        (lambda: host.revoke("nobody", 0, PAGE), "not_found", "nobody"),
        (lambda: host.revoke("monitor", 0, PAGE), "state", "no running guest"),
        (lambda: host.grant("store", 0), "state", "nothing of store is revoked"),
    ):
        with pytest.raises(HostError, match=text) as refused:
            act()
        assert refused.value.code == code, text
    host.grant("store", MIB)
    with pytest.raises(HostError, match="nothing of store is revoked"):
        host.grant("store", MIB)
    records = host.client.get("/v1/explain", partition="store", replay=True)["decisions"]
    assert [one["answer"]["rule"] for one in records if one["outcome"] == "committed"][-2:] == ["revoke", "grant"]
    assert all(one["replay"]["same"] for one in records)


def test_what_a_killed_device_held_is_free(long: bool) -> None:
    """Stopped first, so that it holds the range at the deadline; its end frees it."""
    with running() as host:
        loaded(host, "redirect")
        os.kill(host.pids()["disk0"], signal.SIGSTOP)
        assert host.revoke("store", 0, RANGE, deadline=0.3)["state"] == "quarantine"
        os.kill(host.pids()["disk0"], signal.SIGKILL)
        host.until(lambda: host.metrics().value("quarantine_bytes", partition="store") == 0)
        host.until(lambda: host.view("store")["true"]["revoked"][0]["state"] == "freed")

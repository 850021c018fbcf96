"""Endpoints and channels that are taken from a running guest: after the receipt nothing of theirs is carried out,
whether the guest lives, stands still or has been killed; and it comes in time (U5, A3; rules 24 to 26)."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from hostd.errors import HostError
from pyx.abi import REASONS, STATUSES
from tests.framework.canary import memory_of, put, stands
from tests.framework.host import Host
from tests.framework.puppet import Puppet
from tests.system.test_direct import Hostile

MIB = 1 << 20
PAGE = 4096
DEPTH = 32
BUFFERS = DEPTH * PAGE  # of a load, at the begin of a guest's memory
ROUNDS, ROUNDS_LONG = 1, 100
CONDITIONS = ("alive", "stopped", "killed")
WHERE = (("redirect", "alive"), ("direct", "stopped"), ("redirect", "killed"))  # the others with --long
CASES = [
    pytest.param(path, condition, marks=() if (path, condition) in WHERE else pytest.mark.long)
    for path in ("redirect", "direct")
    for condition in CONDITIONS
]


def loaded(host: Host, path: str, operation: str = "read") -> Puppet:
    """A guest whose disk `vda` reads into its memory, or is written, all the time."""
    guest = host.guest("store", memory="4MiB", disks=[{"name": "vda", "size": "1MiB", "path": path}])
    guest.call("disk:write", disk="vda", length=MIB, seed=1)
    host.until(lambda: host.path("store", "vda") == path)
    guest.begin("load:disk", disk="vda", depth=DEPTH, seconds=3600, operation=operation)
    host.await_progress("store", 200)
    return guest


@contextmanager
def condition_of(guest: Puppet, condition: str) -> Iterator[None]:
    if condition != "alive":
        os.kill(guest.pid, signal.SIGSTOP if condition == "stopped" else signal.SIGKILL)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(guest.pid, signal.SIGCONT)


def taken(host: Host, condition: str, **what: str) -> dict[str, Any] | None:
    """The receipt; None where the guest had ended, and all that it had with it."""
    try:
        receipt = host.take("store", **what)
    except HostError as error:
        assert condition == "killed" and error.code == "state", error
        host.wait_for_end("store")
        return None
    assert receipt["state"] == "freed" and receipt["how"] == "cooperative", receipt
    assert all(0 <= one["released"] <= receipt["seconds"] for one in receipt["holders"])
    return receipt


@pytest.mark.parametrize(("path", "condition"), CASES)
def test_after_the_receipt_of_an_endpoint_nothing_moves(host: Host, path: str, condition: str, long: bool) -> None:
    """Neither the guest's memory nor the disk changes, what the guest still asks for is not done, and name, number and
    port are free at once."""
    for number in range(ROUNDS_LONG if long else ROUNDS):
        operation = ("read", "write")[number % 2] if long else ("write" if condition == "stopped" else "read")
        guest = loaded(host, path, operation)
        before = host.view("store")["true"]["endpoints"][0]
        file = Path(before["file"])
        with memory_of(host, "store") as fd, condition_of(guest, condition):
            receipt = taken(host, condition, endpoint="vda")
            put(fd, 0, BUFFERS)
            data = file.open("r+b")
            put(data.fileno(), 0, MIB)
            if receipt is not None:
                assert receipt["generation"] == before["generation"] and receipt["endpoint"] == "vda"
                assert {one["name"] for one in receipt["holders"]} == {"monitor", "disk0", before["server"]}
                assert list(receipt["stages"]) == ["revoking", "drained", "revoked", "freed"]
                if condition == "stopped":
                    os.kill(guest.pid, signal.SIGCONT)
                if condition != "killed":
                    host.attach("store", disk={"name": "vda", "size": "1MiB", "file": "other.img"})
                    after = host.view("store")["true"]["endpoints"][0]
                    ids = ("name", "index", "port")
                    assert [after[name] for name in ids] == [before[name] for name in ids]
                    assert after["generation"] > before["generation"]
            other = host.guest("other", disks=[{"name": "vda", "size": "1MiB"}])
            other.call("disk:write", disk="vda", length=PAGE, seed=2)
            other.call("disk:read", disk="vda", length=PAGE, seed=2)
            assert stands(fd, 0, BUFFERS), "a byte of the guest's memory has changed after the receipt"
            assert stands(data.fileno(), 0, MIB), "a byte of the disk has changed after the receipt"
            data.close()
        host.remove_guests()
        file.unlink()
    assert host.failed_checks() == []


@pytest.mark.parametrize("condition", [pytest.param("alive", marks=pytest.mark.long), "stopped", "killed"])
def test_a_queue_pair_is_taken(host: Host, condition: str, long: bool) -> None:
    """The guest goes on over its channel server when it can, and loses nothing; it may have another pair at once."""
    for _ in range(ROUNDS_LONG if long else ROUNDS):
        guest = loaded(host, "direct")
        with condition_of(guest, condition):
            receipt = taken(host, condition, channel="vda")
            if receipt is not None:
                assert {one["name"] for one in receipt["holders"]} == {"monitor", "disk0"}
                assert list(receipt["stages"]) == ["revoking", "drained", "freed"]
        if condition != "killed":
            host.until(lambda: host.view("store")["enforced"]["endpoints"][0]["path"] == "redirect")
            host.await_progress("store", 500)
            assert host.path("store", "vda") == "redirect"
            assert host.set_path("store", "vda", "direct")["path"] == "direct"
            host.await_progress("store", 500)
            again = host.take("store", channel="vda")
            assert receipt is not None and again["generation"] > receipt["generation"]
            assert host.metrics().by("reason", "io_refused_total", partition="store") == {}
        host.remove("store")
    assert host.failed_checks() == []


def test_what_a_guest_still_puts_on_a_pair_that_was_taken_is_not_done(host: Host) -> None:
    """It keeps ring, bell and key; each request comes back unexecuted, also once the pair is open under another key."""
    guest = Hostile(host, "hostile")
    assert guest.submit(gpa=0, length=PAGE) is not None
    host.take("hostile", channel="vda")
    with memory_of(host, "hostile") as fd:
        put(fd, 0, PAGE)
        back = {(STATUSES["cancelled"], REASONS["path_changed"]), (STATUSES["refused"], REASONS["path_closed"])}
        read = {"operation": 1, "gpa": 0, "length": PAGE}
        assert guest.submit(**read) in back
        assert stands(fd, 0, PAGE)


def test_frames_of_an_endpoint_that_was_taken_go_nowhere(host: Host) -> None:
    """Neither out of it nor into it."""
    receiver = host.guest("receiver", nics=["eth0"])
    to = receiver.call("nic:open", nic="eth0", buffers=64)
    guest = host.guest("store", nics=[{"name": "eth0", "path": "direct"}])
    mine = guest.call("nic:open", nic="eth0", buffers=DEPTH)
    guest.begin("load:send", nic="eth0", to=to, seconds=3600)
    host.await_progress("store", 100)
    host.take("store", endpoint="eth0")
    arrived = host.metrics().value("network_receive_packets_total", partition="receiver")
    with memory_of(host, "store") as fd:
        put(fd, 0, 2 * MIB)
        assert receiver.call("nic:send", nic="eth0", to=mine, frames=[(64, 1)]) == {"no_destination": 1}
        assert stands(fd, 0, 2 * MIB)
    assert host.metrics().value("network_receive_packets_total", partition="receiver") == arrived


def test_calls_of_a_guest_whose_call_ring_was_taken_are_refused(host: Host) -> None:
    """Also by the next monitor; granted again they are answered, under another generation."""
    guest = host.guest("store", nics=["eth0"])
    assert guest.call("calls:connect", service="eth0") == ["ok", 0]
    receipt = host.take("store", channel="@calls")
    assert [one["name"] for one in receipt["holders"]] == ["monitor"] and receipt["state"] == "freed"
    assert guest.call("calls:connect", service="eth0") == ["refused", "call_denied"]
    os.kill(host.pids()["monitor"], signal.SIGKILL)
    host.until(lambda: [one for one in host.events() if one["kind"] == "monitor_restarted"])
    assert guest.call("calls:connect", service="eth0") == ["refused", "call_denied"]
    granted = host.client.post("/v1/partitions/store/grants", {"channel": "@calls"})
    assert granted["generation"] > receipt["generation"]
    assert guest.call("calls:connect", service="eth0") == ["ok", 0]


@pytest.mark.parametrize(
    ("path", "what"),
    [("redirect", "endpoint"), pytest.param("direct", "endpoint", marks=pytest.mark.long), ("direct", "channel")],
)
def test_a_device_that_stands_still_holds_it_in_quarantine(host: Host, path: str, what: str) -> None:
    """At the deadline the receipt says whose; it is freed when that device has let go, without anybody's asking."""
    loaded(host, path, "write")
    file, device = Path(host.view("store")["true"]["endpoints"][0]["file"]), host.pids()["disk0"]
    os.kill(device, signal.SIGSTOP)
    try:
        receipt = host.take("store", deadline=0.3, **{what: "vda"})
        assert receipt["state"] == "quarantine", receipt
        assert {one["name"]: one["released"] for one in receipt["holders"]}["disk0"] is None
        assert receipt["seconds"] >= 0.3
        (told,) = host.view("store")["receipts"]
        assert told["state"] == "quarantine"
    finally:
        os.kill(device, signal.SIGCONT)
    host.until(lambda: host.view("store")["receipts"][0]["state"] == "freed")
    (told,) = host.view("store")["receipts"]
    assert told["how"] == "cooperative"
    if what == "endpoint":
        with file.open("r+b") as data:
            put(data.fileno(), 0, MIB)
            host.attach("store", disk={"name": "vdb", "size": "1MiB"})
            assert stands(data.fileno(), 0, MIB)
    else:
        host.await_progress("store", 200)
    # It has not looked for changes, so it still maps rings of an endpoint that went; nobody else does.
    assert [one for one in host.failed_checks() if one["name"] != "memory map of store"] == []


def test_a_device_that_dies_meanwhile_frees_it_by_force(host: Host) -> None:
    """Its next process knows nothing of the endpoint, and serves the others."""
    loaded(host, "redirect")
    host.attach("store", disk={"name": "vdb", "size": "1MiB"})
    device = host.pids()["disk0"]
    os.kill(device, signal.SIGSTOP)
    assert host.take("store", endpoint="vdb", deadline=0.3)["state"] == "quarantine"
    os.kill(device, signal.SIGKILL)
    host.until(lambda: host.view("store")["receipts"][0]["state"] == "freed")
    (told,) = host.view("store")["receipts"]
    assert told["how"] == "forced"
    assert {one["name"] for one in told["holders"] if one["ended"]} == {"disk0"}
    assert host.attach("store", disk={"name": "vdb", "size": "1MiB"})["index"] == 1
    host.await_progress("store", 100)
    assert host.failed_checks() == []


def test_what_cannot_be_taken_says_why(host: Host) -> None:
    host.guest("store", disks=[{"name": "vda", "size": "1MiB"}])
    for name, what, code, text in (
        ("store", {"endpoint": "vdb"}, "not_found", "store has no endpoint vdb; known: vda"),
        ("store", {"channel": "vdb"}, "not_found", "store has no endpoint 'vdb'"),
        ("store", {"channel": "vda"}, "state", "vda is on redirect"),
        ("store", {"channel": "Vda"}, "invalid", "channel"),
        ("store", {}, "invalid", "one of memory, endpoint and channel"),
        ("store", {"endpoint": "vda", "channel": "vda"}, "invalid", "one of memory, endpoint and channel"),
        ("monitor", {"endpoint": "vda"}, "state", "no running guest"),
        ("nobody", {"channel": "@calls"}, "not_found", "nobody"),
    ):
        with pytest.raises(HostError, match=text) as refused:
            host.take(name, **what)
        assert refused.value.code == code and refused.value.message.count("store") <= 1, refused.value.message
    with pytest.raises(HostError, match="nothing of store is revoked"):
        host.client.post("/v1/partitions/store/grants", {"channel": "@calls"})
    records = host.client.get("/v1/explain", partition="store", replay=True)["decisions"]
    assert all(one["replay"]["same"] for one in records)


def test_a_key_that_comes_again_takes_nothing_again(host: Host) -> None:
    """The answer is what came of it; what was granted or attached since stays."""
    guest = host.guest("store", disks=[{"name": "vda", "size": "1MiB", "path": "direct"}], nics=["eth0"])
    guest.call("disk:write", disk="vda", length=PAGE, seed=1)
    host.until(lambda: host.path("store", "vda") == "direct")
    wanted: dict[str, dict[str, Any]] = {
        "m": {"memory": {"offset": MIB, "size": PAGE}}, "p": {"channel": "vda"}, "c": {"channel": "@calls"},
        "e": {"endpoint": "eth0"},
    }  # fmt: skip
    first = {key: host.take("store", key=key, **what) for key, what in wanted.items()}
    again = {key: host.take("store", key=key, **what) for key, what in wanted.items()}
    for key, receipt in first.items():
        assert again[key]["state"] == receipt["state"] == "freed"
        assert again[key]["decision"] == receipt["decision"]
    assert again["e"]["generation"] == first["e"]["generation"]
    host.grant("store", MIB)
    host.client.post("/v1/partitions/store/grants", {"channel": "@calls"})
    host.attach("store", nic={"name": "eth0"})
    for key in ("m", "c"):
        with pytest.raises(HostError, match="granted again since"):
            host.take("store", key=key, **wanted[key])
    assert host.take("store", key="e", **wanted["e"])["generation"] == first["e"]["generation"]
    assert {end["name"] for end in host.row("store")["endpoints"]} == {"vda", "eth0"}
    with memory_of(host, "store") as fd:
        put(fd, MIB, PAGE)
        assert stands(fd, MIB, PAGE)

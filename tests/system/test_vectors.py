"""Interrupt vectors: routes, masks, and the console's that are held while its world stands (W3, H6)."""

import json
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from hostd.errors import HostError
from tests.framework.host import MANIFEST, Host, running
from tests.system.test_load import DEVICES, assert_verified, await_rounds
from tools import cli

DISK = {"name": "vda", "size": "1MiB", "path": "direct"}
PATHS = ("copy", "redirect", "direct")
DEPTH = 32  # requests of the console at once: several publications of its device
SLOW = 0.1  # seconds that the device loses with each batch: its completions come while the world stands
STORM_REQUESTS = 16_000
STORM = STORM_REQUESTS // 256  # interrupts at least: a batch has 64 requests at a device, 256 at an I/O partition
EVENTS = ("raised", "delivered", "forwarded", "coalesced", "masked", "unrouted")


@pytest.fixture(scope="module")
def with_classes() -> Iterator[Host]:
    with running({**MANIFEST, "devices": DEVICES}) as host:
        yield host


@pytest.fixture
def loaded(with_classes: Host) -> Iterator[Host]:
    """A host with a kernel and all classes of devices; guests of the test are removed."""
    try:
        yield with_classes
    finally:
        with_classes.remove_guests()


def assert_balanced(row: dict[str, Any]) -> None:
    ended = row["delivered"] + row["coalesced"] + row["unrouted"] + row["pending"]
    assert row["raised"] == ended, row


def counts(row: dict[str, Any]) -> dict[str, int]:
    return {event: row[event] for event in EVENTS}


def test_interrupts_of_a_guest_reach_it_directly(loaded: Host) -> None:
    """H6: the device wakes the guest that owns the vector; nothing is forwarded, and the console hears nothing."""
    console = loaded.vectors("console")
    guest = loaded.guest("guest", disks=[DISK], nics=[{"name": "eth0", "path": "direct"}])
    for number in range(30):
        guest.call("disk:write", disk="vda", length=4096, seed=number)
    vectors = loaded.vectors("guest")
    assert set(vectors) == {("vda", 0), ("eth0", 0), ("eth0", 1), ("@hardware", 0)}
    disk = vectors["vda", 0]
    assert (disk["owner"], disk["forwarded_route"], disk["mask"], disk["pending"]) == ("guest", False, False, False)
    assert disk["raised"] >= 60 and disk["forwarded"] == disk["unrouted"] == 0  # a write and a flush each
    assert_balanced(disk)
    assert loaded.vectors("console") == console
    metrics = loaded.metrics()
    for event in EVENTS:
        shown = metrics.value("interrupts_total", partition="guest", endpoint="vda", queue="0", event=event)
        assert shown == disk[event], event


@pytest.mark.parametrize("path", ["copy", "redirect"])
def test_the_channel_server_counts_what_it_posts(loaded: Host, path: str) -> None:
    """On the other paths the I/O partition raises the same vector, for completions and for refusals."""
    guest = loaded.guest("guest", disks=[{**DISK, "path": path}], nics=[{"name": "eth0", "path": path}])
    guest.call("disk:write", disk="vda", length=4096, seed=1)
    before = loaded.vectors("guest")["vda", 0]
    for number in range(30):
        guest.call("disk:write", disk="vda", length=4096, seed=number)
    after = loaded.vectors("guest")["vda", 0]
    assert after["owner"] == "guest" and after["unrouted"] == after["forwarded"] == 0
    assert after["raised"] == before["raised"] + 60  # a write and a flush each, one at a time
    assert after["delivered"] > 0, "the guest sleeps between two completions now and then"
    assert_balanced(after)
    assert guest.call("disk:attempt", disk="vda", operation="read", offset=1 << 20, length=512)[0] == "refused"
    refused = loaded.vectors("guest")["vda", 0]
    assert refused["raised"] == after["raised"] + 1
    metrics = loaded.metrics()
    for event in EVENTS:
        shown = metrics.value("interrupts_total", partition="guest", endpoint="vda", queue="0", event=event)
        assert shown == refused[event], event


def test_changes_of_hardware_have_a_vector(loaded: Host) -> None:
    """Endpoints that come and go raise it; held, they are one interrupt with all their bits."""
    guest = loaded.guest("guest", nics=["eth0"])
    assert counts(loaded.vectors("guest")["@hardware", 0]) == dict.fromkeys(EVENTS, 0)
    loaded.attach("guest", nic={"name": "eth1"})
    guest.call("hardware:take_changes")
    loaded.detach("guest", "eth1")
    guest.call("hardware:take_changes")
    row = loaded.vectors("guest")["@hardware", 0]
    assert (row["raised"], row["delivered"], row["owner"], row["mask"]) == (2, 2, "guest", False)
    guest.call("hardware:sleep_until_interrupt", timeout=0.0)  # takes what is pending
    loaded.mask("guest", "@hardware", 0, True)
    sleeping = guest.begin("hardware:sleep_until_interrupt", timeout=0.2)
    for name in ("eth1", "eth2"):
        loaded.attach("guest", nic={"name": name})
    assert sleeping.result()["pending"] == 0, "an interrupt of a masked vector came through"
    held = loaded.vectors("guest")["@hardware", 0]
    assert (held["raised"], held["delivered"], held["masked"], held["coalesced"], held["pending"]) == (4, 2, 1, 1, True)
    loaded.mask("guest", "@hardware", 0, False)
    assert guest.call("hardware:sleep_until_interrupt", timeout=5.0)["pending"] == 1 << 2 | 1 << 4
    after = loaded.vectors("guest")["@hardware", 0]
    assert (after["delivered"], after["pending"]) == (3, False)
    assert_balanced(after)
    assert loaded.metrics().value("interrupts_total", partition="guest", endpoint="@hardware", event="delivered") == 3
    assert set(loaded.vectors("guest")) == {
        *((name, queue) for name in ("eth0", "eth1", "eth2") for queue in (0, 1)), ("@hardware", 0),
    }  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_an_endpoint_that_comes_later_has_its_interrupts(loaded: Host, path: str) -> None:
    guest = loaded.guest("guest", nics=["eth0"])
    for _ in range(2):
        loaded.attach("guest", disk={**DISK, "path": path})
        guest.call("hardware:take_changes")
        for number in range(10):
            guest.call("disk:write", disk="vda", length=4096, seed=number)
        row = loaded.vectors("guest")["vda", 0]
        assert row["raised"] >= 20 and row["unrouted"] == 0 and row["owner"] == "guest"
        assert_balanced(row)
        loaded.detach("guest", "vda")
        guest.call("hardware:take_changes")
        assert ("vda", 0) not in loaded.vectors("guest")


@pytest.mark.parametrize("path", PATHS)
def test_storm_on_a_masked_vector(loaded: Host, path: str) -> None:
    """Thousands of interrupts while masked are one that is pending; the end of the mask delivers that one. The guest
    polls meanwhile, so it needs none of them."""
    guest = loaded.guest("guest", disks=[{**DISK, "path": path}])
    guest.call("disk:write", disk="vda", length=4096, seed=1)
    loaded.until(lambda: loaded.path("guest", "vda") == path)
    loaded.mask("guest", "vda", 0, True)
    before = loaded.vectors("guest")["vda", 0]
    assert guest.call("disk:poll", disk="vda", requests=STORM_REQUESTS) == STORM_REQUESTS
    storm = loaded.vectors("guest")["vda", 0]
    assert storm["mask"] and storm["pending"]
    assert storm["raised"] >= before["raised"] + STORM
    assert storm["masked"] == before["masked"] + 1
    assert storm["delivered"] == before["delivered"], "an interrupt of a masked vector came through"
    loaded.mask("guest", "vda", 0, False)
    after = loaded.vectors("guest")["vda", 0]
    assert (after["mask"], after["pending"], after["delivered"]) == (False, False, storm["delivered"] + 1)
    assert_balanced(after)
    guest.call("disk:read", disk="vda", length=4096, seed=1)
    with pytest.raises(HostError) as unknown:
        loaded.mask("guest", "vda", 1, True)
    assert unknown.value.code == "not_found"


def test_the_console_gets_a_burst_once_its_world_runs(loaded: Host) -> None:
    """W3: interrupts of a host-managed device are held while the console's world stands, delivered once when it runs,
    and the request that they tell of is not lost."""
    vector = next(key for key, row in loaded.vectors("console").items() if row["device"] == "disk1")
    loaded.stream(True, depth=DEPTH)
    await_rounds(loaded)
    loaded.delay("disk1", "device", SLOW)
    try:
        for _ in range(20):  # the device may happen to have nothing of the console when its world is stopped
            loaded.hold("console", True)
            before = loaded.vectors("console")[vector]
            held = settled(loaded, vector)
            if held["pending"]:
                break
            loaded.hold("console", False)
            await_rounds(loaded, 1)
        assert held["pending"] and held["forwarded_route"], held
        assert held["masked"] == before["masked"] + (0 if before["pending"] else 1)
        assert held["delivered"] == before["delivered"], "the console was woken while its world stood"
    finally:
        loaded.delay("disk1", "device", 0)
        loaded.hold("console", False)
    await_rounds(loaded)
    after = loaded.vectors("console")[vector]
    assert after["delivered"] > held["delivered"] and after["forwarded"] > held["forwarded"]
    assert_verified(loaded.stream(False))
    assert_balanced(settled(loaded, vector))


def settled(host: Host, vector: tuple[str, int]) -> dict[str, Any]:
    """The row of a vector of the console once nothing of it changes over several batches of its slow device."""
    row, same = host.vectors("console")[vector], 0

    def quiet() -> bool:
        nonlocal row, same
        now = host.vectors("console")[vector]
        same, row = (same + 1, row) if counts(now) == counts(row) else (0, now)
        return same > 60  # looks, 5 ms apart at least

    host.until(quiet)
    return row


def test_only_the_console_is_held_by_hand(loaded: Host) -> None:
    with pytest.raises(HostError, match="only the console"):
        loaded.hold("io-a", True)


def test_the_verbs_of_the_console(loaded: Host, capfd: pytest.CaptureFixture[str]) -> None:
    """What `hostctl console`, `hold`, `release` and `view --resources` do and say, as documents and as text."""

    def hostctl(verb: str, *words: str) -> str:
        assert cli.run([verb, "--runtime-dir", str(loaded.paths.runtime), *words]) == 0
        return capfd.readouterr().out

    assert json.loads(hostctl("console", "--stream", "on", "--depth", "2", "--json"))["stream"]["streaming"]
    await_rounds(loaded)
    pid = loaded.row("console")["pid"]
    assert json.loads(hostctl("hold", "console", "--json")) == {"partition": "console", "held": True}
    loaded.until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    assert hostctl("release", "console") == "console runs\n"
    assert psutil.Process(pid).status() != psutil.STATUS_STOPPED
    await_rounds(loaded)
    assert "stream off: " in hostctl("console", "--stream", "off")
    shown = hostctl("console")
    assert "disk3" in shown and "translation entries that it writes itself: none" in shown
    loaded.guest("guest", disks=[DISK], devices=["nic0"])
    document = json.loads(hostctl("view", "--resources", "--json"))
    assert {"partition": "guest", "device": "nic0", "bus": None} in document["assignments"]
    found = [(row["partition"], row["name"], row["device"]) for row in document["endpoints"]]
    assert ("guest", "vda", "disk0") in found and ("console", "disk3", "disk1") in found
    assert hostctl("mask", "guest", "vda") == "guest vda.0 is masked\n"
    assert loaded.vectors("guest")["vda", 0]["mask"] and "masked" in hostctl("view", "guest", "--vectors")
    assert json.loads(hostctl("mask", "guest", "@hardware", "--off", "--json"))["masked"] is False
    hostctl("mask", "guest", "vda", "--off")
    assert not loaded.vectors("guest")["vda", 0]["mask"]
    text = hostctl("view", "--resources").splitlines()
    for line in ("PARTITIONS", "MEMORY", "DEVICES", "ASSIGNMENTS", "ENDPOINTS", "CHANNELS", "SEGMENTS"):
        assert line in text
    assert text[0].startswith("machine    ") and any(line.split()[:2] == ["guest", "nic0"] for line in text)


def test_a_held_console_does_not_stop_the_unload(loaded: Host) -> None:
    loaded.stream(True)
    await_rounds(loaded)
    loaded.hold("console", True)
    assert loaded.unload()["same"]
    await_rounds(loaded)
    assert loaded.console()["writes_entries_of"] == ["disk1", "nic1"]
    loaded.load()
    assert_verified(loaded.stream(False))
    assert loaded.failed_checks() == []



"""The console boots alone and drives its devices; the kernel is loaded and unloaded under it (W1, W2, W10)."""

from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from hostd.errors import HostError
from hostd.wire import Wire, close_fds
from tests.framework import monitors
from tests.framework.footprint import Footprint
from tests.framework.host import MANIFEST, Host, running

OWN = ("nic1", "disk1")
DEVICES = [
    *MANIFEST["devices"],
    {"name": "nic1", "kind": "nic", "class": "host-managed"},
    {"name": "disk1", "kind": "disk", "class": "host-managed"},
    {"name": "disk2", "kind": "disk", "class": "reserved"},
]
BOOTED = {"hostd", "keeper", "ultravisor", "operations", "command", "console", *(row["name"] for row in DEVICES)}
DISK = {"name": "vda", "size": "1MiB"}
WARM_UP, WARM_UP_LONG = 2, 150  # until the event log and the page caches of the databases have their size
CYCLES, CYCLES_LONG = 5, 100
ROUNDS = 20  # of the stream, between two looks
GAP_MAX = 2.0  # seconds: far more than a load takes; a stream that stopped and came back would show here
GROWTH_MAX = 1 << 20  # bytes, of each process, over all cycles


@pytest.fixture
def booted() -> Iterator[Host]:
    """A host of the test's own, with all three classes of devices and no kernel."""
    with running({**MANIFEST, "devices": DEVICES}, load=False) as host:
        yield host


def await_rounds(host: Host, count: int = ROUNDS) -> None:
    """Until the console's stream has made so many more rounds."""
    wanted = host.console()["stream"]["rounds"] + count
    host.until(lambda: host.console()["stream"]["rounds"] >= wanted)


def assert_verified(figures: dict[str, Any]) -> None:
    assert (figures["errors"], figures["last_error"]) == (0, "")
    assert figures["rounds"] > 0 and figures["disk_bytes"] > 0 and figures["frames"] > 0


def test_the_console_works_alone(booted: Host) -> None:
    """No monitor and no I/O partition; a disk and a NIC work, the bytes lie in the file, and nothing else is served."""
    assert set(booted.rows()) == BOOTED
    assert booted.status()["host"]["kernel"] == "not loaded"
    booted.stream(True)
    await_rounds(booted)
    figures = booted.stream(False)
    assert_verified(figures)
    file = booted.paths.disks / "console-disk1.img"
    assert any(file.read_bytes()), "nothing of the stream reached the medium"
    assert booted.console()["writes_entries_of"] == sorted(OWN)
    assert booted.failed_checks() == []
    with pytest.raises(HostError, match="no kernel is loaded") as refused:
        booted.spawn("guest", ["puppet:main"])
    assert refused.value.code == "state"
    with pytest.raises(HostError, match="no kernel is loaded"):
        booted.unload()


def test_console_io_goes_on_through_load_and_unload(booted: Host) -> None:
    """The stream of the console runs from before the load to after the unload, over the same queue pairs; the console
    is one world among others meanwhile; its process and those of the devices are never replaced."""
    pids = booted.pids()
    booted.stream(True)
    await_rounds(booted)
    booted.load()
    assert booted.status()["host"]["kernel"] == "loaded"
    worlds = {world["type"]: world["pid"] for world in booted.status()["host"]["worlds"]}
    assert worlds["console"] == pids["console"]
    assert booted.console()["writes_entries_of"] == [], "the entries are the monitor's now"
    await_rounds(booted)
    guest = booted.guest("guest", disks=[DISK], nics=["eth0"])
    guest.call("disk:write", disk="vda", length=8192, seed=1)
    await_rounds(booted)
    assert booted.failed_checks() == []
    booted.forget("guest")
    assert booted.unload()["same"]
    await_rounds(booted)
    figures = booted.stream(False)
    assert_verified(figures)
    assert figures["longest_gap"] < GAP_MAX
    assert booted.pids() == pids
    assert booted.failed_checks() == []


def test_cycles_leave_nothing(booted: Host, long: bool) -> None:
    """W10: the map of resources is the same after each unload, and so are descriptors, threads and mappings."""
    booted.stream(True)

    def cycle(number: int) -> None:
        booted.load()
        if number % 2:
            booted.guest("guest", disks=[DISK], nics=["eth0"]).call("disk:write", disk="vda", length=4096, seed=number)
            booted.forget("guest")
        answer = booted.unload()
        assert answer["same"], answer["after"]

    first = booted.resources()
    for number in range(WARM_UP_LONG if long else WARM_UP):
        cycle(number)
        Footprint.of(booted)  # it scrapes, which takes memory the first times
    before = Footprint.of(booted)
    for number in range(CYCLES_LONG if long else CYCLES):
        cycle(number)
    assert booted.resources() == first
    booted.until(lambda: Footprint.of(booted).lasting() == before.lasting(), explain=lambda: difference(booted, before))
    growth = Footprint.of(booted).growth(before)
    assert {name: size for name, size in growth.items() if size > GROWTH_MAX} == {}
    assert_verified(booted.stream(False))
    assert booted.failed_checks() == []


def test_what_is_left_over_is_noticed(booted: Host) -> None:
    """The comparison of resources can fail: one segment more at the keeper, as a load would leave it behind."""
    booted.load()
    with Wire.connect(booted.paths.keeper_socket) as wire:
        forgotten = {"kind": "bell", "size": 4096, "label": "hostd:forgotten"}
        _, descriptors = wire.request({"op": "segment.create_many", "segments": [forgotten]})
        close_fds(descriptors)
    answer = booted.unload()
    assert not answer["same"]
    assert forgotten["label"] in {row["label"] for row in answer["after"]["host_segments"]}


def test_a_kernel_that_died_is_unloaded(booted: Host) -> None:
    """The monitor is killed until it is given up: the console goes on, the rest goes, another kernel is loaded."""
    booted.load()
    monitors.exhaust(booted)
    assert booted.unload()["same"], "a kernel whose monitor has died can be unloaded"
    booted.stream(True)
    await_rounds(booted)
    booted.load()
    await_rounds(booted)
    assert_verified(booted.stream(False))
    assert booted.failed_checks() == []


def test_classes_of_devices(booted: Host) -> None:
    """W2: a guest at a host-managed device and the console at a reserved one are refused with the reason, on record and
    counted; everything else is allowed."""

    def refused(**labels: str) -> float:
        return booted.metrics().value("device_refused_total", **labels)

    guests_refused = {"type": "guest", "device": "disk1", "class": "host-managed"}
    console_refused = {"type": "console", "device": "disk2", "class": "reserved"}
    with pytest.raises(HostError, match="no kernel is loaded"):
        booted.touch("disk2")
    booted.load()
    assert refused(**guests_refused) == refused(**console_refused) == 0
    for number in range(1, 4):
        with pytest.raises(HostError, match="disk1 is host-managed") as guest:
            booted.spawn("guest", ["puppet:main"], disks=[{**DISK, "device": "disk1"}])
        assert (guest.value.code, guest.value.details["rule"]) == ("not_placed", "device_class")
        with pytest.raises(HostError, match="disk2 is reserved for guests") as console:
            booted.touch("disk2")
        assert (console.value.code, console.value.details["rule"]) == ("denied", "device_class")
        assert (refused(**guests_refused), refused(**console_refused)) == (number, number)
    records = booted.client.get("/v1/explain", partition="console")["decisions"]
    assert records[-1]["answer"]["reason"] == "device disk2 is reserved for guests: the console must not touch it"
    for device in ("disk1", "disk0"):
        assert booted.touch(device)["device"] == device
    guest = booted.guest("guest", disks=[{**DISK, "device": "disk2"}])
    guest.call("disk:write", disk="vda", length=4096, seed=1)
    assert (refused(**guests_refused), refused(**console_refused)) == (3, 3)
    booted.forget("guest")
    assert booted.unload()["same"]


def test_up_is_boot_and_load(host: Host) -> None:
    assert host.status()["host"]["kernel"] == "loaded"
    assert host.console()["endpoints"] == []
    with pytest.raises(HostError, match="loaded already"):
        host.load()


def test_unload_stops_what_ignores_it(booted: Host) -> None:
    """A guest that ignores SIGTERM is killed after its time."""
    booted.load()
    pid = booted.spawn("deaf", ["ends:deaf"])["pid"]
    booted.until(lambda: "deaf" in booted.log("deaf"))  # it has said so
    assert booted.unload(timeout=0.2)["same"]
    assert not psutil.pid_exists(pid)


def difference(host: Host, before: Footprint) -> dict[str, tuple[object, object]]:
    old, new = before.lasting(), Footprint.of(host).lasting()
    return {name: (old[name], new[name]) for name in old if old[name] != new[name]}

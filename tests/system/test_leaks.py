"""Nothing is left of guests that come and go (rules.md test 24): descriptors, threads, shared memory, rows, series."""

import pytest

from hostd.errors import HostError
from tests.framework.footprint import Footprint
from tests.framework.host import Host

WARM_UP, WARM_UP_LONG = 6, 600  # until caches and the event log have their size
CYCLES, CYCLES_LONG = 18, 1000
GROWTH_MAX = 1 << 20  # bytes, of each process
DISK = {"name": "vda", "size": "1MiB", "file": "leak.img"}


def cycle(host: Host, number: int) -> None:
    """One life, with data on the disk and frames in the air, and one of the ways to end it."""
    guest = host.guest("guest", disks=[DISK], nics=["eth0", "eth1"])
    guest.call("nic:open", nic="eth0")
    guest.call("disk:write", disk="vda", length=8192, seed=number)
    match number % 6:
        case 0:
            host.kill("guest")
        case 1:
            host.stop_guest("guest")
        case 2:
            host.forget("guest")  # it ends by itself
            host.wait_for_end("guest")
        case 3:
            guest.begin("work:verified", seed=number)
            host.kill("guest")
        case 4:
            guest.begin("load:disk", disk="vda", depth=64, seconds=60)
            host.stop_guest("guest", timeout=0)
        case _:
            pass  # removed while it runs
    host.remove("guest")


def grown(host: Host, cycles: int) -> dict[str, int]:
    """Processes that have grown by more than GROWTH_MAX bytes in so many cycles, and nothing else is there more."""
    before = Footprint.of(host)
    for number in range(cycles):
        cycle(host, number)
    # The last connections to the API are closed a moment after their answers.
    host.until(lambda: Footprint.of(host).lasting() == before.lasting(), explain=lambda: difference(host, before))
    growth = Footprint.of(host).growth(before)
    return {name: size for name, size in growth.items() if size > GROWTH_MAX}


def test_guests_come_and_go(host: Host, long: bool) -> None:
    for number in range(WARM_UP_LONG if long else WARM_UP):
        cycle(host, number)
    first = grown(host, CYCLES_LONG if long else CYCLES)
    if first:  # once: an arena of the allocator, for one; what leaks grows each time
        assert not set(first) & set(grown(host, CYCLES_LONG if long else CYCLES)), first
    assert host.failed_checks() == []


def test_refused_spawns(host: Host, long: bool) -> None:
    """Half-made partitions are undone whole: a program that is not there, a folder, a policy, an end before the
    first line."""
    wrong = [
        {"program": ["nothing:main"]},
        {"program": ["/no/such/program"]},
        {"program": ["ends:nothing"]},
        {"program": ["puppet:main"], "directory": "/no/such/folder"},
        {"program": ["puppet:main"], "memory": "128MiB"},
    ]

    def refuse() -> None:
        for spec in wrong:
            with pytest.raises(HostError):
                host.spawn("wrong", disks=[DISK], nics=[{"name": "eth0"}], **spec)

    refuse()
    before = Footprint.of(host)
    for _ in range(CYCLES_LONG // 5 if long else 3):
        refuse()
    host.until(lambda: Footprint.of(host).lasting() == before.lasting(), explain=lambda: difference(host, before))
    assert host.rows().keys() & {"wrong"} == set()
    assert host.failed_checks() == []


def difference(host: Host, before: Footprint) -> dict[str, tuple[object, object]]:
    old, new = before.lasting(), Footprint.of(host).lasting()
    return {name: (old[name], new[name]) for name in old if old[name] != new[name]}

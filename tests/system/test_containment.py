"""Containment by translation: first touches of partition memory are inspected; what a guest does to its own mappings is
noticed and gains nothing (H2, H8)."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path
from typing import Any

import pytest

from hostd.errors import HostError
from hostd.syscalls import numbers
from hostd.wire import RemoteError
from pyx.abi import MEMORY_FIRST
from tests.framework.host import Host
from tests.framework.metrics import Metrics
from tests.framework.puppet import Puppet

PAGE, MIB = 4096, 1 << 20
NAME = "trapped"
WITHHELD = {"offset": MIB, "size": 8 * PAGE}
DISK = {"name": "vda", "size": "1MiB"}
FAULTS = "memory_faults_total"


@pytest.fixture
def guest(host: Host) -> Puppet:
    return host.guest(NAME, trap_memory=True, withheld=[WITHHELD], disks=[DISK], nics=["eth0", "eth1"])


def faults(host: Host, before: Metrics) -> dict[str, float]:
    """Touches of the guest since `before`, by outcome; those of nobody else."""
    changes = host.metrics().changes(before, FAULTS)
    assert all(("partition", NAME) in key for key in changes)
    return {dict(key)["outcome"]: value for key, value in changes.items()}


@pytest.mark.parametrize("write", [False, True])
def test_one_trap_for_each_page_and_none_after(host: Host, guest: Puppet, write: bool) -> None:
    before = host.metrics()
    seconds = guest.call("containment:touch", first=0, pages=200, write=write)
    assert faults(host, before) == {"accepted": 200}
    print(f"first touch of a page: {seconds / 200 * 1e6:.1f} us")
    middle = host.metrics()
    for _ in range(5):
        guest.call("containment:touch", first=0, pages=200, write=not write)
    assert faults(host, middle) == {}


def test_memory_that_does_not_trap_costs_nothing(host: Host) -> None:
    plain, before = host.guest("plain"), host.metrics()
    plain.call("containment:touch", first=0, pages=200)
    assert host.metrics().changes(before, FAULTS) == {}


def test_a_refused_touch_ends_that_guest_alone(host: Host, bystander: Puppet, guest: Puppet) -> None:
    before = host.metrics()
    guest.call("containment:touch", first=255, pages=1)
    guest.call("containment:touch", first=264, pages=1)
    with pytest.raises(EOFError):
        guest.call("containment:touch", first=256, pages=1)
    row = host.wait_for_end(NAME)
    assert (row["state"], row["exit_status"]) == ("failed", {"signalled": signal.SIGBUS})
    assert faults(host, before) == {"accepted": 2, "refused": 1}
    (event,) = [event for event in host.events() if event["kind"] == "refused_touch"]
    assert (event["partition"], event["gpa"]) == (NAME, MIB)


def test_what_devices_put_there_is_there(host: Host, guest: Puppet) -> None:
    """A page is not made at its first touch: it only becomes visible."""
    guest.call("containment:write", gpa=0, text="by the disk " * 400)
    guest.call("containment:transfer", gpa=0, length=2 * PAGE, write=True)
    before = host.metrics()
    guest.call("containment:transfer", gpa=100 * PAGE, length=2 * PAGE, write=False)
    assert faults(host, before) == {}, "a device has a mapping of its own"
    assert guest.call("containment:read", gpa=100 * PAGE, length=4800) == "by the disk " * 400
    assert faults(host, before) == {"accepted": 2}


def test_touches_by_system_calls_trap_too(host: Host, guest: Puppet) -> None:
    before = host.metrics()
    assert guest.call("containment:system_call", gpa=300 * PAGE, text="by the kernel") == "by the kernel"
    assert faults(host, before) == {"accepted": 1}


def test_system_calls_do_not_get_around_a_refusal(host: Host, guest: Puppet) -> None:
    """The kernel neither writes nor reads there for the guest."""
    before = host.metrics()
    for how in ("system_call", "written_out"):
        with pytest.raises(RemoteError, match="Bad address"):
            guest.call(f"containment:{how}", gpa=MIB, text="never")
    assert faults(host, before) == {"refused": 1}, "a page that was refused stays refused, without a trap"


def test_children_have_traps_of_their_own(host: Host, guest: Puppet) -> None:
    """Each process has its own mapping, each is inspected; a refused child dies alone."""
    guest.call("containment:touch", first=0, pages=10)
    before = host.metrics()
    assert guest.call("containment:touch_in_child", first=0, pages=10) == "exited 0"
    assert faults(host, before) == {"accepted": 10}
    assert guest.call("containment:touch_in_child", first=256, pages=1) == "SIGBUS"
    assert faults(host, before) == {"accepted": 10, "refused": 1}
    assert host.metrics().changes(before, "memory_changes_total") == {
        frozenset({"partition": NAME, "change": "children"}.items()): 2
    }
    assert guest.call("containment:touch", first=0, pages=1) >= 0


def test_many_children_leave_nothing_with_the_monitor(host: Host, guest: Puppet) -> None:
    """Of processes that have ended the monitor lets go as it hears of the next."""
    descriptors = Path(f"/proc/{host.pids()['monitor']}/fd")
    for _ in range(5):
        guest.call("containment:touch_in_child", first=0, pages=1)
    before = len(list(descriptors.iterdir()))
    for _ in range(50):
        guest.call("containment:touch_in_child", first=0, pages=1)
    assert len(list(descriptors.iterdir())) <= before + 1


def test_no_touch_passes_without_a_look(host: Host, guest: Puppet) -> None:
    monitor = host.pids()["monitor"]
    os.kill(monitor, signal.SIGSTOP)
    try:
        host.until(lambda: _stopped(monitor))
        call = guest.begin("containment:touch", first=10, pages=1)
        assert select.select([guest.wire], [], [], 0.3)[0] == [], "it went on without an answer"
    finally:
        os.kill(monitor, signal.SIGCONT)
    assert call.result() > 0.2


def test_a_whole_life_with_trapped_memory(host: Host, guest: Puppet) -> None:
    """Disk and NIC at work in trapped memory, on every path."""
    for path in ("redirect", "direct", "copy"):
        work = guest.begin("work:verified", seed=5, pause=0.002)
        if host.path(NAME, "vda") != path:
            host.set_path(NAME, "vda", path)
        host.await_progress(NAME)
        assert work.finish()["rounds"] > 0


def _stopped(pid: int) -> bool:
    """Every thread: a signal reaches those that run a moment later."""
    states = [path.read_text().rpartition(")")[2].split()[0] for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return set(states) == {"T"}


# ---- what is withheld binds the monitor and the devices as well ----


@pytest.mark.parametrize("path", ["copy", "redirect", "direct"])
def test_withheld_memory_is_not_translated(host: Host, bystander: Puppet, path: str) -> None:
    """No device moves data there on the guest's behalf, on no path; the refusal has a reason of its own (U5)."""
    first, end = WITHHELD["offset"], WITHHELD["offset"] + WITHHELD["size"]
    disks = [{**DISK, "path": path}]
    guest = host.guest(NAME, memory=2 * MIB, trap_memory=True, withheld=[WITHHELD], disks=disks)
    pages = guest.call("containment:handed_out")
    assert {first // PAGE - 1, end // PAGE} <= set(pages) and not set(range(first // PAGE, end // PAGE)) & set(pages)
    guest.call("disk:write", disk="vda", length=PAGE, seed=1)
    host.until(lambda: host.path(NAME, "vda") == path)
    before = host.metrics()
    refused = [["refused", "address_withheld"]] * 2
    inside, around = (first + PAGE, PAGE), (first - PAGE, 2 * PAGE)
    for gpa, length in (inside, around, (end - PAGE, 2 * PAGE)):
        assert guest.call("containment:try_transfer", disk="vda", gpa=gpa, length=length) == refused, (gpa, length)
    changes = host.metrics().changes(before, "io_refused_total")
    assert sum(changes.values()) == 6
    assert all(dict(key)["partition"] == NAME and dict(key)["reason"] == "address_withheld" for key in changes)
    for beside in (first - PAGE, end):
        assert guest.call("containment:try_transfer", disk="vda", gpa=beside, length=PAGE) == [[], []]
    guest.call("disk:read", disk="vda", length=PAGE, seed=1)
    view = host.view(NAME)["true"]
    assert view["withheld"] == [{"gpa": first, "size": WITHHELD["size"]}]
    assert host.failed_checks() == []


# ---- what a guest does to its own mappings ----

OWN = MEMORY_FIRST
FAR = 0x10_0000_0000
ATTEMPTS: list[tuple[str, list[Any]]] = [
    ("munmap", [OWN, PAGE]), ("munmap", [OWN, 2 * MIB]), ("munmap", [OWN - PAGE, 2 * PAGE]),
    ("mprotect", [OWN, PAGE, 0]), ("mprotect", [OWN, PAGE, 7]), ("pkey_mprotect", [OWN, PAGE, 0, -1]),
    ("mremap", [OWN, 2 * MIB, 4 * MIB, 1]), ("mremap", [OWN, 0, PAGE, 1]), ("mremap", [OWN, PAGE, PAGE, 3, FAR]),
    ("mremap", [OWN, PAGE, PAGE, 5]), ("madvise", [OWN, PAGE, 4]), ("madvise", [OWN, PAGE, 8]),
    ("madvise", [OWN, PAGE, 9]), ("madvise", [OWN, PAGE, 10]), ("madvise", [OWN, PAGE, 11]),
    ("madvise", [OWN, PAGE, 21]), ("mmap", [OWN, PAGE, 3, 0x32, -1, 0]),
    ("mmap", [OWN - PAGE, 2 * PAGE, 3, 0x32, -1, 0]),
    ("remap_file_pages", [OWN, PAGE, 0, 0, 0]), ("munmap", [0, 1 << 46]), ("process_madvise", [0, 0, 0, 4, 0]),
]  # fmt: skip


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: f"{attempt[0]}-{attempt[1]}")
def test_own_mappings_stay_as_they_are(host: Host, attempt: tuple[str, list[Any]]) -> None:
    """Refused with a reason, counted, told; the memory is where it was and holds what it held."""
    call, arguments = attempt
    guest = host.guest(NAME)
    assert guest.call("containment:address") == OWN
    guest.call("containment:write", gpa=0, text="held")
    before = host.metrics()
    assert guest.call("probes:call", number=numbers()[call], arguments=arguments) == "EPERM"
    assert host.metrics().changes(before, "refused_system_calls_total") == {
        frozenset({"partition": NAME, "call": call}.items()): 1
    }
    told = [event for event in host.events() if event["kind"] == "refused_call" and event["partition"] == NAME]
    assert told[-1]["call"] == call and told[-1]["reason"] in ("own_memory", "other_processes")
    assert guest.call("containment:read", gpa=0, length=4) == "held"
    assert host.failed_checks() == []


def test_other_mappings_are_the_guests_own(host: Host) -> None:
    guest = host.guest(NAME)
    address = guest.call("probes:call", number=numbers()["mmap"], arguments=[0, PAGE, 3, 0x22, -1, 0])
    assert address > 0
    for call, last in (("mprotect", [1]), ("madvise", [4]), ("munmap", [])):
        arguments = [address, PAGE, *last]
        assert guest.call("probes:call", number=numbers()[call], arguments=arguments) == 0


@pytest.mark.parametrize(("spec", "part"), [
    ({"withheld": [WITHHELD]}, "trap_memory: true"),
    ({"trap_memory": True, "withheld": [{"offset": 2 * MIB, "size": PAGE}]}, "beyond the memory"),
    ({"trap_memory": True, "withheld": [{"offset": 1, "size": PAGE}]}, "multiple"),
    ({"trap_memory": True, "program": ["/bin/true"]}, "Python guests"),
])
def test_what_cannot_be_withheld_is_said(host: Host, spec: dict[str, Any], part: str) -> None:
    body = {"program": ["puppet:main"], **spec}
    with pytest.raises(HostError) as refused:
        host.spawn("guest", body.pop("program"), **body)
    assert refused.value.code == "invalid" and part in str((refused.value.message, refused.value.details))

"""Hardware views through real processes: what a guest finds, what traps, what is counted (H1 to H3, H5)."""

from __future__ import annotations

import errno
import signal
from pathlib import Path
from typing import Any

import pytest

from pyx.abi import CONFIG_ADDRESS, HIDDEN_PAGES_MAX, PAGE
from tests.framework.host import Host

DISKS = [{"name": "vda", "size": "1MiB"}]


def faults(host: Host, name: str, outcome: str) -> float:
    return host.metrics().value("configuration_faults_total", partition=name, outcome=outcome)


def granted(host: Host, name: str) -> set[tuple[str, str]]:
    return {(end["kind"], end["name"]) for end in host.view(name)["true"]["endpoints"]}


def names(found: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(function["kind"], function["name"]) for function in found}


def test_enumeration_is_the_granted_set(host: Host) -> None:
    guest = host.guest("store", disks=DISKS, nics=["eth0", "eth1"])
    answer = guest.call("hardware:enumerate_all")
    assert names(answer["found"]) == granted(host, "store") == names(answer["table"]["functions"])
    assert {tuple(one["address"]) for one in answer["found"]} == {
        tuple(one["address"]) for one in answer["table"]["functions"]
    }


def test_each_page_traps_once(host: Host) -> None:
    """One trap per page, none after: the second walk changes no counter (H2)."""
    guest = host.guest("store", disks=DISKS, nics=["eth0"])
    first = guest.call("hardware:enumerate_all")
    counts = {outcome: faults(host, "store", outcome) for outcome in ("true", "changed", "hidden", "refused")}
    assert guest.call("hardware:enumerate_all")["found"] == first["found"]
    assert counts == {outcome: faults(host, "store", outcome) for outcome in counts}
    # Both devices lie on bus 0: every function of it was looked at, and the two pages of the table.
    assert counts == {"true": 0, "changed": len(first["found"]) + 2, "hidden": 256 - len(first["found"]), "refused": 0}


def test_absent_functions_read_all_ones(host: Host) -> None:
    guest = host.guest("store", disks=DISKS)
    present = {tuple(one["address"]) for one in guest.call("hardware:enumerate_all")["found"]}
    for address in ((0, 0, 0), (0, 31, 7), (17, 3, 1), (255, 31, 7)):
        if address not in present:
            assert guest.call("hardware:read", address=address) == "ff" * 4096


def test_probing_everything_finds_nothing_else(host: Host) -> None:
    """All 256 x 32 x 8 functions: the granted ones only, each hidden probe counted, within the budget of pages (H1)."""
    guest = host.guest("store", disks=DISKS, nics=["eth0"])
    found = guest.call("hardware:probe")
    assert names(found) == granted(host, "store")
    hidden = 256 * 32 * 8 - len(found)
    assert faults(host, "store", "hidden") == hidden
    taken = host.metrics().value("configuration_pages_taken_back_total", partition="store", reason="reclaimed")
    assert taken == hidden - HIDDEN_PAGES_MAX
    assert host.hardware("store")["believed"]["pages"]["hidden"] == HIDDEN_PAGES_MAX
    assert resident(guest.pid) <= (HIDDEN_PAGES_MAX + len(found) + 2) * PAGE


def resident(pid: int) -> int:
    """Bytes of the configuration region that the kernel holds for a process."""
    lines = iter(Path(f"/proc/{pid}/smaps").read_text().splitlines())
    for line in lines:
        if line.startswith(f"{CONFIG_ADDRESS:x}-"):
            return next(int(line.split()[1]) for line in lines if line.startswith("Rss:")) * 1024
    raise AssertionError("no configuration region")


def test_a_shared_device_is_two_functions(host: Host) -> None:
    """Each guest finds its own share of the device, not the other's (H3, H5)."""
    one, two = (host.guest(name, nics=["eth0"]) for name in ("one", "two"))
    (first,), (second,) = (guest.call("hardware:enumerate_all")["found"] for guest in (one, two))
    assert first["generation"] != second["generation"]
    assert first["mac"] != second["mac"]
    assert first["mac"] == host.view("one")["true"]["endpoints"][0]["mac"]
    devices = {device["device"]: device for device in host.hardware("one")["true"]}
    assert {end["partition"] for end in devices["nic0"]["endpoints"]} == {"one", "two"}
    assert "two" not in str(host.hardware("one")["believed"])


def test_changes_of_the_own_region_gain_nothing(host: Host) -> None:
    """The filter refuses each kind, and counts it by call; the page is what it was (H8). What the monitor does where
    one gets through is in tests/unit/test_hardware_faults.py."""
    guest = host.guest("store", nics=["eth0"])
    page = guest.call("hardware:read", address=[0, 5, 0])
    calls = {"move": "mremap", "unmap": "munmap", "protect": "mprotect", "drop": "madvise", "punch": "madvise",
             "fork": "madvise"}  # fmt: skip
    for how in calls:
        assert guest.call("hardware:change_region", how=how, page=40) == {"done": False, "errno": errno.EPERM}, how
    for call in set(calls.values()):
        refused = host.metrics().value("refused_system_calls_total", partition="store", call=call)
        assert refused == list(calls.values()).count(call), call
    assert guest.call("hardware:read", address=[0, 5, 0]) == page == "ff" * 4096
    assert host.metrics().value("region_changes_total", partition="store", change="remapped") == 0


def test_threads_that_touch_the_same_pages(host: Host) -> None:
    guest = host.guest("store", nics=["eth0"])
    assert guest.call("hardware:touch_by_thread", pages=256, threads=4) == [1] * 4
    assert faults(host, "store", "hidden") == 255


def test_system_calls_see_the_same(host: Host) -> None:
    """With the right to it faults of system calls trap too; otherwise they fail, and give no data."""
    guest = host.guest("store", nics=["eth0"])
    kernel = host.hardware("store")["region"]["kernel"]
    assert guest.call("hardware:pass_to_kernel", address=[3, 3, 3]) == ("ff" * 64 if kernel else "EFAULT")


def test_processors_and_surroundings(host: Host) -> None:
    """The processor count is the affinity; file systems and interfaces tell nothing of the host (H1)."""
    guest = host.guest("store", nics=["eth0"])
    found = guest.call("hardware:processors")
    assert found["affinity"] == host.status()["host"]["processors"]["guests"]
    wanted = len(found["affinity"])
    assert {key: found[key] for key in ("cpu_count", "multiprocessing", "online", "table")} == dict.fromkeys(
        ("cpu_count", "multiprocessing", "online", "table"), wanted
    )
    around = guest.call("hardware:surroundings")
    assert around["sys"] == []
    assert set(around["processes"]) == {1}
    assert set(around["proc"]) <= {"self", "thread-self"}
    assert set(around["dev"]) == {
        "null", "zero", "full", "random", "urandom", "fd", "stdin", "stdout", "stderr", "shm",
    }  # fmt: skip
    assert around["interfaces"] in (None, ["lo"])
    assert str(host.folder) not in around["mounts"]


def test_a_refused_page_is_a_fault_and_not_data(host: Host) -> None:
    """With `hidden: refuse` a look at what a guest does not have ends that guest, and nobody else (H2)."""
    strict, other = host.guest("strict", nics=["eth0"], hidden="refuse"), host.guest("other", nics=["eth0"])
    assert names(strict.call("hardware:enumerate_all")["found"]) == granted(host, "strict")
    assert faults(host, "strict", "refused") == 0
    with pytest.raises(EOFError):
        strict.call("hardware:read", address=[7, 7, 7])
    assert host.wait_for_end("strict")["exit_status"] == {"signalled": signal.SIGBUS}
    assert faults(host, "strict", "refused") == 1
    assert other.call("hardware:read", address=[7, 7, 7]) == "ff" * 4096
    assert names(other.call("hardware:probe")) == granted(host, "other")

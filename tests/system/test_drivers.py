"""The virtual driver of an unmodified program runs beside the data threads, its program does not (hostd.drivers)."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from hostd import families
from hostd.fabric import PRIORITY
from tests.framework.host import MANIFEST, Host, running
from tests.framework.puppet import Puppet
from tests.system.test_hostd_death import kill

#: sends datagrams that nobody takes, as fast as it can
FLOOD = """
import socket
print('floods', flush=True)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
    one.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    while True:
        one.sendto(bytes(18), ('10.98.0.255', 9))
"""
NIC = {"name": "eth0", "addresses": ["10.98.0.1/24"]}
MIB = 1 << 20


@pytest.fixture
def real_time(host: Host) -> None:
    host.until(lambda: not host.status()["host"]["scheduling"].startswith("batch"))  # of an earlier test
    if host.status()["host"]["scheduling"] != "real-time" or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs the right to real-time classes, and two processors")


def start(host: Host, name: str = "program", program: tuple[str, ...] = ("/bin/sleep", "1000"), **more: Any) -> int:
    """The process above it."""
    return int(host.spawn(name, list(program), nics=[NIC], directory=None, memory="16MiB", **more)["pid"])


def placed(threads: set[int] | list[int]) -> set[tuple[int, int, tuple[int, ...]]]:
    """Class, priority and processors."""
    return {
        (os.sched_getscheduler(one), os.sched_getparam(one).sched_priority, tuple(sorted(os.sched_getaffinity(one))))
        for one in threads
    }


def of_driver(process: int) -> set[int]:
    return families.threads_of(process) - {process}


def of_program(process: int) -> list[int]:
    """With the thread that waits for its end."""
    below = families.families({0: process})[0][1:]
    assert below
    return [process, *(thread for one in below for thread in families.threads_of(one))]


def beside_data(host: Host) -> set[tuple[int, int, tuple[int, ...]]]:
    return {(os.SCHED_RR, PRIORITY, tuple(host.status()["host"]["processors"]["infrastructure"]))}


def beside_program(host: Host) -> set[tuple[int, int, tuple[int, ...]]]:
    return {(os.SCHED_OTHER, 0, tuple(host.status()["host"]["processors"]["guests"]))}


@pytest.mark.usefixtures("real_time")
def test_the_driver_runs_beside_data_threads_its_program_does_not(host: Host) -> None:
    process = start(host)
    assert len(of_driver(process)) == 2 and placed(of_driver(process)) == beside_data(host)
    assert placed(of_program(process)) == beside_program(host)


@pytest.mark.usefixtures("real_time")
def test_what_is_taken_is_taken_before_drivers(host: Host) -> None:
    """As before data threads (hostd.urgency)."""
    process, device = start(host), host.pids()["disk0"]
    guest = host.guest("store", memory="4MiB", disks=[{"name": "vda", "size": "1MiB"}])
    guest.call("disk:write", disk="vda", length=MIB, seed=1)
    os.kill(device, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(1) as one:
            receipt = one.submit(host.revoke, "store", 0, 4096, deadline=1.0)
            host.until(lambda: {row[0] for row in placed(of_driver(process))} == {os.SCHED_BATCH})
            receipt.result()
    finally:
        os.kill(device, signal.SIGCONT)
    assert placed(of_driver(process)) == beside_data(host)


@pytest.mark.usefixtures("real_time")
def test_a_program_that_floods_keeps_nobody_from_the_data_plane(host: Host) -> None:
    """Neither another guest nor those who decide: its driver takes turns with all of them."""
    start(host, "flood", ("python3", "-c", FLOOD))
    host.until(lambda: "floods" in host.log("flood"))
    sent = host.metrics().value("network_transmit_packets_total", partition="flood")
    guest: Puppet = host.guest("store", memory="4MiB", disks=[{"name": "vda", "size": "1MiB"}])
    guest.begin("load:disk", disk="vda", depth=1, seconds=3600)
    host.await_progress("store", 5000)
    assert host.revoke("store", 0, 4096)["state"] == "freed"
    assert host.metrics().value("network_transmit_packets_total", partition="flood") > sent + 5000
    print(host.metrics().value("network_transmit_packets_total", partition="flood") - sent)
    assert host.failed_checks() == []


@pytest.mark.usefixtures("real_time")
def test_the_next_hostd_places_what_a_killed_one_had_not(own: Host) -> None:
    own.start()
    process = start(own)
    for thread in of_driver(process):
        os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))
    kill(own)
    own.start()
    assert placed(of_driver(process)) == beside_data(own)


@pytest.fixture(params=[{"drivers": "guests"}, {"scheduling": {"mechanism": "class"}}], ids=["manifest", "worlds"])
def apart(request: pytest.FixtureRequest) -> Iterator[Host]:
    manifest = deepcopy(MANIFEST)
    manifest["host"] |= request.param
    with running(manifest) as host:
        yield host


@pytest.mark.usefixtures("real_time")
def test_it_stays_with_its_program_where_it_should(apart: Host) -> None:
    """By the manifest's word, and where worlds are scheduled: a held guest's driver stands with it."""
    process = start(apart)
    processors = tuple(apart.status()["host"]["processors"]["guests"])
    assert {row[2] for row in placed(of_driver(process))} == {processors}
    assert os.SCHED_RR not in {row[0] for row in placed(of_driver(process))}
    assert Path(f"/proc/{process}").exists()

"""hostd dies, the next one takes over what runs: the same processes, and everything works as before (rule 28).

Guests do not notice: they verify their I/O on all paths meanwhile.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import psutil
import pytest

from hostd import families
from hostd.boot import CONTROL_PLANE
from hostd.errors import HostError
from hostd.wire import Wire
from tests.framework import monitors
from tests.framework.exported import Exported
from tests.framework.host import DEADLINE, Host
from tests.framework.nbd import READ, WRITE
from tools import daemon
from tools.chaos.holdings import listed

PATHS = ("copy", "redirect", "direct")
ROLES = CONTROL_PLANE


def endpoints(path: str) -> dict[str, Any]:
    nics = [{"name": name, "path": path} for name in ("eth0", "eth1")]
    return {"disks": [{"name": "vda", "size": "1MiB", "path": path}], "nics": nics}


def await_rounds(host: Host, *names: str) -> None:
    """Until each has written some more to its disk, whichever way."""
    def written() -> list[float]:
        page = host.metrics()
        return [page.value("disk_writes_completed_total", partition=name, endpoint="vda") for name in names]

    before = written()
    host.until(lambda: all(now >= then + 5 for now, then in zip(written(), before, strict=True)))


def kill(host: Host) -> None:
    """Returns when it is dead; it may be no child of the test."""
    ended = os.pidfd_open(host.pid)
    host.signal(signal.SIGKILL)
    assert select.select([ended], [], [], DEADLINE)[0]
    os.close(ended)
    host.reap()


def others(pids: dict[str, int]) -> dict[str, int]:
    return {name: pid for name, pid in pids.items() if name != "hostd"}


def classes(pids: Iterable[int]) -> dict[int, int]:
    """Scheduling class by thread, without its flags."""
    threads = [thread for pid in pids for thread in families.threads_of(pid)]
    return {thread: os.sched_getscheduler(thread) & ~os.SCHED_RESET_ON_FORK for thread in threads}


def start_in_haste(host: Host, keeper: int) -> None:
    """Starts the next hostd, which is above guests before it has spoken to anybody (hostd.haste)."""
    own = psutil.Process()
    others = {child.pid for child in own.children()}
    thread = threading.Thread(target=host.start)

    def hastes() -> bool:
        return os.SCHED_RR in classes(child.pid for child in own.children() if child.pid not in others).values()

    os.kill(keeper, signal.SIGSTOP)  # it comes no further
    try:
        thread.start()
        host.until(hastes)
    finally:
        os.kill(keeper, signal.SIGCONT)
        thread.join()


def test_everything_is_adopted_and_works(own: Host) -> None:
    own.start()
    guests = {path: own.guest(path, **endpoints(path)) for path in PATHS}
    works = [guest.begin("work:verified", seed=number) for number, guest in enumerate(guests.values())]
    exported = Exported(own)
    apart = {"name": "eth0", "addresses": ["10.9.0.1/24"], "vlan": 7}  # its kernel speaks to everybody
    own.spawn("sleeper", ["/bin/sleep", "1000"], nics=[apart], directory=None)
    own.attach("copy", disk={"name": "hot", "size": "1MiB"})
    await_rounds(own, *PATHS)
    before, listed, exportable = own.pids(), own.client.get("/v1/export"), exported.client()
    roles = [pid for name, pid in before.items() if name not in (*PATHS, "sleeper", "hostd")]
    urgent = classes(roles)
    kill(own)
    with pytest.raises(HostError) as unreachable:
        own.rows()
    assert unreachable.value.code == "unreachable" and str(before["keeper"]) in unreachable.value.message
    assert exportable.do(WRITE, length=4096, data=b"x" * 4096).error == 0  # nobody waits for hostd
    start_in_haste(own, before["keeper"])
    assert classes(roles) == urgent and set(classes([own.pid]).values()) == {os.SCHED_OTHER}  # and no longer
    assert others(own.pids()) == others(before)
    (adopted,) = [event for event in own.events() if event["kind"] == "adopted"]
    assert adopted["processes"] == len(others(before)) - 1 and adopted["ended"] == []
    assert own.failed_checks() == []
    assert own.client.get("/v1/export") == listed
    await_rounds(own, *PATHS)
    assert exportable.do(READ, length=4096).data == b"x" * 4096
    # What the dead one could do, this one can.
    own.detach("copy", "hot")
    own.attach("copy", disk={"name": "hot", "size": "1MiB"})
    assert own.set_path("copy", "vda", "direct")["path"] == "direct"
    more = own.guest("more", **endpoints("redirect"))
    assert more.call("work:verified", seed=9, most=20)["rounds"] == 20
    own.remove("more")
    for role in ("monitor", "io-a"):
        os.kill(own.row(role)["pid"], signal.SIGKILL)
        own.until(lambda role=role: own.row(role)["restarts"] == 1 and own.row(role)["state"] == "running")
    await_rounds(own, *PATHS)
    assert own.kill("direct")["state"] == "failed"
    assert [work.finish()["dropped"] for work in works[:2]] == [{}, {}]
    own.remove_guests()
    assert own.unload()["same"]
    own.load()
    assert own.failed_checks() == []
    own.stop()


def test_who_died_meanwhile(own: Host) -> None:
    """Guests, an I/O partition and the monitor have died while there was no hostd: each as if one had been there."""
    own.start()
    guests = [own.guest(f"g{number}", **endpoints("redirect")) for number in range(2)]
    work = guests[0].begin("work:verified", seed=1)
    await_rounds(own, "g0")
    pids = own.pids()
    kill(own)
    for name in ("g1", "io-a", "monitor"):
        os.kill(pids[name], signal.SIGKILL)
    own.start()
    own.wait_for_end("g1")
    assert own.row("g1")["exit_status"] == {"signalled": signal.SIGKILL}
    for role in ("io-a", "monitor"):
        own.until(lambda role=role: own.row(role)["state"] == "running" and own.row(role)["restarts"] == 1)
    await_rounds(own, "g0")
    assert work.finish()["dropped"] == {}
    assert own.failed_checks() == []
    assert others(own.pids())["g0"] == pids["g0"]
    own.remove("g1")
    assert own.guest("g1", **endpoints("redirect")).call("work:verified", seed=2, most=10)["rounds"] == 10
    own.stop()


def test_a_removal_is_gone_on_with(own: Host) -> None:
    """hostd dies when the rows of two guests have gone, and it has not yet told roles, keeper and its notes; of one
    the keeper knows no more, as if it had died a step later. The next one has nothing of them, and the names are free.
    """
    names = ("told", "untold")
    own.start()
    for name in names:
        own.guest(name, **endpoints("redirect"))
        own.stop_guest(name)

    def remove(name: str) -> None:
        with suppress(HostError):  # who asked goes without an answer
            own.remove(name)

    device = own.row("nic0")["pid"]
    os.kill(device, signal.SIGSTOP)  # whoever is told after the database waits for it
    threads = [threading.Thread(target=remove, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    own.until(lambda: all(gone(own, name) for name in names))
    kill(own)
    os.kill(device, signal.SIGCONT)
    for thread in threads:
        thread.join()
    with Wire.connect(own.paths.keeper_socket) as keeper:
        known = {row["name"]: row["id"] for row in listed(keeper)[1]}
        keeper.request({"op": "process.forget", "process": known["told"]})
    own.start()
    assert not {*names} & {*own.rows()} and own.failed_checks() == []
    assert [event for event in own.events() if event["kind"] == "error"] == []
    for name in names:
        assert own.guest(name, **endpoints("redirect")).call("work:verified", seed=1, most=5)["rounds"] == 5
    own.remove_guests()
    assert own.unload()["same"]
    own.stop()


def gone(host: Host, name: str) -> bool:
    """Has the database no partition any more that hostd has a record of?"""
    try:
        host.view(name)
    except HostError as error:
        return error.code == "not_found"
    return False


@pytest.mark.parametrize(
    "role",
    ["disk0", *(pytest.param(name, marks=pytest.mark.long) for name in (*ROLES, "monitor", "io-a", "nic0"))],
)
def test_who_was_given_up_stays_so(own: Host, role: str) -> None:
    """Nobody starts it but `hostctl restart`, and what it is needed for has the same stated error; then all goes on."""
    own.start()
    guest = own.guest("g0", **endpoints("redirect"))
    assert guest.call("work:verified", seed=1, most=5)["rounds"] == 5
    monitors.exhaust(own, role)
    before, endpoint = own.row(role), "eth0" if role == "nic0" else "vda"
    told = own.view("g0")["connections"][endpoint] if role not in ROLES else None
    kill(own)
    own.start()
    row = own.row(role)
    assert (row["state"], row["pid"], row["restarts"]) == ("failed", None, before["restarts"])
    assert not {"monitor_lost", "io_lost", "device_lost", "role_lost"} & {event["kind"] for event in own.events()}
    if told is not None:
        found = own.view("g0")["connections"][endpoint]
        assert [found[name] for name in ("state", "cause", "error")] == [
            told[name] for name in ("state", "cause", "error")
        ]
        assert f"hostctl restart {role}" in found["error"]
    if role == "disk0":  # the next monitor knows, too, that takeovers do not wait for it
        monitors.kill_and_wait(own, busy=False)
        since = own.events()[-1]["sequence"]
        os.kill(own.row("io-a")["pid"], signal.SIGKILL)
        own.until(lambda: [event for event in own.events(since) if event["kind"] == "takeover"])
    assert own.restart(role)["restarts"] > before["restarts"]
    assert own.row(role)["state"] == "running"
    assert guest.call("work:verified", seed=2, most=5)["rounds"] == 5
    assert own.guest("g1", **endpoints("redirect")).call("work:verified", seed=3, most=5)["rounds"] == 5
    own.until(lambda: own.failed_checks() == [], 40.0)  # services are opened anew with back-off
    own.stop()


def test_another_state_folder_is_refused(own: Host) -> None:
    """The host that runs is not hurt by it."""
    own.start()
    before = own.pids()
    kill(own)
    paths, own.paths = own.paths, own.paths.__class__(own.paths.runtime, own.folder / "other")
    with pytest.raises(HostError, match="keeps its state in"):
        daemon.start(own.paths, str(own.manifest), DEADLINE)
    own.paths = paths
    own.start()
    assert others(own.pids()) == others(before)
    own.stop()

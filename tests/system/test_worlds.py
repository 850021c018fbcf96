"""Worlds share a processor: weights, caps, sleepers, saved registers, and what is left when the monitor dies (U6, W5).

Others may use the processor, too, and a share of what is left is still that share; but an amount is then smaller and a
wake-up later than the host makes them. Such figures are taken a few times, and one has to be right.
"""

from __future__ import annotations

import functools
import os
import platform
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from partitions.spare import idle_seconds
from tests.framework.exported import EXPORTER
from tests.framework.host import MANIFEST, Host, running
from tests.framework.nbd import READ, Client
from tests.framework.puppet import Puppet
from tools.bench.worlds import spinning

MECHANISMS = ("stop", "class")
SLICE = 0.005
SECONDS, SECONDS_LONG = 2.0, 10.0
ATTEMPTS = 4
PATIENCE = 5.0  # seconds until turns are given up
FOREIGN = 30  # processes of the host beside worlds: each gets less than a fifth
MARKER = 0x5152535455565758


def scheduled(mechanism: str, **more: Any) -> dict[str, Any]:
    scheduling = {"mechanism": mechanism, "slice": SLICE, **more}
    return {**MANIFEST, "host": {**MANIFEST["host"], "scheduling": scheduling}}


@pytest.fixture(scope="module", params=MECHANISMS)
def module_host(request: pytest.FixtureRequest) -> Iterator[Host]:
    with running(scheduled(request.param)) as host:
        host.mechanism = request.param  # type: ignore[attr-defined]
        yield host


def world(host: Host, name: str) -> dict[str, Any]:
    number = next(row["id"] for row in host.status()["processes"] if row["name"] == name)
    return next(row for row in host.status()["host"]["worlds"] if row["partition"] == number)


def used(host: Host, *names: str) -> list[float]:
    """Processor seconds of worlds, by the kernel's count."""
    status = host.status()
    numbers = {row["name"]: row["id"] for row in status["processes"]}
    by_number = {row["partition"]: row for row in status["host"]["worlds"]}
    return [by_number[numbers[name]]["used"] / 1e9 for name in names]


def shares(host: Host, seconds: float, *names: str) -> list[float]:
    """Parts of what the worlds used together in `seconds`."""
    before = used(host, *names)
    time.sleep(seconds)
    spent = [after - first for after, first in zip(used(host, *names), before, strict=True)]
    return [one / sum(spent) for one in spent]


def right_once(measured: Callable[[], Any], right: Callable[[Any], bool]) -> None:
    found = []
    for _ in range(ATTEMPTS):
        found.append(measured())
        if right(found[-1]):
            return
    raise AssertionError(found)


def spinner(host: Host, name: str, function: str = "compute:spin", **more: Any) -> Puppet:
    arguments = more.pop("arguments", {})
    guest = host.guest(name, **more)
    guest.begin(function, **arguments)
    return guest


def test_shares_are_as_weights(host: Host, long: bool) -> None:
    """1:2:4 on one processor, within 2 % of what each is due."""
    weights = {"one": 100, "two": 200, "four": 400}
    for name, weight in weights.items():
        spinner(host, name, weight=weight)
    due = [weight / sum(weights.values()) for weight in weights.values()]
    seconds = SECONDS_LONG if long else SECONDS
    right_once(lambda: shares(host, seconds, *weights), lambda found: found == pytest.approx(due, rel=0.02))


def test_a_system_world_has_a_mapping_cache(host: Host) -> None:
    """Requests of a scheduled guest are translated through its system world's cache, whose hits are counted (W6)."""
    (row,) = host.status()["host"]["turns"]["processors"]
    labels = {"process": "monitor", "thread": f"world{row['processor']}"}

    def counted() -> tuple[float, float]:
        page = host.metrics()
        return page.value("thread_map_hits_total", **labels), page.value("thread_map_misses_total", **labels)

    guest = host.guest("reader", disks=[{"name": "vda", "size": "1MiB"}])
    before = counted()
    guest.call("disk:poll", disk="vda", requests=200)
    hits, misses = (after - first for after, first in zip(counted(), before, strict=True))
    assert hits >= 190 and 1 <= misses <= 10  # one page, 200 times


def test_a_guest_that_is_gone_leaves_its_place(host: Host) -> None:
    def places() -> int:
        (row,) = host.status()["host"]["turns"]["processors"]
        return int(row["worlds"])

    before = places()
    spinner(host, "brief")
    assert places() == before + 1
    host.remove("brief", force=True)
    assert places() == before


def test_a_guest_with_many_is_one_world(host: Host) -> None:
    """Four computing children get the same as one that computes alone."""
    spinner(host, "alone")
    spinner(host, "many", "compute:spin_many", arguments={"children": 4})
    host.until(lambda: world(host, "many")["threads"] >= 5)  # the mechanism class finds them a while later
    halves = pytest.approx([0.5, 0.5], abs=0.02)
    right_once(lambda: shares(host, SECONDS, "alone", "many"), lambda found: found == halves)


def test_children_that_came_first_belong_to_the_world(host: Host) -> None:
    """A guest that forks as the first thing that it does, before anybody schedules it."""
    host.spawn("early", ["compute:fork_first"], memory="16MiB")
    host.until(lambda: world(host, "early")["threads"] == 3)
    spinner(host, "busy")
    early = psutil.Process(host.row("early")["pid"])
    processes = [early, *early.children(recursive=True)]

    def part() -> float:
        def spent() -> float:
            return sum(sum(process.cpu_times()[:2]) for process in processes)

        before, busy = spent(), used(host, "busy")[0]
        time.sleep(SECONDS)
        mine, other = spent() - before, used(host, "busy")[0] - busy
        return mine / (mine + other)

    right_once(part, lambda found: found == pytest.approx(0.5, abs=0.03))


def test_a_cap_holds_on_an_idle_processor(host: Host) -> None:
    spinner(host, "capped", cap=0.25)

    def part() -> float:
        before, begin = used(host, "capped")[0], time.monotonic()
        time.sleep(SECONDS)
        after, end = used(host, "capped")[0], time.monotonic()
        found = (after - before) / (end - begin)
        assert found < 0.27
        return found

    right_once(part, lambda found: found == pytest.approx(0.25, abs=0.02))
    assert world(host, "capped")["capped"] > 10


def test_work_is_conserved(host: Host) -> None:
    """Of a guest that sleeps and one that computes, the second is never held."""
    host.guest("asleep", weight=10_000)
    spinner(host, "busy")
    time.sleep(0.2)
    turns = world(host, "busy")["turns"]
    assert all(world(host, "busy")["running"] for _ in range(10))
    assert world(host, "busy")["turns"] == turns
    assert shares(host, 0.5, "busy", "asleep")[0] > 0.98


def test_a_world_that_goes_to_sleep_lets_the_others_go_on(host: Host) -> None:
    """Again and again, each of three in turn, in the middle of whoever's turn it is."""
    guests = {name: host.guest(name) for name in ("first", "second", "third")}
    for _ in range(4):
        for sleeper in guests:
            calls = {name: guest.begin("compute:spin") for name, guest in guests.items()}
            time.sleep(0.05)
            calls.pop(sleeper).finish()
            before = used(host, *calls)
            host.until(functools.partial(_all_used_more, host, before, list(calls)))
            for call in calls.values():
                call.finish()


def _all_used_more(host: Host, before: list[float], names: list[str]) -> bool:
    return all(now > then for then, now in zip(before, used(host, *names), strict=True))


def test_who_sleeps_in_its_turn_leaves_the_processor(host: Host) -> None:
    """One that naps in nearly all of its turns, and has the weight to get as many as it likes, costs no idle time."""
    spinner(host, "busy")

    def working() -> float:
        before, begin = used(host, *names), time.monotonic()
        time.sleep(SECONDS / 2)
        spent = sum(after - first for after, first in zip(used(host, *names), before, strict=True))
        return spent / (time.monotonic() - begin)

    def kept() -> float:
        """What both use, of what one that is alone gets beside whoever uses the processor, too."""
        nonlocal names
        names = ["busy"]
        alone = working()
        names = ["busy", "napper"]
        nap = napper.begin("compute:dodge", run=SLICE * 0.2, sleep=SLICE * 0.8)
        found = working() / alone
        nap.finish()
        return found

    names: list[str] = []
    napper = host.guest("napper", weight=10_000)
    right_once(kept, lambda found: found > 0.9)


def test_no_turns_while_there_is_time_for_all(host: Host) -> None:
    """Two that use 30 % of the processor each run when they like; when both want all of it, they take turns again."""
    guests = {name: host.guest(name) for name in ("first", "second")}
    calls = [guest.begin("compute:dodge", run=SLICE * 0.6, sleep=SLICE * 1.4) for guest in guests.values()]
    (row,) = host.status()["host"]["turns"]["processors"]

    def held() -> int:
        before = turns()
        return sum(not world(host, name)["running"] for name in guests for _ in range(20)) + turns() - before

    def turns() -> int:
        return sum(world(host, name)["turns"] for name in guests)

    def idle() -> float:
        return idle_seconds(Path("/proc/stat").read_text())[row["processor"]]

    begin, end, found = idle(), time.monotonic() + PATIENCE, held()
    while found and time.monotonic() < end:
        found = held()
    if found and idle() - begin < PATIENCE * 0.3:
        pytest.skip("others use the processor: it has no time to spare")
    assert found == 0
    for call, guest in zip(calls, guests.values(), strict=True):
        call.finish()
        guest.begin("compute:spin")
    host.until(lambda: held() > 10)
    right_once(lambda: shares(host, SECONDS / 2, *guests), lambda found: found == pytest.approx([0.5, 0.5], abs=0.02))


def test_turns_go_on_beside_foreign_load(host: Host) -> None:
    """Processes of the host that compute on the same processor leave each world little; they want it none the less."""
    guests = {name: host.guest(name) for name in ("one", "two")}
    (row,) = host.status()["host"]["turns"]["processors"]
    host.until(lambda: host.status()["host"]["turns"]["processors"][0]["rounds"] > row["rounds"] + 3)  # seen asleep
    with ExitStack() as stack:
        for _ in range(FOREIGN // 2):
            stack.enter_context(spinning(row["processor"]))
        for guest in guests.values():
            guest.begin("compute:spin")
        before = {name: world(host, name)["turns"] for name in guests}
        host.until(lambda: all(world(host, name)["turns"] > before[name] + 5 for name in guests))


def test_sleeping_before_the_tick_gains_nothing(host: Host) -> None:
    spinner(host, "honest")
    spinner(host, "dodger", "compute:dodge", arguments={"run": SLICE * 0.9, "sleep": SLICE * 0.1})
    right_once(lambda: shares(host, SECONDS, "honest", "dodger"), lambda found: found[1] <= 0.51)


def test_an_interactive_guest_waits_two_slices_at_most(host: Host) -> None:
    spinner(host, "first")
    spinner(host, "second")
    guest = host.guest("interactive")

    def late() -> dict[str, Any]:
        call = guest.begin("compute:tick", period=0.02)
        time.sleep(SECONDS)
        return call.finish()

    right_once(late, lambda found: found["wakes"] > 20 and found["p99"] <= 2 * SLICE)


def test_signals_reach_a_scheduled_guest(host: Host) -> None:
    spinner(host, "other")
    assert host.guest("signalled").call("compute:signals", count=50) == {"heard": 50}


def test_a_stopped_guest_can_be_removed(host: Host) -> None:
    """Worlds that wait for their turn end like others, and leave nobody waiting."""
    for name in ("first", "second", "third"):
        spinner(host, name)
    host.remove("first")
    host.remove("third")
    assert shares(host, 0.5, "second") == [1.0]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="needs registers of x86_64")
def test_registers(host: Host) -> None:
    """They differ between two looks at a computing guest, and what is written into the saved image the guest has."""
    guest = host.guest("looked-at")
    path = "/v1/partitions/looked-at/registers"
    if host.mechanism == "class":  # type: ignore[attr-defined]
        with pytest.raises(Exception, match="saves no registers"):
            host.client.get(path)
        return
    call = guest.begin("compute:wait_for_register")
    looks = [host.client.get(path)["threads"]]
    assert looks[0][0]["vector"]
    thread = looks[0][0]["thread"]
    deadline = time.monotonic() + 10
    while looks[-1][0]["registers"]["rcx"] != MARKER:
        assert time.monotonic() < deadline, "the guest does not compute"
        looks.append(host.client.get(path)["threads"])
    looks.append(host.client.get(path)["threads"])
    assert len({str(look[0]["registers"]) for look in looks}) > 1, "two looks, one image"
    host.client.request("PUT", path, {"thread": thread, "register": "rbx", "value": MARKER})
    assert call.result() == {"value": MARKER}


def test_a_held_export_comes_back_into_its_class() -> None:
    """The export's wake-ups stop no client (hostd/exports.py): also after its turn, and after the monitor's death."""
    with running(scheduled("class")) as host:
        disks = [{"name": "data", "size": "1MiB"}]
        row = host.spawn("store", EXPORTER, memory="4MiB", disks=disks, export_nbd=True, directory=None, cap=0.01)
        client = Client(host.paths.runtime / "store.nbd").transmit("")
        tasks = Path(f"/proc/{row['pid']}/task")

        def classes() -> set[int]:
            return {os.sched_getscheduler(int(task.name)) for task in tasks.iterdir()}

        host.until(lambda: classes() == {os.SCHED_BATCH})
        # Over its cap it is held; looked at before it can answer.
        host.until(lambda: (client.ask(READ, 0, 262144), classes(), client.hear())[1] == {os.SCHED_IDLE})
        host.until(lambda: classes() == {os.SCHED_BATCH})
        client.close()
        restarts = host.row("monitor")["restarts"]
        os.kill(host.row("monitor")["pid"], signal.SIGKILL)
        host.until(lambda: host.row("monitor")["restarts"] > restarts)
        host.until(lambda: classes() == {os.SCHED_BATCH})


def test_the_monitors_death_leaves_no_guest_frozen() -> None:
    for mechanism in MECHANISMS:
        with running(scheduled(mechanism)) as host:
            names = ["first", "second", "capped"]
            guests = [spinner(host, name, **({"cap": 0.05} if name == "capped" else {})) for name in names]
            time.sleep(0.3)
            monitor = next(row["pid"] for row in host.status()["processes"] if row["name"] == "monitor")
            os.kill(monitor, signal.SIGKILL)
            time.sleep(0.5)
            before = [time.clock_gettime((~guest.pid << 3) | 2) for guest in guests]
            time.sleep(0.6)
            after = [time.clock_gettime((~guest.pid << 3) | 2) for guest in guests]
            assert all(last > first for last, first in zip(after, before, strict=True)), (mechanism, before, after)

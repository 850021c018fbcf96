"""Processor time of the data plane, by client: all classes together are what the kernel says of each process; who
causes more work pays more, idle clients pay nothing, and polling is nobody's (U16, design.md section 6).
"""

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.framework.host import MANIFEST, Host, running
from tests.framework.metrics import Metrics
from tests.framework.streams import NAMES, PATHS, Pair

SERVERS = ("io-a", "io-b")
PROCESSES = ("monitor", *SERVERS, "nic0", "disk0", "memory")
ROLES = ("monitor", "io", "nic0", "disk0", "memory")  # io: whichever serves a client
WITHIN = 0.03  # of the kernel's figure
STALE = 0.002  # seconds that a role which sleeps has run since it counted last
SECONDS, SECONDS_LONG = 1.0, 10.0
ASLEEP = 1.2  # seconds after which a thread that fell asleep has settled its account: it wakes once a second
SMALL, LARGE = 512, 262144
RATE = 1000  # requests per second of each client
ALIKE = 0.3  # wake-ups and batches differ, though requests do not
ATTEMPTS = 5  # where something outside of the host took the processor's caches or the processor from one client
MEMORY_DISK = {"name": "memory", "kind": "disk", "medium": "ram"}


@pytest.fixture(scope="module")
def module_host() -> Iterator[Host]:
    manifest = {**MANIFEST, "devices": [*MANIFEST["devices"], MEMORY_DISK]}
    with running({**manifest, "host": {**MANIFEST["host"], "charge_clients": True}}) as host:
        yield host


def ran(host: Host) -> dict[str, float]:
    """Seconds that all threads of each role have run, by the kernel's word (/proc/PID/task/TID/schedstat)."""
    pids = host.pids()
    tasks = {role: Path(f"/proc/{pids[role]}/task").glob("*/schedstat") for role in PROCESSES}
    return {role: sum(int(task.read_text().split()[0]) for task in found) / 1e9 for role, found in tasks.items()}


def accounted(page: Metrics) -> dict[str, float]:
    """Seconds of all classes of each role."""
    return {
        role: sum(page.series("client_cpu_seconds_total", role=role).values())
        + page.value("overhead_cpu_seconds_total", process=role)
        for role in PROCESSES
    }


def clients(page: Metrics, role: str) -> dict[str, float]:
    found: Counter[str] = Counter()
    for name in SERVERS if role == "io" else [role]:
        found.update(page.by("partition", "client_cpu_seconds_total", role=name))
    return dict(found)


@pytest.mark.parametrize("path", PATHS)
def test_all_classes_are_the_process(host: Host, path: str, long: bool) -> None:
    """Within 3 %, over a time of load on every path. Before and after it the threads sleep and have settled."""
    pair = Pair(host, path=path)
    time.sleep(ASLEEP)
    kernel, pages = [ran(host)], [host.metrics()]
    with pair.streaming():
        time.sleep(SECONDS_LONG if long else SECONDS)
    time.sleep(ASLEEP)
    kernel.append(ran(host))
    pages.append(host.metrics())
    before, after = (accounted(page) for page in pages)
    for role in PROCESSES:
        spent = kernel[1][role] - kernel[0][role]
        assert after[role] - before[role] == pytest.approx(spent, rel=WITHIN, abs=STALE), (role, spent)
    busy = "disk0" if path == "direct" else "io"
    for name in NAMES:
        assert clients(pages[1], busy)[name] > clients(pages[0], busy).get(name, 0)


def test_one_process_in_both_offices_is_counted_once(host: Host) -> None:
    """Terms of office begin and end meanwhile; each thread's time is in one row, and so is the control plane's."""
    pair = Pair(host, path="redirect")
    time.sleep(ASLEEP)
    kernel, pages = ran(host), host.metrics()
    with pair.streaming():
        for target in ("io-a", "io-b", "io-a"):
            for office in SERVERS:
                host.switch_over(office, target)
            time.sleep(SECONDS / 3)
        for office in SERVERS:
            host.switch_over(office, office)
    time.sleep(ASLEEP)
    spent = sum(ran(host)[name] - kernel[name] for name in SERVERS)
    found = sum(accounted(host.metrics())[name] - accounted(pages)[name] for name in SERVERS)
    assert found == pytest.approx(spent, rel=WITHIN, abs=STALE)


def limited(host: Host, name: str, path: str) -> Any:
    disk = {"name": "vda", "size": "1MiB", "device": "memory", "path": path, "limits": {"operations": {"rate": RATE}}}
    return host.guest(name, disks=[disk], memory="8MiB")


def spent(host: Host, path: str, blocks: dict[str, int], seconds: float) -> dict[str, dict[str, float]]:
    """Seconds per request, by role and client, of clients that make equally many requests of these sizes."""
    guests = {name: limited(host, name, path) for name in blocks}
    before = host.metrics()
    calls = [
        guests[name].begin("load:disk", disk="vda", depth=4, seconds=seconds, operation="write", block=block)
        for name, block in blocks.items()
    ]
    results = dict(zip(blocks, (call.result() for call in calls), strict=True))
    time.sleep(ASLEEP)
    after = host.metrics()
    counts = [result["requests"] for result in results.values()]
    assert min(counts) > 0.9 * max(counts), "the requests were to be equally many"
    return {
        role: {name: (clients(after, role)[name] - clients(before, role).get(name, 0)) / results[name]["requests"]
               for name in blocks if name in clients(after, role)}
        for role in ROLES
    }  # fmt: skip


def test_equal_requests_of_unequal_cost(host: Host, long: bool) -> None:
    """256 KiB cost the device that copies them much more than 512 B, and that is what each client is charged; the
    monitor only translates more pages, and the I/O partition sees no difference."""
    seen = []
    for _ in range(ATTEMPTS):  # the two may have I/O partitions of their own, whose caches differ
        found = spent(host, "redirect", {"small": SMALL, "large": LARGE}, SECONDS_LONG if long else SECONDS)
        extra = {role: costs["large"] - costs["small"] for role, costs in found.items() if costs}
        assert found["memory"]["large"] > 2 * found["memory"]["small"] > 0, found
        if extra["memory"] > 2 * extra["monitor"] and extra["memory"] > 2 * extra["io"]:
            return
        seen.append(found)
        host.remove_guests()
    raise AssertionError(seen)


def test_copies_are_charged_to_whom_they_are_made_for(host: Host, long: bool) -> None:
    """On the copy path the monitor moves the bytes."""
    found = spent(host, "copy", {"small": SMALL, "large": LARGE}, SECONDS_LONG if long else SECONDS)
    assert found["monitor"]["large"] > 2 * found["monitor"]["small"] > 0, found


@pytest.mark.parametrize("path", PATHS)
def test_equal_cost_is_charged_alike(host: Host, path: str, long: bool) -> None:
    seen = []
    for _ in range(ATTEMPTS):
        seen.append(spent(host, path, {"one": LARGE, "two": LARGE}, SECONDS_LONG if long else SECONDS)["memory"])
        if seen[-1]["one"] == pytest.approx(seen[-1]["two"], rel=ALIKE):
            return
        host.remove_guests()
    raise AssertionError(f"not within {ALIKE:.0%} of each other: {seen}")


def test_idle_client_pays_nothing(host: Host) -> None:
    """While its neighbour is served, and while nobody is: then all time is polling and the control threads'."""
    quiet, loud = limited(host, "quiet", "redirect"), limited(host, "loud", "redirect")
    quiet.call("load:disk", disk="vda", depth=1, seconds=0.05)
    time.sleep(ASLEEP)
    before = host.metrics()
    loud.call("load:disk", disk="vda", depth=4, seconds=SECONDS)
    time.sleep(ASLEEP)
    after = host.metrics()
    for role in ("memory", "io", "monitor"):
        assert clients(after, role)["loud"] > clients(before, role).get("loud", 0)
        assert clients(after, role)["quiet"] == clients(before, role)["quiet"], role
    time.sleep(SECONDS)
    later = host.metrics()
    assert later.changes(after, "client_cpu_seconds_total") == {}


def test_view_and_monitor_agree(host: Host) -> None:
    """`hostctl view` shows what each role spent; with host.charge_clients the monitor maps the same counts, read-only,
    and nothing else of these roles."""
    guest = limited(host, "guest", "redirect")
    guest.call("load:disk", disk="vda", depth=4, seconds=0.2)
    time.sleep(ASLEEP)
    shown = host.view("guest")["charges"]
    (server,) = shown.keys() & set(SERVERS)
    assert shown.keys() == {"memory", server, "monitor"} and all(value > 0 for value in shown.values())
    page = host.metrics()
    for role, seconds in shown.items():
        assert page.value("client_cpu_seconds_total", role=role, partition="guest") == pytest.approx(seconds)
    assert host.view("guest")["charged"] == pytest.approx(sum(shown.values()))
    assert host.failed_checks() == []


def test_removed_client_leaves_no_series(host: Host) -> None:
    limited(host, "gone", "redirect").call("load:disk", disk="vda", depth=4, seconds=0.1)
    host.remove("gone")
    assert host.metrics().series("client_cpu_seconds_total", partition="gone") == {}
    again = limited(host, "gone", "redirect")
    assert host.view("gone")["charges"]["memory"] == 0
    again.call("load:disk", disk="vda", depth=4, seconds=0.1)
    time.sleep(ASLEEP)
    assert host.view("gone")["charges"]["memory"] > 0

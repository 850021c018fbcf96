"""A device that dies: the next one does what was in flight, and guests see a pause and nothing else (rules.md 21)."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from hostd.fabric import PRIORITY
from tests.framework.host import DEADLINE, Host
from tests.framework.streams import PATHS, Pair

DEVICES = ("disk0", "nic0")
KILLS, KILLS_LONG = 10, 300  # of each device
LIFE = 0.31  # seconds: less is a short life, and too many of those are given up
SEIZE, INTERRUPT, DETACH, WALL = 0x4206, 0x4207, 17, 0x40000000  # linux/ptrace.h, linux/wait.h


def kill(host: Host, name: str) -> None:
    """SIGKILL; returns when its next process serves."""
    row = host.row(name)
    os.kill(row["pid"], signal.SIGKILL)
    host.until(lambda: host.row(name)["restarts"] > row["restarts"])


def test_killed_under_load(host: Host, seed: int, long: bool) -> None:
    """Both devices in turn, at seeded moments, with verified load on every path: every request is answered once, no
    block and no frame is lost, and nothing is repeated or changed."""
    moments = random.Random(seed)
    pairs = [Pair(host, mark=f"-{path}", path=path) for path in PATHS]
    with ExitStack() as streams:
        for pair in pairs:
            streams.enter_context(pair.streaming())
        for _ in range(KILLS_LONG if long else KILLS):
            for name in DEVICES:
                time.sleep(LIFE / 2 + moments.uniform(0.0, 0.05))
                kill(host, name)
    for pair in pairs:
        assert all(queue["foreign"] == 0 for guest in pair.guests.values() for queue in guest.counts().values())
    assert host.failed_checks() == []
    seconds = [event["seconds"] for event in host.events() if event["kind"] == "device_restarted"]
    news = [event for event in host.events() if event["kind"] == "takeover"]
    assert sum(event["replayed"] + event["found"] for event in news) > 0, "nothing was ever in flight"
    print(f"restarts: median {statistics.median(seconds):.3f} s; sent again {sum(event['replayed'] for event in news)}")


@contextmanager
def stopped_data_thread(pid: int) -> Iterator[int]:
    """That thread alone stands, as by a debugger; its number."""
    threads = [int(one.name) for one in Path(f"/proc/{pid}/task").iterdir()]
    thread = min(filter(is_data_thread, threads))  # workers of its io_uring are of its class, too
    traced(SEIZE, thread)
    traced(INTERRUPT, thread)
    os.waitpid(thread, WALL)
    try:
        yield thread
    finally:
        try:
            traced(DETACH, thread)
        except ProcessLookupError:  # killed: its process has ended once whoever traces it has seen that
            os.waitpid(thread, WALL)


def is_data_thread(thread: int) -> bool:
    return os.sched_getscheduler(thread) == os.SCHED_RR and os.sched_getparam(thread).sched_priority == PRIORITY


def traced(request: int, thread: int) -> None:
    if ctypes.CDLL(None, use_errno=True).ptrace(request, thread, None, None) != 0:
        raise OSError(ctypes.get_errno(), "ptrace")


def test_one_that_answers_and_whose_data_thread_stands_still(host: Host) -> None:
    """Its control thread tells of it, so it is replaced; a takeover, which waits for all devices, goes on then."""
    guest = host.guest("store", disks=[{"name": "vda", "size": "1MiB"}])
    guest.call("disk:write", disk="vda", length=4096, seed=1)
    device, since = host.row("disk0"), host.events()[-1]["sequence"]
    with stopped_data_thread(device["pid"]):
        os.kill(host.row("io-a")["pid"], signal.SIGKILL)
        reading = guest.begin("disk:read", disk="vda", length=4096, seed=1)
        found = host.until(lambda: [event for event in host.events(since) if event["kind"] == "hung"])
        assert [event["partition"] for event in found] == ["disk0"]
    reading.result(DEADLINE)
    host.until(lambda: [event for event in host.events(since) if event["kind"] == "takeover"])
    assert host.row("disk0")["restarts"] == device["restarts"] + 1

"""Ultravisor, command and operations partition die or hang at any moment: data plane and guests do not notice, what was
asked for happens once, and the database has the state before or after each transaction (rules.md tests 16 and 31)."""

from __future__ import annotations

import itertools
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from hostd.errors import HostError
from tests.framework import monitors
from tests.framework.host import Host
from tests.framework.streams import Pair

ROLES = ("ultravisor", "operations", "command")
KILLS, KILLS_LONG = 8, 500  # of each role
LIFE = 0.31  # seconds: less is a short life, and too many of those are given up
DISK = {"name": "vda", "size": "1MiB"}


def restarts(host: Host) -> dict[str, int]:
    return {name: host.row(name)["restarts"] for name in ROLES}


def end(host: Host, name: str, number: signal.Signals = signal.SIGKILL) -> None:
    os.kill(host.row(name)["pid"], number)


@contextmanager
def changing(host: Host) -> Iterator[list[str]]:
    """Somebody starts, changes and removes guests meanwhile, one request after the other; none may fail. What was
    done."""
    done: list[str] = []
    errors: list[BaseException] = []
    told: list[Any] = []
    stop = threading.Event()

    def work() -> None:
        try:
            for number in itertools.count():
                if stop.is_set():
                    return
                name = f"passing{number}"
                host.guest(name, disks=[DISK]).call("disk:write", disk="vda", length=4096, seed=number)
                host.attach(name, disk={"name": "vdb", "size": "1MiB"})
                host.remove(name)
                done.append(name)
        except BaseException as error:
            errors.append(error)
            told.extend([time.time(), *host.events()[-24:]])

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join()
    assert errors == [], told


def services(host: Host) -> int:
    """Control channels in force."""
    return len(host.resources()["channels"])


def assert_whole(host: Host) -> None:
    """As before: nothing differs between database, processes and maps, and services are open by system calls."""
    told = lambda: (host.failed_checks(), host.log("command")[-500:], host.events()[-12:])  # noqa: E731
    host.until(lambda: host.failed_checks() == [], 40.0, told)  # services are opened anew with back-off
    answer = host.client.get("/v1/resources")
    assert {row["name"] for row in answer["partitions"]} == {name for name, row in host.rows().items() if row["id"]}


def test_killed_in_turn_under_load(host: Host, seed: int, long: bool) -> None:
    """20 kills of each at seeded moments, while streams go on and guests come and go."""
    moments = random.Random(seed)
    pair, results = Pair(host), {}
    others = {name: pid for name, pid in host.pids().items() if name not in ROLES}
    before = restarts(host)
    with pair.streaming(results), changing(host) as done:
        for _ in range(KILLS_LONG if long else KILLS):
            time.sleep(LIFE)
            seen = restarts(host)
            for name in moments.sample(ROLES, len(ROLES)):
                time.sleep(moments.uniform(0.0, 0.05))
                end(host, name)
            again = lambda seen=seen: all(count > seen[name] for name, count in restarts(host).items())  # noqa: E731
            host.until(again, explain=lambda: ([host.row(name) for name in ROLES], host.events()[-24:]))
    assert all(count - before[name] >= KILLS for name, count in restarts(host).items())
    assert done, "nothing was changed meanwhile"
    pids = host.pids()
    assert {name: pids.get(name) for name in others} == others, "somebody else died"
    assert host.metrics().by("reason", "io_refused_total") == {}
    assert_whole(host)
    print(f"{len(done)} guests came and went; longest silence {max(one['longest'] for one in results.values()):.3f} s")


@pytest.mark.parametrize("name", ROLES)
def test_one_that_hangs_is_noticed_and_replaced(host: Host, name: str) -> None:
    """Stopped, it answers nobody. What was asked of it meanwhile is done by the next one; the others are left alone."""
    store = host.guest("store", disks=[DISK])
    others = {role: host.row(role)["pid"] for role in ROLES if role != name}
    before, since = restarts(host)[name], host.events()[-1]["sequence"]
    end(host, name, signal.SIGSTOP)
    host.guest("late", disks=[DISK]).call("disk:write", disk="vda", length=4096, seed=1)
    assert restarts(host)[name] == before + 1
    assert [event["partition"] for event in host.events(since) if event["kind"] == "hung"] == [name]
    assert {role: host.row(role)["pid"] for role in others} == others
    store.call("disk:write", disk="vda", length=4096, seed=2)
    assert_whole(host)


def test_one_that_was_given_up_comes_back_by_hand(host: Host, long: bool) -> None:
    """One after the other, the monitor alone without --long: a stated error, and guests that go on with their work
    after `hostctl restart`."""
    pair = Pair(host)
    pids = {name: host.row(name)["pid"] for name in ("left", "right")}
    for name in (*ROLES, "io-a", "monitor") if long else ("monitor",):
        with pair.streaming():
            monitors.exhaust(host, name)
            assert host.row(name)["state"] == "failed"
            if name == "ultravisor":
                with pytest.raises(HostError, match="ultravisor"):
                    host.guest("late", disks=[DISK])
            if name == "monitor":
                found = host.view("left")["connections"]["vda"]
                assert (found["state"], found["cause"]) == ("fenced", "given_up")
                assert "hostctl restart monitor" in found["error"]
            host.restart(name)
            assert host.row(name)["state"] == "running"
            host.until(lambda: host.view("left")["connections"]["vda"]["error"] is None)
    assert {name: host.row(name)["pid"] for name in pids} == pids
    host.guest("after", disks=[DISK]).call("disk:write", disk="vda", length=4096, seed=1)
    assert_whole(host)
    for name in ("console", "left", "keeper"):
        with pytest.raises(HostError):
            host.restart(name)

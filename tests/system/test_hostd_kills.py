"""hostd is killed at seeded moments, in the middle of whatever it does; the next one ends in a sound state (rule 32).

Meanwhile guests verify their I/O on all paths: 0 errors.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import threading
import time
from contextlib import suppress

import psutil

from hostd.errors import HostError
from tests.framework.host import Host
from tests.system.test_hostd_death import PATHS, endpoints, kill
from tools.chaos.nursery import Nursery
from tools.client import peer_pid

KILLS, KILLS_LONG = 6, 200
STAGES, STAGES_LONG = 4, 100
STAGE_SECONDS = 1.0  # of a boot, a load and an unload
BUSY_SECONDS = 0.25  # that hostd gets before it is killed, at most
PAUSE = 0.002  # between two rounds of the load: the test is not to measure this machine's processors
ADOPTED_SECONDS = 1.0  # the best of all: the machine may be busy
BOOT_SECONDS = 0.15  # that the next one gets where it is killed in its turn


class Busy:
    """Keeps hostd at work, with changes of all kinds, until it is gone."""

    def __init__(self, host: Host, generator: random.Random) -> None:
        self._host = host
        self._generator = generator
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        doings = [self._spawn, self._plug, self._path, self._end_role, self._switch_over, self._wire]
        while self._host.pid:
            with suppress(HostError, ProcessLookupError, StopIteration):
                self._generator.choice(doings)()
            if peer_pid(self._host.paths.api_socket) is None:
                return

    def _spawn(self) -> None:
        self._host.spawn("brief", ["ends:never"], **endpoints(self._generator.choice(PATHS)))
        self._host.remove("brief")

    def _plug(self) -> None:
        name = self._generator.choice(PATHS)
        self._host.attach(name, disk={"name": "hot", "size": "64KiB"})
        self._host.detach(name, "hot")

    def _path(self) -> None:
        self._host.set_path(self._generator.choice(PATHS), "vda", self._generator.choice(PATHS))

    def _end_role(self) -> None:
        pid = self._host.row(self._generator.choice(("monitor", "io-a", "io-b")))["pid"]
        if pid is not None:  # otherwise it is being started again
            os.kill(pid, signal.SIGKILL)

    def _switch_over(self) -> None:
        self._host.switch_over(self._generator.choice(("io-a", "io-b")))

    def _wire(self) -> None:
        wire = {"name": "tapped", "kind": "pcap", "file": str(self._host.folder / "tapped.pcap")}
        self._host.client.post("/v1/devices/nic0/wires", wire)
        self._host.client.request("DELETE", "/v1/devices/nic0/wires/tapped")


def sound(host: Host) -> list[str]:
    """What is wrong; a role that is being started again may still be."""
    rows = host.rows()
    wrong = [f"{name}: {row['state']}" for name, row in rows.items() if row["state"] not in ("running", "stopped")]
    wrong += [f"{check['name']}: {check['detail']}" for check in host.failed_checks()]
    partitions = {row["name"] for row in host.resources()["partitions"]}
    return wrong + [f"{name}: only in one place" for name in partitions ^ (set(rows) - {"hostd", "keeper"})]


def await_sound(host: Host) -> None:
    found: list[str] = []

    def condition() -> bool:
        found[:] = sound(host)
        return not found

    host.until(condition, explain=lambda: (found, host.events()[-20:]))


def test_killed_at_any_moment(own: Host, seed: int, long: bool) -> None:
    generator = random.Random(seed)
    with Nursery() as nursery:
        own.start()
        works = [own.guest(path, **endpoints(path)).begin("work:verified", seed=n, pause=PAUSE)
                 for n, path in enumerate(PATHS)]  # fmt: skip
        before = {name: pid for name, pid in own.pids().items() if name in (*PATHS, "keeper", "nic0", "disk0")}
        adopted: list[float] = []
        for _ in range(KILLS_LONG if long else KILLS):
            busy = Busy(own, random.Random(generator.random()))
            time.sleep(generator.random() * BUSY_SECONDS)
            kill(own)
            busy.join()
            if generator.random() < 0.25:
                own.pid = nursery.start(own.paths, own.manifest)
                time.sleep(generator.random() * BOOT_SECONDS)
                kill(own)
            own.pid = nursery.start(own.paths, own.manifest)
            own.until(lambda: peer_pid(own.paths.api_socket) == own.pid, explain=own.paths.log.read_text)
            await_sound(own)
            assert before.items() <= own.pids().items()
            adopted += [event["seconds"] for event in own.events() if event["kind"] == "adopted"]
        assert [work.finish()["dropped"] for work in works] == [{}] * len(works)
        print(f"adopted within {statistics.median(adopted):.3f} s (median of {len(adopted)})")
        assert min(adopted) < ADOPTED_SECONDS
        own.remove_guests()
        assert own.unload()["same"]
        own.stop()


def test_killed_while_it_boots_loads_and_unloads(own: Host, seed: int, long: bool) -> None:
    """There are no guests then: the next one has the host as it was before or after, or a new one."""
    generator = random.Random(seed)
    with Nursery() as nursery:
        for number in range(STAGES_LONG if long else STAGES):
            own.pid = nursery.start(own.paths, own.manifest)
            if number % 2:  # otherwise it is killed while it boots, or takes over, or boots anew
                own.until(lambda: peer_pid(own.paths.api_socket) == own.pid, explain=own.paths.log.read_text)
            thread = threading.Thread(target=load_and_unload, args=(own,))
            thread.start()
            time.sleep(generator.random() * STAGE_SECONDS)
            kill(own)
            thread.join()
        own.pid = nursery.start(own.paths, own.manifest)
        own.until(lambda: peer_pid(own.paths.api_socket) == own.pid, explain=own.paths.log.read_text)
        await_sound(own)
        if own.status()["host"]["kernel"] == "not loaded":
            own.load()
        assert own.guest("guest", **endpoints("direct")).call("work:verified", seed=1, most=20)["rounds"] == 20
        own.stop()


def load_and_unload(host: Host) -> None:
    """Until the host is gone."""
    with suppress(HostError):
        host.until(lambda: peer_pid(host.paths.api_socket) is not None or not psutil.pid_exists(host.pid))
        while True:
            host.unload()
            host.load()

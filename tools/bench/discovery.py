"""hostctl bench discovery: what the first look at a function costs a guest, and what every later one does."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from hostd import hardware_region
from hostd.errors import HostError
from hostd.role_segments import statistics_size
from hostd.segments import create
from pyx import config_page
from pyx.abi import BUSES_MAX
from pyx.config import Faults
from pyx.statistics import initialize
from tools.bench.crew import LoadGuest, crew
from tools.bench.host import bench_host
from tools.measure.command import Run, benchmark
from tools.measure.turns import Case

SECONDS = 5.0
COUNT = 256  # functions of one look: a bus
OWN = 1 << 16 | 1  # id under which the benchmark's own process answers itself
BASELINE = "userfaultfd within one process"


@benchmark(seconds=SECONDS)
def command(run: Run) -> None:
    """Measure `fault_cost`: seconds that a guest's first look at one function takes, trap and answer by the monitor.

    The baseline is the same fault, answered by a thread of the same process. `look_cost` is a second look at the same
    functions: the page stays, and nothing traps.
    """
    with bench_host() as host, crew(host) as guests, answered_here() as region:
        guest = guests.start("finder", nics=[{"name": "eth0"}])
        run.describe(**host.describe(), verified="none of the functions is there, as the monitor says")
        run.in_turn(cases(guest, region))


def cases(guest: LoadGuest, region: config_page.Region) -> list[Case]:
    """For a benchmark that has a guest already; `region` is that of `answered_here`."""
    buses = {"guest": 0, "here": 0}

    def next_bus(who: str) -> int:
        """Pages beyond the budget are taken back, so that the first bus traps again after the last."""
        buses[who] = buses[who] % (BUSES_MAX - 1) + 1
        return buses[who] * COUNT

    def first(_seconds: float) -> float:
        return guest.call("discover", count=COUNT, first=next_bus("guest"))["first"]

    def again(_seconds: float) -> float:
        return guest.call("discover", count=COUNT, first=next_bus("guest"))["again"]

    def here(_seconds: float) -> float:
        page = next_bus("here")
        begin = time.perf_counter()
        region.there(page, COUNT)
        return (time.perf_counter() - begin) / COUNT

    return [
        Case("fault_cost", "seconds", first, {"functions": COUNT}, BASELINE, here),
        Case("look_cost", "seconds", again, {"functions": COUNT}),
    ]


@contextmanager
def answered_here() -> Iterator[config_page.Region]:
    """A configuration region of this process, whose faults a thread of it answers. HostError `unsupported` where the
    kernel cannot."""
    facts, handed = hardware_region.make()
    if not facts["traps"]:
        raise HostError("unsupported", f"no page faults to answer: {facts['missing']}")
    size = statistics_size("view")
    statistics = create("statistics", size, "bench")
    try:
        initialize(statistics, "view", 2)
        faults = Faults(statistics, size)
    finally:
        os.close(statistics)
    faults.attach(OWN, handed["userfault"], handed["region"])
    thread = threading.Thread(target=faults.run, daemon=True)
    thread.start()
    try:
        yield config_page.Region()
    finally:
        faults.stop()
        thread.join()
        faults.detach(OWN)
        for descriptor in handed.values():
            os.close(descriptor)

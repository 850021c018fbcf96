"""The standard sweep of `hostctl bench report`: what a paper about three paths would show.

One host with a null medium, all configurations alive at the same time and measured in turn: what saturates by path and
size, the latency of an open loop at one rate for all paths, and the stages of a lone request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tools.bench.crew import Crew, LoadGuest, crew
from tools.bench.flags import PATHS
from tools.bench.host import bench_host
from tools.bench.loads import DiskLoads, NetLoads, Window
from tools.bench.net import CAPACITY, copies
from tools.bench.results import LOAD, Shared, Stages, cpu_cases, latency_cases, stage_cases
from tools.measure.command import Run
from tools.measure.turns import Case, Measure

SIZES = (64, 1500, 65536)
BLOCK = 4096
LATENCY_SIZE = 1500
DEPTH = {"net": 256, "disk": 32}
BATCH = 64
DISK_SIZE = 16 << 20
#: dense enough for a curve; the last one is the largest seen
CURVE = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999, 1.0)


@dataclass
class Load:
    """One configuration: its guests, and how a window of it is taken."""

    kind: str
    path: str
    size: int
    net: NetLoads | None = None
    disk: DiskLoads | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        return {"load": self.kind, "path": self.path, "size" if self.kind == "net" else "block": self.size}

    @property
    def guests(self) -> Sequence[LoadGuest]:
        """Those that send requests."""
        if self.net is not None:
            return self.net.senders
        assert self.disk is not None
        return self.disk.guests

    def window(self, seconds: float, depth: int, **given: Any) -> Window:
        if self.net is not None:
            return self.net.window(seconds, size=self.size, depth=depth, batch=min(BATCH, depth), **given)
        assert self.disk is not None
        return self.disk.window(seconds, op="read", block=self.size, depth=depth, **given)


def measure(run: Run) -> None:
    with bench_host(medium="null") as host, crew(host) as guests:
        nets = [Load("net", path, size, net=NetLoads(guests, path, size)) for path in PATHS for size in SIZES]
        disks = [
            Load("disk", path, BLOCK, disk=DiskLoads(guests, path, DISK_SIZE, 256 * BLOCK)) for path in PATHS
        ]
        run.describe(
            **host.describe(), medium="null", batch=BATCH,
            verified="sender, sequence and check words of every frame; status and length of every completion",
        )  # fmt: skip
        few = [load for load in nets if load.size == LATENCY_SIZE] + disks
        run.in_turn(_saturated([*nets, *disks], run.seconds), 0.5)
        run.in_turn(_latencies(few, run.seconds), 0.3)
        run.in_turn(_lone(guests, few, run.seconds), 0.2)


def _saturated(loads: Sequence[Load], seconds: float) -> list[Case]:
    window = min(0.2, seconds * 0.5 / (len(loads) * 5))
    found: list[Case] = []
    for load in loads:
        depth = DEPTH[load.kind]
        shared = _shared(load, depth, cpu=True)
        parameters = {**load.parameters, "depth": depth}
        name, unit = ("rate", "frames/s") if load.kind == "net" else ("iops", "requests/s")
        base: Measure | None = None
        if load.kind == "net":
            base = copies(load.size, depth, CAPACITY, window / 4)
        found += [
            Case(name, unit, shared.first(lambda w: w.rate), parameters, window=window),
            Case("throughput", "bytes/s", shared.then(lambda w: w.throughput), parameters,
                 "memcpy" if base else None, base),
            *cpu_cases(shared, "nic0" if load.kind == "net" else "disk0", parameters),
        ]  # fmt: skip
    return found


def _latencies(loads: Sequence[Load], seconds: float) -> list[Case]:
    """At half of what the slowest path carries, so that all carry the same."""
    window = min(0.4, seconds * 0.3 / (len(loads) * 5))
    found: list[Case] = []
    for kind in ("net", "disk"):
        same = [load for load in loads if load.kind == kind]
        rate = round(LOAD * min(load.window(window, DEPTH[kind]).rate for load in same))
        for load in same:
            shared = _shared(load, 256, rate=rate)
            found += latency_cases(shared, {**load.parameters, "rate": rate}, window, CURVE)
    return found


def _lone(crew_of: Crew, loads: Sequence[Load], seconds: float) -> list[Case]:
    window = min(0.1, seconds * 0.2 / (len(loads) * 5))
    found: list[Case] = []
    for load in loads:
        stages = Stages(crew_of, load.guests)
        parameters = {**load.parameters, "depth": 1}
        found.append(Case("round_trip", "seconds", _staged(load, stages), parameters, window=window))
        found += stage_cases(stages, parameters)
    return found


def _staged(load: Load, stages: Stages) -> Measure:
    def measure(seconds: float) -> float:
        stages.start()
        found = load.window(seconds, 1, timed=True)
        stages.stop()
        histogram = found.completion or found.latency
        assert histogram is not None
        return histogram.quantile(0.5)

    return measure


def _shared(load: Load, depth: int, **given: Any) -> Shared:
    return Shared(lambda seconds: load.window(seconds, depth, **given))

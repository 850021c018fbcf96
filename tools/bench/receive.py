"""hostctl bench receive: frames into hosting buffers with hand-over by the monitor, and straight into guests' (A6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tools.bench import flags
from tools.bench.crew import Crew, crew
from tools.bench.host import bench_host
from tools.bench.loads import NetLoads, Window
from tools.bench.results import Shared, cpu_cases, window_of
from tools.measure.command import Run, benchmark
from tools.measure.turns import Case, Measure

SECONDS = 20.0
SIZES = (64, 1500)
BATCH, DEPTH = 64, 512
STRAIGHT = "direct"
RECEIVE = {"copy": "hosting buffers", STRAIGHT: "guest buffers"}  # by the receiver's path


@benchmark(seconds=SECONDS)
@flags.sizes(SIZES)
def command(run: Run, sizes: Sequence[int]) -> None:
    """Measure `rate` of frames that arrived, by where the device puts them, and what it costs.

    The sender is on the direct path both times. The receiver's frames go into buffers of its I/O partition, out of
    which the monitor copies them, or straight into its own. The baseline of the first is the second. `copied` is the
    part of the bytes that the host's copy counter saw: 1 and 0. `cpu_per_byte` as in `bench net`.
    """
    with bench_host() as host, crew(host) as guests:
        run.describe(
            **host.describe(), batch=BATCH,
            verified="sender, sequence and check words of every frame; lost, repeated, corrupt: 0",
        )  # fmt: skip
        cases: list[Case] = []
        for size in sizes:
            loads = {path: NetLoads(guests, STRAIGHT, size, receive=path) for path in RECEIVE}
            straight = windows(loads[STRAIGHT], size)
            for path, buffers in RECEIVE.items():
                parameters: dict[str, Any] = {"path": path, "receive": buffers, "size": size, "depth": DEPTH}
                copied = Copied(guests, loads[path], size)
                shared = Shared(copied.window)
                base: tuple[str | None, Measure | None] = (RECEIVE[STRAIGHT], straight)
                if path == STRAIGHT:
                    base = (None, None)
                cases += [
                    Case("rate", "frames/s", shared.first(lambda w: w.rate), parameters, *base, window_of(run)),
                    Case("throughput", "bytes/s", shared.then(lambda w: w.throughput), parameters),
                    Case("copied", "fraction", shared.then(copied.part), parameters),
                    *cpu_cases(shared, "nic0", parameters),
                ]
        run.in_turn(cases)


def windows(load: NetLoads, size: int) -> Measure:
    return lambda seconds: load.window(seconds, size=size, depth=DEPTH, batch=BATCH).rate


class Copied:
    """Windows of a load, beside the host's counter of copied bytes."""

    METRIC = "partvisor_host_copied_bytes_total"

    def __init__(self, guests: Crew, load: NetLoads, size: int) -> None:
        self._host = guests.host
        self._load, self._size = load, size
        self._bytes = 0.0

    def window(self, seconds: float) -> Window:
        before = self._read()
        found = self._load.window(seconds, size=self._size, depth=DEPTH, batch=BATCH, cpu=True)
        self._bytes = self._read() - before
        return found

    def part(self, window: Window) -> float:
        return self._bytes / window.bytes

    def _read(self) -> float:
        (series,) = self._host.metrics(self.METRIC).values()
        return sum(value for _, value in series)

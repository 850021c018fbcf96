"""What a running host holds: descriptors, threads, memory, segments, rows. For tests that nothing of it leaks."""

from __future__ import annotations

from dataclasses import dataclass

import psutil

from tests.framework.host import Host
from tools.chaos.holdings import Holdings, holdings


@dataclass(frozen=True)
class Footprint:
    """`memory` in bytes, of each process alone; everything else is a number of things."""

    held: Holdings
    series: int
    memory: dict[str, int]

    @staticmethod
    def of(host: Host) -> Footprint:
        pids = host.pids()
        series = host.metrics().samples.values()
        return Footprint(
            held=holdings(host.paths, pids),
            series=sum(map(len, series)),
            memory={name: psutil.Process(pid).memory_full_info().uss for name, pid in pids.items()},
        )

    def lasting(self) -> dict[str, object]:
        """All that must be the same again, exactly."""
        return {**self.held, "series": self.series}

    def growth(self, before: Footprint) -> dict[str, int]:
        return {name: size - before.memory[name] for name, size in self.memory.items()}

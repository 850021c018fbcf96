"""Runs the simulation of `tests/ring/share.c`: clients in a closed loop at one device, in virtual time."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

MS = 1_000_000
SECOND = 1_000_000_000
NONE = -1  # no limit


@dataclass(frozen=True)
class Flow:
    """A client: sizes in bytes (uniform from `least` to `most`), times in ns, rates per second, NONE: no limit.

    `period` and `burst` belong to both limits. The client is away for the first `away` of each `every`.
    """

    least: int
    most: int = 0
    depth: int = 32
    round_trip: int = 20_000
    weight: int = 100
    rate: int = NONE
    period: int = 100 * MS
    burst: int = 0
    operations: int = NONE
    start: int = 0
    away: int = 0
    every: int = SECOND

    def line(self) -> str:
        return " ".join(map(str, (
            self.least, max(self.most, self.least), self.depth, self.round_trip, self.weight, self.rate, self.period,
            self.burst, self.operations, self.start, self.away, self.every)))


@dataclass(frozen=True)
class Share:
    """What a client got: `warm_bytes` after the warming up, `gap` the most that others got between two of its turns."""

    bytes: int
    operations: int
    warm_bytes: int
    gap: int


def simulate(program: Path, flows: list[Flow], *, duration: int = SECOND, warm: int = 0, late: int = 0,
             rate: int = NONE, period: int = 100 * MS, operations: int = NONE, seed: int = 1) -> list[Share]:
    """`rate`, `period` and `operations` limit the whole device, which comes up to `late` ns late."""
    command = [str(program), "simulate", *map(str, (seed, duration, warm, late, rate, period, operations))]
    lines = "\n".join(flow.line() for flow in flows)
    done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, (done.returncode, done.stderr)
    return [Share(*map(int, line.split())) for line in done.stdout.splitlines()]

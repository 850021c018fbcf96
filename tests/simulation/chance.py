"""All that is left to chance, out of one seed: delays, and which faults happen where."""

from __future__ import annotations

import random

QUICK = 50e-6  # seconds, typical of a message
FAST = 0.001  # of a program that answers at once


class Chance:
    """`faults`: nothing bad happens while it is off. `kills`, `hangs`: probability at each step of a process."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.faults = False
        # Each seed has its own mixture: many small faults hide what one at the wrong moment does.
        self.kills = self.random.choice((0.0, 0.002, 0.005, 0.02))
        self.hangs = self.random.choice((0.0, 0.0, 0.002, 0.01))
        self.slow = self.random.choice((0.0, 0.01, 0.1))
        self.left = self.random.randint(1, 8)  # deaths that this seed may cause: budgets are not what is tested

    def delay(self) -> float:
        """Of a message."""
        return self.random.expovariate(1 / QUICK)

    def work(self) -> float:
        """Of a program, for one request."""
        if self.faults and self.random.random() < self.slow:
            return self.random.uniform(0.01, 3.0)
        return self.random.expovariate(1 / FAST)

    def kill(self) -> bool:
        return self.faults and self.left > 0 and self.random.random() < self.kills and self.spend()

    def hang(self) -> float:
        """Seconds that a process stands still now; 0: it does not."""
        if self.faults and self.random.random() < self.hangs:
            return self.random.choice((0.05, 0.4, 3.0))
        return 0.0

    def spend(self) -> bool:
        """One of the deaths that are left."""
        self.left -= 1
        return self.left >= 0

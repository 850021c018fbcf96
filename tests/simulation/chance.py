"""All that is left to chance, out of one seed: delays, and which faults happen where."""

from __future__ import annotations

import random

QUICK = 50e-6  # seconds, typical of a message
FAST = 0.001  # of a program that answers at once
LIVES = (0, 0, 0, 0, 1, 3)  # deaths of hostd that a seed may have
STEPS, NEXT_STEPS = 2000, 400  # of hostd, at the most, until the first one, and from one to the next
PULSES = (1.0, *[8.0] * 7)
LONG = 9.0  # seconds: longer than hostd waits for a role that hangs, at the quickest of the pulses (hostd/pulse.py)
DOWN = (0.05, 1.0)  # seconds until there is the next one: an interpreter has to start


class Chance:
    """`faults`: nothing bad happens while it is off. `kills`, `hangs`: probability at each step of a process."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.faults = False
        # Each seed has its own mixture: many small faults hide what one at the wrong moment does.
        self.kills = self.random.choice((0.0, 0.002, 0.005, 0.02))
        self.hangs = self.random.choice((0.0, 0.0, 0.002, 0.01))
        self.slow = self.random.choice((0.0, 0.01, 0.1))
        # hostd's deaths have a sequence of their own: without them a seed is what it is in a world without them.
        self._of_hostd = random.Random(f"hostd {seed}")
        self.lives = self._of_hostd.choice(LIVES)
        self._steps = self._of_hostd.randint(1, STEPS)
        # hostd's looks at the roles, in seconds: at those of a real host a seed takes twice as long, and few are enough
        # where nobody stands still for LONG.
        self.pulse = random.Random(f"pulse {seed}").choice(PULSES)
        self.left = self.random.randint(1, 8)  # deaths that this seed may cause: budgets are not what is tested

    def delay(self) -> float:
        """Of a message."""
        return self.random.expovariate(1 / QUICK)

    def work(self) -> float:
        """Of a program, for one request."""
        if self.faults and self.random.random() < self.slow:
            return self.random.uniform(0.01, 3.0)
        return self.random.expovariate(1 / FAST)

    def kill(self, share: float = 1.0) -> bool:
        return self.faults and self.left > 0 and self.random.random() < self.kills * share and self.spend()

    def hang(self) -> float:
        """Seconds that a process stands still now; 0: it does not."""
        if self.faults and self.random.random() < self.hangs:
            return self.random.choice((0.05, 0.4, 3.0, LONG))
        return 0.0

    def hostd_dies(self) -> bool:
        """At this step of hostd's."""
        if not self.faults or not self.lives:
            return False
        self._steps -= 1
        if self._steps > 0:
            return False
        self.lives -= 1
        self._steps = self._of_hostd.randint(1, NEXT_STEPS)
        return True

    def down(self) -> float:
        return self._of_hostd.uniform(*DOWN)

    def spend(self) -> bool:
        """One of the deaths that are left."""
        self.left -= 1
        return self.left >= 0

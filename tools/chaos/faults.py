"""What is done to whom, and when: a sequence that its seed alone decides.

The same seed, roles, kinds and count give the same sequence, whatever the host does meanwhile.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

KINDS = ("kill", "stop", "slow")
APART_MOST = 0.2  # seconds between the two of a pair (rules.md test 17)
BEFORE = (0.0, 0.1)  # seconds of undisturbed load before a fault, beside what the host needs to settle
#: seconds that a role is stopped, or slowed: some stops are shorter than the monitor's patience, some longer
LASTS = {"kill": (0.0, 0.0), "stop": (0.02, 0.5), "slow": (0.2, 0.6)}


@dataclass(frozen=True)
class Blow:
    """`after` seconds from the beginning of its fault; `lasts` is 0 for what cannot be taken back."""

    role: str
    kind: str
    after: float
    lasts: float


@dataclass(frozen=True)
class Fault:
    """One blow, or a pair. `before`: seconds of undisturbed load."""

    number: int
    before: float
    blows: tuple[Blow, ...]

    def document(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def name(self) -> str:
        return " + ".join(f"{blow.kind} {blow.role}" for blow in self.blows)


def sequence(seed: int, roles: Sequence[str], kinds: Sequence[str], count: int, pairs: bool) -> list[Fault]:
    """`count` rounds of one fault of each role and kind, each in a drawn order. With `pairs`, each has a second blow to
    another role."""
    draw = random.Random(f"{seed} {' '.join(roles)} {' '.join(kinds)} {count} {pairs}")
    each = [(role, kind) for role in roles for kind in kinds]
    firsts = [first for _ in range(count) for first in draw.sample(each, len(each))]
    faults = []
    for number, (role, kind) in enumerate(firsts):
        blows = [_blow(draw, role, kind, 0.0)]
        if pairs and len(roles) > 1:
            other = draw.choice([one for one in roles if one != role])
            blows.append(_blow(draw, other, draw.choice(kinds), draw.uniform(0.0, APART_MOST)))
        faults.append(Fault(number, round(draw.uniform(*BEFORE), 4), tuple(blows)))
    return faults


def _blow(draw: random.Random, role: str, kind: str, after: float) -> Blow:
    return Blow(role, kind, round(after, 4), round(draw.uniform(*LASTS[kind]), 4))

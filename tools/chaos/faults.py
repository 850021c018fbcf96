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
    """One blow, or several to different roles. `before`: seconds of undisturbed load."""

    number: int
    before: float
    blows: tuple[Blow, ...]

    def document(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def name(self) -> str:
        return " + ".join(f"{blow.kind} {blow.role}" for blow in self.blows)


def sequence(
    seed: int, roles: Sequence[str], kinds: Sequence[str], count: int, pairs: bool, together: int = 1
) -> list[Fault]:
    """`count` rounds of one blow of each kind to each role, in a drawn order, up to `together` of them in one fault.
    With `pairs`, each fault has one more blow, to another role."""
    draw = random.Random(f"{seed} {' '.join(roles)} {' '.join(kinds)} {count} {pairs} {together}")
    each = [(role, kind) for role in roles for kind in kinds]
    groups = [group for _ in range(count) for group in _grouped(draw.sample(each, len(each)), together)]
    faults: list[Fault] = []
    for group in groups:
        afters = [0.0, *(draw.uniform(0.0, APART_MOST) for _ in group[1:])]
        blows = [_blow(draw, role, kind, after) for (role, kind), after in zip(group, afters, strict=True)]
        others = [one for one in roles if all(one != blow.role for blow in blows)]
        if pairs and others:
            blows.append(_blow(draw, draw.choice(others), draw.choice(kinds), draw.uniform(0.0, APART_MOST)))
        faults.append(Fault(len(faults), round(draw.uniform(*BEFORE), 4), tuple(blows)))
    return faults


def _grouped(firsts: Sequence[tuple[str, str]], most: int) -> list[list[tuple[str, str]]]:
    """In their order, groups of different roles."""
    groups: list[list[tuple[str, str]]] = []
    for role, kind in firsts:
        free = (group for group in groups if len(group) < most and all(role != other for other, _ in group))
        group = next(free, None)
        if group is None:
            groups.append(group := [])
        group.append((role, kind))
    return groups


def _blow(draw: random.Random, role: str, kind: str, after: float) -> Blow:
    return Blow(role, kind, round(after, 4), round(draw.uniform(*LASTS[kind]), 4))

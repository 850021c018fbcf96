"""The real control plane under seeded faults: every promise is kept, whatever dies or hangs when (rules.md test 39).

A failing seed is told with the command that shows its story again.
"""

import os
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.simulation.defects import DEFECTS
from tests.simulation.story import Simulation, folder

SEEDS, SEEDS_LONG = 1_000, 100_000  # less than a tenth of a second of processor time each
SHOWN = 5  # failing seeds that are told
SEARCH = 100  # seeds in which a planted defect must be found
REPLAYED = (0, 1, 2, 20)  # hostd dies in the last one


@pytest.fixture(scope="module")
def simulation() -> Iterator[Simulation]:
    with folder() as base:
        yield Simulation(base)


def test_every_promise_is_kept(simulation: Simulation, long: bool) -> None:
    failed: list[str] = []
    calls: Counter[str] = Counter()
    deaths = given_up = of_hostd = 0
    seeds, at_once = (SEEDS_LONG, os.cpu_count() or 1) if long else (SEEDS, 1)  # other tests run beside it, or none
    for outcome in simulation.outcomes(range(seeds), at_once):
        calls.update(outcome.calls)
        deaths += outcome.deaths
        of_hostd += outcome.hostd
        given_up += outcome.given_up
        if outcome.faults:
            again = f"again: python -m tests.simulation {outcome.seed}"
            failed.append(f"seed {outcome.seed}: {'; '.join(outcome.faults)}\n  {again}")
            if len(failed) == SHOWN:
                break
    print(f"calls {dict(calls)}, deaths {deaths}, of hostd {of_hostd}")
    assert not failed, "\n".join(failed)
    assert calls["done"] > sum(calls.values()) // 4, "hardly a call was carried out"
    assert deaths > SEEDS, "hardly anything died"
    assert of_hostd > SEEDS // 10, "hostd hardly died"
    assert given_up < SEEDS // 4, "hardly anything was promised"


def test_a_seed_replays_identically(simulation: Simulation) -> None:
    """In the same base, and in one that was booted anew."""
    with folder() as base:
        again = Simulation(base)
        for seed in REPLAYED:
            first = simulation.run(seed)
            assert len(first.story) > 10
            assert simulation.run(seed).story == first.story == again.run(seed).story


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_is_found(simulation: Simulation, name: str) -> None:
    for seed in range(SEARCH):
        outcome = simulation.run(seed, DEFECTS[name])
        if outcome.faults:
            print(f"seed {seed}: {outcome.faults[0]}")
            return
    pytest.fail(f"{DEFECTS[name].why}: {SEARCH} seeds did not see it")

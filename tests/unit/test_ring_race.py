"""ring.h under ThreadSanitizer: two threads, random batches, sleep and wake (rules.md 36, test 38).

The payloads that `race.c` hands over are plain memory, ordered by the ring alone. Each mutant takes one ordering
away; ThreadSanitizer must report the payload (x86 alone would hide it: its stores and loads are in order anyway).
"""

from pathlib import Path

import pytest

from tests.framework.build import build_c, weakened
from tests.framework.run import Outcome, run

MESSAGES = 100_000
MESSAGES_LONG = 50_000_000  # about ten minutes
MESSAGES_MUTANT = 5_000_000  # a bound: most are reported within thousands, on a busy machine later
SANITIZED = ["-fsanitize=thread", "-DPV_RING_SEQ_CST"]
CHECKED = ["-DPV_RING_CHECKED"]  # slots by atomic words as well: a peer may look at any time
STATUS_RACE = 66
STATUS_WRONG_DATA = 2  # the program itself saw it before ThreadSanitizer did

MUTANTS = {
    "publication without release": [
        ("atomic_store_explicit(&p->ring->tail, p->tail, memory_order_seq_cst);",
         "atomic_store_explicit(&p->ring->tail, p->tail, memory_order_relaxed);")],
    "availability without acquire": [
        ("uint64_t tail = atomic_load_explicit(&c->ring->tail, memory_order_acquire);\n        if",
         "uint64_t tail = atomic_load_explicit(&c->ring->tail, memory_order_relaxed);\n        if")],
    "slots given back without release": [
        ("atomic_store_explicit(&c->ring->head, c->head, memory_order_release);",
         "atomic_store_explicit(&c->ring->head, c->head, memory_order_relaxed);")],
    "slots taken back without acquire": [
        ("uint64_t head = atomic_load_explicit(&p->ring->head, memory_order_acquire);",
         "uint64_t head = atomic_load_explicit(&p->ring->head, memory_order_relaxed);")],
    "slots given back before they are read": [
        ("    const uint64_t *from = c->slots +",
         "    c->ring->head = c->head + index + 1;\n    const uint64_t *from = c->slots +"),
    ],
}


def race(program: Path, messages: int, capacity: int, deadline: float = 300) -> Outcome:
    return run(program, messages, capacity, 12345, deadline=deadline,
               sanitizer_options=f"exitcode={STATUS_RACE} halt_on_error=1")


@pytest.mark.parametrize("flags", [[], CHECKED], ids=["plain slots", "atomic slots"])
@pytest.mark.parametrize("capacity", [2, 64])
def test_no_race_and_no_stall(flags: list[str], capacity: int, build_dir: Path, long: bool) -> None:
    program = build_c(["ring/race.c"], SANITIZED + flags, into=build_dir)
    messages = MESSAGES_LONG if long else MESSAGES
    outcome = race(program, messages, capacity, deadline=36000 if long else 300)
    assert outcome.status == 0, outcome
    assert outcome.values()["messages"] == messages
    assert outcome.values()["sleeps"] > messages // 1000, "hardly anybody slept: sleep and wake were not tested"


@pytest.mark.parametrize("name", MUTANTS)
def test_weakened_copy_is_a_race(name: str, build_dir: Path) -> None:
    headers = weakened(build_dir, "ring.h", MUTANTS[name])
    program = build_c(["ring/race.c"], SANITIZED, into=build_dir, headers=headers)
    outcome = race(program, MESSAGES_MUTANT, 8)
    assert outcome.status in (STATUS_RACE, STATUS_WRONG_DATA), f"not caught: {outcome}"


@pytest.mark.parametrize("flags", [[], ["-DPV_RING_SEQ_CST"], ["-fsanitize=address,undefined"]],
                         ids=["membarrier", "seq_cst", "address sanitizer"])
def test_data_arrives_in_order(flags: list[str], build_dir: Path) -> None:
    program = build_c(["ring/race.c"], flags, into=build_dir)
    outcome = race(program, 200_000, 32)
    assert outcome.status == 0, outcome

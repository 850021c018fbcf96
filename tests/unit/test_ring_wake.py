"""Sleep and wake of ring.h, on the processor itself: no wake-up is ever lost (rules.md 16, 36, test 40).

`wake.c` parks without a timeout, so one lost wake-up is a stall. Each mutant is the production header with one
line weakened; the same program must stall on it.
"""

import os
from pathlib import Path

import pytest

from tests.framework.build import HEADERS, build_c, weakened
from tests.framework.processors import needs_two
from tests.framework.run import Outcome, run

SYMMETRIC, MEMBARRIER = 1, 0
HANDOFFS = {SYMMETRIC: 1_000_000, MEMBARRIER: 300_000}  # the sleeper's membarrier takes 10 us beside a running peer
HANDOFFS_LONG = 100_000_000
HANDOFFS_LEAST = 20_000  # what a busy machine must do within SECONDS; a quiet one does all
SECONDS, SECONDS_LONG = 8, 36_000
HANDOFFS_MUTANT = 5_000_000  # a bound: the mutants below stall after some thousands
#: pauses of up to 2^bits between meeting and acting: what covers the steps of falling asleep in each mode
BITS = {SYMMETRIC: 6, MEMBARRIER: 10}
TICKS_PER_SECOND = 100

FENCE = "syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0);"
MUTANTS = {
    "no look at the ring after the announcement": (
        SYMMETRIC,
        [("return !c->broken && atomic_load_explicit(&c->ring->tail, memory_order_seq_cst) != c->head;",
          "(void)c; return false;")],
    ),
    "producer's store and load not sequentially consistent": (
        SYMMETRIC,
        [("    if (PV_SYMMETRIC(p->symmetric)) {\n", "    if (0) {\n"),
         ("PV_SYMMETRIC(p->symmetric) ? memory_order_seq_cst : memory_order_relaxed", "memory_order_relaxed")],
    ),
    "announcement is a plain store": (
        SYMMETRIC,
        [("&doorbell->sleeping, 1, memory_order_seq_cst", "&doorbell->sleeping, 1, memory_order_relaxed")],
    ),
    "producer looks for a sleeper before it publishes": (
        SYMMETRIC,
        [("    p->published = p->tail;\n    if", "    p->published = p->tail;\n    pv_producer_wake(p);\n    if"),
         ("    }\n    pv_producer_wake(p);\n}", "    }\n}")],
    ),
    "word not advanced with the wake-up": (
        SYMMETRIC, [("    atomic_fetch_add_explicit(&doorbell->word, 1, memory_order_seq_cst);\n", "")],
    ),
    "sleeper without membarrier": (
        MEMBARRIER, [(FENCE, "{}")],
    ),
    "membarrier after the last look": (
        MEMBARRIER,
        [(FENCE, "{}"),
         ("    return syscall(SYS_futex, &doorbell->word, FUTEX_WAIT, word",
          FENCE + "\n    return syscall(SYS_futex, &doorbell->word, FUTEX_WAIT, word")],
    ),
}


pytestmark = [needs_two, pytest.mark.alone]


def litmus(program: Path, handoffs: int, mode: int, *, stall_seconds: float, seconds: int) -> Outcome:
    processors = sorted(os.sched_getaffinity(0))
    return run(program, handoffs, mode, processors[0], processors[-1], BITS[mode], os.getpid(),
               int(stall_seconds * TICKS_PER_SECOND), seconds, deadline=2 * seconds + 60)


@pytest.mark.parametrize("mode", [SYMMETRIC, MEMBARRIER], ids=["seq_cst", "membarrier"])
def test_no_wake_up_is_lost(mode: int, build_dir: Path, long: bool) -> None:
    handoffs = HANDOFFS_LONG if long else HANDOFFS[mode]
    program = build_c(["ring/wake.c"], into=build_dir)
    outcome = litmus(program, handoffs, mode, stall_seconds=1, seconds=SECONDS_LONG if long else SECONDS)
    assert outcome.status == 0, outcome
    parks = outcome.values()["parks"]
    assert parks >= (HANDOFFS_LONG if long else HANDOFFS_LEAST)
    assert outcome.values()["sleeps"] > parks // 1000, "the sleeper hardly ever slept: the race was not reached"


@pytest.mark.parametrize("name", MUTANTS)
def test_weakened_copy_stalls(name: str, build_dir: Path) -> None:
    mode, replacements = MUTANTS[name]
    headers = weakened(build_dir, "ring.h", replacements)
    assert headers != HEADERS
    program = build_c(["ring/wake.c"], into=build_dir, headers=headers)
    outcome = litmus(program, HANDOFFS_MUTANT, mode, stall_seconds=0.3, seconds=SECONDS)
    assert outcome.values().get("stalled") == 1, f"not caught: {outcome}"

"""hostctl bench ring: one ring between two processes, against an ideal ring in C."""

import os

from tools.measure.command import Run, benchmark
from tools.measure.turns import Case, Measure

BATCHES = (32, 1)
SECONDS = 10.0


@benchmark(seconds=SECONDS)
def command(run: Run) -> None:
    """Measure the shipped ring against an ideal ring in C, in turn, in the same memory.

    Two processes on two processors (on one, where there is no second). `throughput`: messages of 64 bytes, published
    in batches, with the wake-up protocol on. `throughput_polling`: without it. `round_trip`: one message there and
    back.
    """
    from pyx.bench import RING_CAPACITY, RingPair

    processors = sorted(os.sched_getaffinity(0))
    here, there = processors[0], processors[-1]
    run.describe(
        placement=[here, there], slots=RING_CAPACITY, slot_bytes=64, idle="256 pauses, then yield, then sleep",
        wake_up="membarrier by the sleeper", verified="number and order of every message",
    )
    with RingPair(here, there) as pair:

        def rate(kind: str, batch: int) -> Measure:
            def measure(seconds: float) -> float:
                messages, taken, _, _ = pair.window(kind, batch, seconds)
                return messages / taken

            return measure

        def bounce(kind: str) -> Measure:
            def measure(seconds: float) -> float:
                messages, taken, _, _ = pair.window(kind, 1, seconds, bounce=True)
                return taken / messages

            return measure

        streams = [
            Case(name, "requests/s", rate(kind, batch), {"batch": batch}, "ideal ring", rate("ideal", batch))
            for name, kind in (("throughput", "waking"), ("throughput_polling", "polling"))
            for batch in BATCHES
        ]
        run.in_turn([*streams, Case("round_trip", "seconds", bounce("waking"), {}, "ideal ring", bounce("ideal"))])

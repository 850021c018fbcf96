"""share.h: fair queueing between the flows of a device (U11), with clients as in a closed loop.

`tests/ring/share.c` simulates a device's loop in virtual time, so every figure here is exact and repeatable. Each check
is run against the shipped header, and against weakened copies, of which each must fail the check that it names.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.framework.build import build_c, weakened
from tests.framework.share_runner import MS, NONE, SECOND, Flow, simulate

KIB = 1024
LAG = 256 * KIB  # PV_SHARE_LAG_BYTES
LAG_LIMITED = 400_000_000 // 100  # of a device with that limit: PV_SHARE_LAG_NS
FAST = 5_000_000_000  # bytes per second of the simulated device without a limit: 0.2 ns a byte


@pytest.fixture(scope="module")
def program(build_dir: Path) -> Path:
    return build_c(["ring/share.c"], ["-fsanitize=address,undefined", "-fno-sanitize-recover"], into=build_dir)


def within(value: float, expected: float, part: float) -> bool:
    return abs(value - expected) <= part * expected


def equal_bytes_for_large_and_small(program: Path) -> None:
    """64 KiB and 512 B, both depth 32 and a round trip of 20 us, device of 400 MB/s that may come 60 us late."""
    for late in (0, 1_000, 10_000, 60_000):
        large, small = simulate(program, [Flow(64 * KIB), Flow(512)], rate=400_000_000, late=late, warm=SECOND // 10)
        assert within(small.warm_bytes, large.warm_bytes, 0.05), (late, large, small)
        assert within(large.bytes + small.bytes, 400_000_000, 0.02), (late, large, small)


def equal_bytes_for_a_client_that_pauses(program: Path) -> None:
    """A client that is away for 80 us of each 150 us, and fast enough otherwise, loses nothing: it catches up."""
    pauses = Flow(8 * KIB, depth=16, round_trip=5_000, away=80_000, every=150_000)
    bulk, pausing = simulate(program, [Flow(64 * KIB), pauses])
    assert within(pausing.bytes, bulk.bytes, 0.05), (bulk, pausing)


def equal_bytes_for_many(program: Path) -> None:
    """Seven small writers and a large one: each an eighth."""
    flows = [Flow(64 * KIB), *[Flow(size) for size in (64, 512, 700, 1500, 4096, 9000, 16384)]]
    shares = simulate(program, flows, rate=400_000_000, late=5_000)
    small = shares.pop(1)  # 64 B costs 64 B, and depth 32 in 20 us is 102 MB/s at most: enough for an eighth
    assert all(within(one.bytes, small.bytes, 0.05) for one in shares), (small, shares)


def weights_one_two_four(program: Path) -> None:
    for sizes in ((4096, 4096, 4096), (64 * KIB, 1500, 512), (512, 1500, 64 * KIB)):
        flows = [Flow(size, depth=256, weight=weight) for size, weight in zip(sizes, (50, 100, 200), strict=True)]
        one, two, four = simulate(program, flows, rate=400_000_000)
        assert within(two.bytes, 2 * one.bytes, 0.02), (sizes, one, two)
        assert within(four.bytes, 4 * one.bytes, 0.02), (sizes, one, four)


def tiny_requests_cost_their_minimum(program: Path) -> None:
    """14 B frames are charged as 64 B: a flow of them gets the same number of requests as one of 64 B frames."""
    tiny, small = simulate(program, [Flow(14, depth=4000, round_trip=1000), Flow(64, depth=4000, round_trip=1000)])
    assert within(tiny.operations, small.operations, 0.02), (tiny, small)


def limits_are_met(program: Path) -> None:
    """Asked rates, alone and beside a flow without limits, all sizes, with a device that comes up to 2 ms late."""
    for period in (MS, 10 * MS, 100 * MS, SECOND):
        for least, most in ((512, 512), (64, 64 * KIB), (64 * KIB, 64 * KIB), (KIB, 1024 * KIB)):
            for late in (0, 2 * MS):
                flow = Flow(least, most, depth=4000, rate=50_000_000, period=period)
                beside, other = simulate(program, [flow, Flow(4096)], duration=2 * SECOND, late=late)
                alone, = simulate(program, [flow], duration=2 * SECOND, late=late)
                ahead = 64 * KIB + most + 2 * MS * 50_000_000 // SECOND  # a budget, a request, the last delay
                for one in (beside, alone):
                    assert abs(one.bytes - 2 * 50_000_000) <= 0.001 * 2 * 50_000_000 + ahead, (period, most, late, one)
                assert other.bytes > 0.5 * 2 * FAST, other


def limits_of_operations_are_met(program: Path) -> None:
    for period in (MS, SECOND):
        limited, _other = simulate(program, [Flow(64, 9000, operations=20_000, period=period), Flow(4096)])
        assert abs(limited.operations - 20_000) <= 10, (period, limited)


def rates_above_the_share_do_not_help(program: Path) -> None:
    """Limits of 300 MB/s each on a device of 400 MB/s: half each. One of 100 MB/s: the other has the rest."""
    one, two = simulate(program, [Flow(4096, rate=300_000_000), Flow(64 * KIB, rate=300_000_000)], rate=400_000_000)
    assert within(one.bytes, two.bytes, 0.05), (one, two)
    one, two = simulate(program, [Flow(4096, rate=100_000_000), Flow(64 * KIB)], rate=400_000_000)
    assert within(one.bytes, 100_000_000, 0.01) and within(two.bytes, 300_000_000, 0.01), (one, two)


def blocked_flow_gets_nothing(program: Path) -> None:
    for limits in ({"rate": 0, "burst": 1 << 20}, {"operations": 0}):
        blocked, other = simulate(program, [Flow(4096, **limits), Flow(4096)])
        assert (blocked.bytes, blocked.operations) == (0, 0)
        assert other.bytes > 0.5 * FAST
    assert [one.bytes for one in simulate(program, [Flow(64), Flow(4096)], rate=0)] == [0, 0]


def burst_is_had_once(program: Path) -> None:
    """The burst at the start alone; after a pause of a half second what accrued in it, at most a period's worth."""
    for period in (MS, 100 * MS, SECOND):
        for start in (0, 400 * MS):
            flow = Flow(4096, rate=10_000_000, period=period, burst=5_000_000, start=start)
            one, = simulate(program, [flow], duration=start + SECOND)
            idle = min(start, period) * 10_000_000 // SECOND
            assert abs(one.bytes - 15_000_000 - idle) <= 2 * 64 * KIB, (period, start, one)
        flow = Flow(4096, rate=10_000_000, period=period, burst=5_000_000, start=500 * MS, away=500 * MS)
        one, = simulate(program, [flow], duration=3 * SECOND)  # three pauses of a half second and the time between them
        idle = min(500 * MS, period) * 10_000_000 // SECOND
        assert abs(one.bytes - 5_000_000 - 3 * (5_000_000 + idle)) <= 4 * 64 * KIB, (period, one)


def unlimited_flow_has_the_device(program: Path) -> None:
    alone, = simulate(program, [Flow(64 * KIB)])
    assert alone.bytes > 0.95 * FAST
    limited, = simulate(program, [Flow(64 * KIB)], rate=400_000_000)
    assert within(limited.bytes, 400_000_000, 0.001)


def idle_flow_has_no_more_than_the_credit(program: Path) -> None:
    """Whoever comes after a second of silence holds up the others for the credit and its share, no longer."""
    for size in (512, 4096, 64 * KIB):
        for rate, lag in ((400_000_000, LAG_LIMITED), (NONE, LAG)):
            flows = [Flow(4096, depth=256), Flow(size, depth=4000, start=SECOND)]
            busy, _late = simulate(program, flows, duration=SECOND + 40 * MS, rate=rate)
            assert busy.gap <= lag + 64 * KIB + size, (size, busy)


def nobody_starves(program: Path) -> None:
    """A backlogged flow waits at most for what it had itself, and a quantum, a request and a credit of each other."""
    sizes = [64, 512, 1500, 4096, 64 * KIB, 1024 * KIB]
    flows = [Flow(64, size, depth=64, round_trip=trip) for size in sizes for trip in (5_000, 300_000)]
    others = sum(flow.most + 16 * KIB + LAG for flow in flows)
    for seed in range(1, 6):
        shares = simulate(program, flows, seed=seed, duration=SECOND // 4)
        for flow, one in zip(flows, shares, strict=True):
            own = (flow.most + 64 * KIB) * (len(flows) - 1)  # the others catch up with its last service
            assert one.operations > 0 and one.gap <= own + others, (flow, one)


def who_keeps_his_turn_keeps_nothing_else(program: Path) -> None:
    """A client that asks for 64 B every 150 us is always behind and always expected: the device's rate stays."""
    flows = [Flow(64 * KIB), Flow(64, depth=1, round_trip=150_000)]
    bulk, slow = simulate(program, flows, rate=400_000_000, warm=SECOND // 10)  # by then the device has saved up
    assert within(bulk.warm_bytes, 400_000_000 * 9 // 10, 0.01), bulk
    assert slow.operations > 3_000, slow


CHECKS = [
    equal_bytes_for_large_and_small, equal_bytes_for_a_client_that_pauses, equal_bytes_for_many, weights_one_two_four,
    tiny_requests_cost_their_minimum, limits_are_met, limits_of_operations_are_met, rates_above_the_share_do_not_help,
    blocked_flow_gets_nothing, burst_is_had_once, unlimited_flow_has_the_device, idle_flow_has_no_more_than_the_credit,
    nobody_starves, who_keeps_his_turn_keeps_nothing_else,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_shipped_header(check: Callable[[Path], None], program: Path) -> None:
    check(program)


@dataclass(frozen=True)
class Mutant:
    """`old` becomes `new` in `header`, and `caught_by` must see it."""

    old: str
    new: str
    caught_by: Callable[[Path], None]
    header: str = "share.h"


MUTANTS = {
    "no bound of the credit": Mutant("if (flow->start < least)", "if (false)", idle_flow_has_no_more_than_the_credit),
    "lag forgotten": Mutant("(pv_tag)pv_share_lag(share) * flow->inverse", "0",
                            equal_bytes_for_a_client_that_pauses),
    "weight ignored": Mutant("flow->inverse = ((1ull << 32) + weight / 2) / weight;", "flow->inverse = 1ull << 25;",
                             weights_one_two_four),
    "requests counted, not bytes": Mutant("(bytes > least ? bytes : least)", "least", equal_bytes_for_large_and_small),
    "no minimum cost": Mutant("(bytes > least ? bytes : least)", "bytes", tiny_requests_cost_their_minimum),
    "round robin": Mutant("flow->start += ", "flow->start += (pv_tag)1 + 0 * ", weights_one_two_four),
    "greatest tag first": Mutant("flow->start < best->start", "flow->start > best->start", nobody_starves),
    "first come first": Mutant("|| flow->start < best->start", "", nobody_starves),
    "virtual time stands still": Mutant("share->now = best->start;", ";", idle_flow_has_no_more_than_the_credit),
    "turn not kept": Mutant("if (pv_share_holds(share, best, now))", "if (false)", equal_bytes_for_large_and_small),
    "turn kept without end": Mutant("!pv_bucket_rich(&share->bytes, PV_SHARE_HOLD_NS)", "true",
                                    who_keeps_his_turn_keeps_nothing_else),
    "quantum without end": Mutant("active_count > 1 ? flow->quantum : PV_SHARE_QUANTUM_MAX", "1ull << 40",
                                  idle_flow_has_no_more_than_the_credit),
    "limits of flows ignored": Mutant("wait = pv_share_wait(&flow->bytes, &flow->operations, now);", "wait = 0;",
                                      limits_are_met),
    "operations ignored": Mutant("return a > b ? a : b;", "return a;", limits_of_operations_are_met),
    "budget beyond the buckets": Mutant("pv_bucket_room(&share->bytes, pv_bucket_room(&flow->bytes, bytes))",
                                        "1u << 24", limits_are_met),
    "device's limit ignored": Mutant("pv_bucket_take(&share->bytes, bytes);", "", unlimited_flow_has_the_device),
    "debt forgotten": Mutant("b->level -= taken;", "b->level = b->level > taken ? b->level - taken : 0;",
                             limits_are_met, "bucket.h"),
    "burst refilled": Mutant("b->burst = taken < b->burst ? b->burst - taken : 0;", "", burst_is_had_once, "bucket.h"),
    "burst forgotten": Mutant("b->level = b->burst = burst * PV_TOKEN;", "{}", burst_is_had_once, "bucket.h"),
    "burst although blocked": Mutant("if (rate)\n", "", blocked_flow_gets_nothing, "bucket.h"),
    "starts full": Mutant("if (rate)\n", "b->level = b->capacity; if (0)\n", limits_are_met, "bucket.h"),
    "no capacity": Mutant("b->level = accrued < ceiling - b->level ? b->level + accrued : ceiling;",
                          "b->level += accrued;", burst_is_had_once, "bucket.h"),
    "late tokens lost": Mutant("b->waited = true;", "", limits_are_met, "bucket.h"),
    "blocked is unlimited": Mutant("b->level > 0", "b->level > 0 || b->rate == 0", blocked_flow_gets_nothing,
                                   "bucket.h"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_weakened_copy_is_caught(name: str, build_dir: Path) -> None:
    mutant = MUTANTS[name]
    headers = weakened(build_dir, mutant.header, [(mutant.old, mutant.new)])
    program = build_c(["ring/share.c"], ["-Wno-unused"], into=build_dir, headers=headers)
    with pytest.raises(AssertionError):
        mutant.caught_by(program)

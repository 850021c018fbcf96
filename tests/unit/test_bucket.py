"""bucket.h against exact rational arithmetic: rates up to 1e12 per second, pauses of years, any amounts and polls."""

import subprocess
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.framework.build import build_c, weakened

MS = 1_000_000
SECOND = 1_000_000_000
YEAR = 365 * 24 * 3600 * SECOND
LATE = 100 * MS  # PV_BUCKET_LATE_NS
NEVER = (1 << 64) - 1
TICK = Fraction(1, SECOND)

Script = list[tuple[str, int]]


class Bucket:
    """The oracle: tokens as fractions, and nothing optimized. Times in ns, rates per second."""

    def __init__(self, rate: int, period: int, burst: int, now: int) -> None:
        self.rate, self.now, self.waited = Fraction(rate), now, False
        self.capacity = max(Fraction(rate) * period * TICK, Fraction(1))
        self.burst = Fraction(burst if rate else 0)
        self.level = self.burst

    def wait(self, now: int) -> int:
        most = max(self.capacity, self.rate * LATE * TICK) if self.waited else self.capacity
        self.level = max(self.level, min(self.level + self.rate * (now - self.now) * TICK, most + self.burst))
        self.now = now
        if self.level > 0:
            return 0
        self.waited = True
        return min(int(-self.level / (self.rate * TICK)) + 1, NEVER - 1) if self.rate else NEVER

    def take(self, amount: int) -> None:
        self.level -= amount
        self.burst = max(Fraction(0), self.burst - amount)
        self.waited = False

    def room(self, most: int) -> int:
        return min(most, max(0, -int(-self.level // 1)))


def lines(rate: int, period: int, burst: int, script: Script) -> tuple[str, list[int]]:
    """The program's input for a script of pauses and amounts, and the oracle's answers to it.

    Each step asks at the end of its pause, waits as long as it is told if that is below a year, and takes the amount.
    """
    oracle = Bucket(rate, period, burst, 0)
    now, text, answers = 0, [f"set {rate} {period} {burst} 0"], []
    for kind, number in script:
        if kind == "pause":
            now += number
            text.append(f"wait {now}")
            answers.append(oracle.wait(now))
            if 0 < answers[-1] < YEAR:
                now += answers[-1]
                text.append(f"wait {now}")
                answers.append(oracle.wait(now))
        elif oracle.level > 0:
            text += [f"room {1 << 20}", f"take {number}"]
            answers.append(oracle.room(1 << 20))
            oracle.take(number)
    return "\n".join(text), answers


def answers_of(program: Path, text: str) -> list[int]:
    done = subprocess.run([program, "bucket"], input=text, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [int(line) for line in done.stdout.split()]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("pause"),
                  st.one_of(st.integers(0, 10), st.integers(0, 2 * SECOND), st.integers(0, 4 * YEAR))),
        st.tuples(st.just("take"), st.one_of(st.integers(0, 10), st.integers(0, 1 << 20), st.integers(0, 1 << 40)))),
    max_size=60)
RATES = st.one_of(st.integers(0, 10), st.integers(0, 10**9), st.integers(0, 10**12))


@pytest.fixture(scope="module")
def program(build_dir: Path) -> Path:
    return build_c(["ring/share.c"], ["-fsanitize=address,undefined", "-fno-sanitize-recover"], into=build_dir)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rate=RATES, period=st.integers(MS, SECOND), burst=st.one_of(st.just(0), st.integers(0, 1 << 40)), script=STEPS)
@example(rate=10**12, period=SECOND, burst=1 << 40, script=[("pause", 99 * YEAR), ("take", 1 << 40)] * 3)
@example(rate=1, period=MS, burst=0, script=[("pause", 1), ("take", 1 << 40), ("pause", YEAR), ("take", 1)])
def test_agrees_with_exact_arithmetic(program: Path, rate: int, period: int, burst: int, script: Script) -> None:
    text, answers = lines(rate, period, burst, script)
    assert answers_of(program, text) == answers


def test_zeroed_is_unlimited(program: Path) -> None:
    assert answers_of(program, "wait 0\nroom 77\ntake 1000000\nwait 0\nroom 77\n") == [0, 77, 0, 77]


def test_highest_rate_is_bounded(program: Path) -> None:
    """A rate beyond every device neither overflows nor blocks."""
    text = f"set {NEVER} {SECOND} {NEVER} 0\nwait {NEVER - 1}\ntake {NEVER}\nwait {NEVER}\n"
    assert answers_of(program, text) == [0, 0]


MUTANTS = {
    "debt forgotten": ("b->level -= taken;", "b->level = b->level > taken ? b->level - taken : 0;"),
    "burst refilled": ("b->burst = taken < b->burst ? b->burst - taken : 0;", ""),
    "burst although blocked": ("if (rate)\n", ""),
    "64 bits": ("pv_tokens accrued = (pv_tokens)b->rate * (now - b->time);",
                "pv_tokens accrued = (int64_t)(b->rate * (now - b->time));"),
    "no capacity": ("b->level = accrued < ceiling - b->level ? b->level + accrued : ceiling;", "b->level += accrued;"),
    "kept tokens lost": ("if (b->level < ceiling)", "if (true)"),
    "a nanosecond early": ("-b->level / (pv_tokens)b->rate + 1;", "-b->level / (pv_tokens)b->rate;"),
    "waits for ever": ("b->waited = false;", ""),
    "no wait is known": ("b->waited = true;", ""),
    "less than one token": ("capacity > PV_TOKEN ? capacity : PV_TOKEN", "capacity"),
    "room rounded down": ("(b->level + PV_TOKEN - 1) / PV_TOKEN", "b->level / PV_TOKEN"),
}
#: scripts that together meet every rule: (rate, period, burst, steps)
CASES: list[tuple[int, int, int, Script]] = [
    (1000, MS, 0, [("pause", SECOND), ("take", 5), ("pause", 0), ("take", 1), ("pause", SECOND), ("take", 1),
                   ("pause", 0)]),
    (1_000_000, 10 * MS, 500, [("pause", 0), ("take", 700), ("pause", 0), ("pause", SECOND), ("take", 1),
                               ("pause", SECOND), ("take", 1 << 20), ("pause", SECOND), ("take", 20_000), ("pause", 0),
                               ("take", 1)]),
    (10, MS, 0, [("pause", SECOND), ("take", 1), ("pause", 0), ("take", 3), ("pause", 7), ("take", 1)]),
    (0, SECOND, 100, [("pause", 5), ("take", 1), ("pause", YEAR)]),
    (10**12, SECOND, 0, [("pause", 10 * YEAR), ("take", 1 << 40), ("pause", 3), ("take", 1), ("pause", 1),
                         ("take", 7)]),
    (1_000_000, MS, 0, [("pause", 1), ("take", 10_000), ("pause", 0), ("pause", 50 * MS), ("take", 1),
                        ("pause", 30 * MS), ("take", 1 << 20)]),
]


def test_cases_agree(program: Path) -> None:
    for case in CASES:
        text, answers = lines(*case)
        assert answers_of(program, text) == answers, case


@pytest.mark.parametrize("name", MUTANTS)
def test_weakened_copy_disagrees(name: str, build_dir: Path) -> None:
    headers = weakened(build_dir, "bucket.h", [MUTANTS[name]])
    mutant = build_c(["ring/share.c"], ["-Wno-unused"], into=build_dir, headers=headers)
    assert any(answers_of(mutant, text) != answers for text, answers in (lines(*case) for case in CASES)), "not caught"

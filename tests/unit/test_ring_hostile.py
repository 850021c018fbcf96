"""Hostile indices: 1,000 values on each side of a ring, checked against arithmetic modulo 2^64 (rules.md test 12).

An index that jumped breaks this queue for good, offers at most the ring's capacity before it, and leaves other
queues alone. The program runs under the address sanitizer, with the ring between two pages without access.
"""

import random
import subprocess
from pathlib import Path

import pytest

from tests.framework.build import build_c, weakened

CAPACITY = 64
HONEST = 5  # messages in the ring when the peer begins to lie
VALUES = 1000
WRAP = 1 << 64
STARTS = [0, 1000, WRAP - 3, WRAP // 2]


def hostile_values(start: int) -> list[int]:
    """Around every border of what is believed, powers of two and their neighbours, and random ones."""
    borders = [0, start, start + HONEST, start + CAPACITY, start - CAPACITY, 1 << 31, 1 << 32, 1 << 63, WRAP]
    values = [(border + step) % WRAP for border in borders for step in range(-12, 13)]
    values += [(start + (1 << power) + step) % WRAP for power in range(64) for step in (-1, 0, 1)]
    generator = random.Random(start)
    return values + [generator.getrandbits(64) for _ in range(VALUES - len(values))]


def expected_consumer(start: int, value: int) -> tuple[int, int, int, int]:
    offered = (value - start) % WRAP
    return (offered, 0, 1, 1) if offered <= CAPACITY else (0, 1, 0, 1)


def expected_producer(start: int, value: int) -> tuple[int, int, int, int]:
    taken = (value - start) % WRAP
    return (CAPACITY - HONEST + taken, 0, CAPACITY, 1) if taken <= HONEST else (0, 1, 0, 1)


EXPECTED = {"consumer": expected_consumer, "producer": expected_producer}


def answers(program: Path, side: str, start: int, values: list[int]) -> list[tuple[int, ...]]:
    done = subprocess.run([program, side, str(CAPACITY), str(start), str(HONEST)], capture_output=True, text=True,
                          input="\n".join(f"{value:x}" for value in values), timeout=60)
    assert done.returncode == 0, done.stderr
    return [tuple(map(int, line.split())) for line in done.stdout.splitlines()]


def disagreements(program: Path, side: str, start: int) -> list[str]:
    values = hostile_values(start)
    assert len(values) == VALUES
    got = answers(program, side, start, values)
    assert len(got) == VALUES
    return [f"index {value:#x}: {one}, expected {EXPECTED[side](start, value)}"
            for value, one in zip(values, got, strict=True) if one != EXPECTED[side](start, value)]


@pytest.fixture(scope="module")
def program(build_dir: Path) -> Path:
    return build_c(["ring/hostile.c"], ["-fsanitize=address,undefined", "-fno-sanitize-recover"], into=build_dir)


@pytest.mark.parametrize("start", STARTS, ids=hex)
@pytest.mark.parametrize("side", EXPECTED)
def test_hostile_index(program: Path, side: str, start: int) -> None:
    assert disagreements(program, side, start) == []


MUTANTS = {
    "capacity not compared": ("consumer", [("if (tail - c->head > c->capacity)", "if (false)")]),
    "one slot too many": ("consumer", [("if (tail - c->head > c->capacity)", "if (tail - c->head > c->capacity + 1)")]),
    "broken queue recovers": ("consumer", [("return c->broken ? 0 : (uint32_t)(c->tail - c->head);",
                                            "bool was = c->broken; c->broken = false; return was ? 0 : 1;")]),
    "unsigned comparison of positions": ("consumer", [("if (tail - c->head > c->capacity)",
                                                       "if (tail > c->head + c->capacity)")]),
    "consumer's index believed beyond publication": (
        "producer", [("if (head - p->head > p->published - p->head)", "if (p->tail - head > p->capacity)")]),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_weakened_copy_disagrees(name: str, build_dir: Path) -> None:
    side, replacements = MUTANTS[name]
    headers = weakened(build_dir, "ring.h", replacements)
    mutant = build_c(["ring/hostile.c"], into=build_dir, headers=headers)
    assert any(disagreements(mutant, side, start) for start in STARTS), "not caught"

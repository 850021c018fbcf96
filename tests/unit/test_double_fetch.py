"""Requests that change while they are validated: only what was validated is used (rules.md 8, test 4)."""

import random
from pathlib import Path

from tests.framework.build import build_c
from tests.framework.oracle import Oracle, Request
from tests.framework.processors import needs_two
from tests.framework.requests import PAGES, example, packed
from tests.framework.run import Outcome
from tests.framework.validate_runner import encode, run_with_partitions

SUBMISSIONS = 2_000_000
SUBMISSIONS_LONG = 20_000_000
NAIVE_LEAST = 50
#: in the order of the table in double_fetch.c
FIELDS = ["gpa", "length", "device_offset", "operation", "endpoint", "endpoint_generation", "id", "flags", "list_count",
          "taken", "key"]
#: A is valid. Each field of B is valid beside some fields of A and beside some fields of B, and not beside others.
A = Request(id=1 << 16, gpa=8192, device_offset=0, endpoint_generation=7, length=4096, list_count=0, endpoint=0,
            operation=1, flags=0, taken=0, key=0)
B = Request(id=2 << 16, gpa=(PAGES - 1) * 4096, device_offset=(8 << 20) - 4096, endpoint_generation=8, length=65536,
            list_count=1, endpoint=1, operation=2, flags=1, taken=1, key=1)

pytestmark = needs_two


def attack(build_dir: Path, flags: list[str], submissions: int) -> dict[str, int]:
    partition = example()
    oracle = Oracle(partition)
    mixtures = [
        Request(**{field: (A, B)[mask >> bit & 1]._asdict()[field] for bit, field in enumerate(FIELDS)})
        for mask in range(1 << len(FIELDS))
    ]
    assert mixtures[0] == A and mixtures[1] == A._replace(gpa=B.gpa) and mixtures[-1] == B
    answers = [oracle.answer(mixture) for mixture in mixtures]
    assert 1 < sum(reason == 0 for reason, _ in answers) < len(answers)
    program = build_c(["ring/double_fetch.c"], flags, into=build_dir)
    done = run_with_partitions(program, [partition], submissions, random.randrange(1 << 32),
                               stdin=packed([A, B]) + encode(answers), deadline=3600)
    outcome = Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())
    assert outcome.status == 0, outcome
    return outcome.values()


def test_no_mixed_request_is_accepted(build_dir: Path, long: bool) -> None:
    submissions = SUBMISSIONS_LONG if long else SUBMISSIONS
    seen = attack(build_dir, [], submissions)
    assert seen["mixed"] == 0
    assert seen["accepted"] + seen["refused"] == seen["submissions"] >= submissions
    assert min(seen["altered"], seen["refused"]) > submissions // 1000, "the attacker hardly ever hit"


def test_naive_validator_is_caught(build_dir: Path) -> None:
    assert attack(build_dir, ["-DNAIVE"], SUBMISSIONS)["mixed"] >= NAIVE_LEAST

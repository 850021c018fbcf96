"""charge.h: a thread's processor time among its clients. Together they get what the kernel says, each what it ran up;
time that the thread was off its processor is charged to nobody."""

import random
import subprocess
from pathlib import Path

import pytest

from pyx.abi import make_id
from tests.framework.build import build_c, weakened

IDLE, SHARED = 256, 257
CLIENTS = (3, 7, 250)
IDS = {slot: make_id(slot, 1) for slot in CLIENTS}

#: name -> (text, its weakened form): each must be seen
MUTANTS = {
    "stamps believed": ("    if (stamped > ran) {\n", "    if (0) {\n"),
    "the longest stretch not looked at": ("m->debts[m->longest_owner].spent -= lost;", "lost = 0;"),
    "nobody's time charged": ("if (last < PV_PARTITIONS_MAX)", "if (last <= PV_PARTITIONS_MAX)"),
    "shared time lost": ("pv_meter_divide(m, stretch);", "(void)m;"),
    "shared by heads": ("ns * debt->items / m->items", "ns / m->items"),
    "charged twice": ("        m->debts[slot].spent = 0;\n", ""),
    "totals overwritten": ("atomic_load_explicit(&charges[slot].ns, memory_order_relaxed) + ns", "ns"),
    "the last owner's time": ("    atomic_store_explicit(&charge->ns, 0, memory_order_release);", "    "),
    "begun anew with each endpoint": ("        return; /* another endpoint of it */", "        {}"),
}


def answers(program: Path, script: list[str]) -> list[int]:
    """Nothing where a sanitizer ended it."""
    done = subprocess.run([program], input="\n".join(script), capture_output=True, text=True, timeout=30)
    return [] if done.returncode else [int(line) for line in done.stdout.split()]


def build(into: Path, headers: Path | None = None) -> Path:
    flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover"]
    return build_c(["ring/charge.c"], flags, into=into, **({"headers": headers} if headers else {}))


@pytest.fixture(scope="module")
def program(build_dir: Path) -> Path:
    return build(build_dir)


def opened() -> list[str]:
    return [f"open {partition}" for partition in IDS.values()]


def read() -> list[str]:
    return [f"read {partition}" for partition in IDS.values()]


def history(seed: int, periods: int = 40) -> tuple[list[str], dict[int, int], int]:
    """A random script without lost time; what each client ran up, and what nobody did."""
    draw = random.Random(seed)
    script, owed, idle, now = opened(), dict.fromkeys(CLIENTS, 0), 0, 1000
    script.append(f"turn {IDLE} {now}")
    for _ in range(periods):
        ran = 0
        for _ in range(draw.randint(1, 12)):
            owner = draw.choice((*CLIENTS, IDLE, SHARED))
            length = draw.randint(1, 200_000)
            script.append(f"turn {owner} {now}")
            if owner == SHARED:
                items = [draw.choice(CLIENTS) for _ in range(draw.randint(1, 9))]
                script += [f"item {slot}" for slot in items]
                length -= length % len(items) if length > len(items) else 0
                for slot in set(items):
                    owed[slot] += length * items.count(slot) // len(items)
            elif owner != IDLE:
                owed[owner] += length
            now += length
            ran += length
        script += [f"turn {IDLE} {now}", f"claim {ran}"]
        idle += ran
    return [*script, *read()], owed, idle - sum(owed.values())


def is_exact(program: Path, seed: int) -> bool:
    script, owed, idle = history(seed)
    found = answers(program, script)
    return found[-len(CLIENTS):] == list(owed.values()) and sum(found[:-len(CLIENTS)]) == idle


#: (script between opening and reading, charges of the three clients, ns of nobody)
CASES = {
    # The thread was away for 4 ms in the middle of a turn of 3: 7 and 250 pay what they ran, and so does 3.
    "off its processor": (
        ["turn 3 1000", "turn 7 4011000", "turn 250 4031000", "turn 256 4061000", "claim 60000"],
        [10_000, 20_000, 30_000], 0,
    ),
    # More was lost than the longest stretch: from all in proportion.
    "away in all turns": (
        ["turn 3 1000", "turn 7 41000", "turn 250 81000", "turn 256 101000", "claim 30000"],
        [0, 20_000, 10_000], 0,
    ),
    "in proportion": (
        ["turn 3 1000", "turn 7 41000", "turn 250 81000", "turn 256 121000", "claim 40000"],
        [0, 20_000, 20_000], 0,
    ),
    "only looking": (["turn 256 1000", "turn 256 900000", "claim 5000"], [0, 0, 0], 5000),
    "shared by items": (
        ["turn 257 1000", "item 3", "item 7", "item 3", "item 3", "turn 256 9000", "claim 8000"], [6000, 2000, 0], 0,
    ),
    "a stamp of the past renames": (
        ["turn 3 1000", "turn 7 500", "turn 256 2000", "claim 1000"], [0, 1000, 0], 0,
    ),
    "twice": (
        ["turn 3 1000", "turn 256 2000", "claim 1000", "turn 3 3000", "turn 256 4000", "claim 1000"], [2000, 0, 0], 0,
    ),
}  # fmt: skip


def is_right(program: Path, name: str) -> bool:
    script, charges, idle = CASES[name]
    found = answers(program, [*opened(), *script, *read()])
    return found[-len(CLIENTS):] == charges and sum(found[:-len(CLIENTS)]) == idle


def keeps_lives_apart(program: Path) -> bool:
    """A slot that another partition gets: it begins at 0, and the earlier one is not found any more."""
    first, second = IDS[3], make_id(3, 2)
    work = ["turn 3 1000", "turn 256 2000", "claim 1000"]
    script = [f"open {first}", *work, f"open {first}", f"read {first}", f"close {first}", f"read {first}"]
    script += [f"read {second}", f"open {second}", f"read {second}", f"read {first}"]
    script += [f"close {first}", f"read {second}"]
    return answers(program, script) == [0, 1000, 0, 0, 0, 0, 0]


SEEDS = range(5)


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_and_nothing_is_charged_twice(program: Path, seed: int) -> None:
    assert is_exact(program, seed)


@pytest.mark.parametrize("name", CASES)
def test_division(program: Path, name: str) -> None:
    assert is_right(program, name)


def test_lives_of_a_slot_are_kept_apart(program: Path) -> None:
    assert keeps_lives_apart(program)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_more_is_charged_than_the_kernel_says(program: Path, seed: int) -> None:
    """Whatever part of the stamped time the thread was off its processor."""
    draw = random.Random(seed)
    script, _, _ = history(seed)
    runs = [draw.randint(0, int(line.split()[1])) if line.startswith("claim") else 0 for line in script]
    changed = [f"claim {ran}" if line.startswith("claim") else line for line, ran in zip(script, runs, strict=True)]
    found = answers(program, changed)
    assert found and sum(found) == sum(runs)


@pytest.mark.parametrize("name", MUTANTS)
def test_weakened_account_is_seen(build_dir: Path, name: str) -> None:
    broken = build(build_dir, weakened(build_dir, "charge.h", [MUTANTS[name]]))
    right = [*(is_exact(broken, seed) for seed in SEEDS), *(is_right(broken, case) for case in CASES)]
    assert not (all(right) and keeps_lives_apart(broken))

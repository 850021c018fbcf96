"""pair.h against the oracle of a queue pair: requests alone and in packs, translation entries of 1 to 28 pieces.

What a device must refuse on the direct path, it refuses for the reason that the oracle gives, in the oracle's
order of the checks; what it accepts, it moves exactly where the partition map says (rules.md 8 to 10, tests 1, 2; A3).
"""

import random
import time
from array import array
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from pyx.abi import OPERATIONS, REASON_NAMES, TRANSLATION_EXTENTS
from tests.framework.build import build_c, weakened
from tests.framework.oracle import PACK, Pack, Request
from tests.framework.pairs import KEY, QUEUES, Pair, Slots, encoded, partition
from tests.framework.validate_runner import run_with_partitions

ROUND = 2_000  # slots for one partition
SECONDS = 6
ROUNDS_LEAST = 20
ROUNDS_LONG = 500_000
EXIT_PIECES = 5
QUEUES_OF = [*QUEUES.items(), (2, ("receive",))]
ANSWERS = {
    "none", "key_invalid", "id_invalid", "flags_unknown", "operation_unknown", "operation_denied", "read_only",
    "list_limit", "endpoint_foreign", "generation_stale", "length_zero", "length_limit", "length_alignment",
    "offset_range", "offset_alignment", "reserved_nonzero", "frame_size", "address_alignment", "address_range",
    "address_rights", "address_withheld",
}


def expected(pair: Pair, slots: Sequence[Request | Pack], seen: Counter[str] | None = None) -> bytes:
    oracle, words = pair.oracle(), array("Q")
    for slot in slots:
        answers = oracle.answers(slot)
        words.append(len(answers))
        for identity, (reason, extents) in answers:
            words.extend((identity, reason, len(extents)))
            for extent in extents:
                words.extend(extent)
            if seen is not None:
                seen[REASON_NAMES[reason]] += 1
    return words.tobytes()


def answered(program: Path, pair: Pair, slots: Sequence[Request | Pack]) -> tuple[int, bytes, bytes]:
    done = run_with_partitions(program, [pair.partition], *pair.arguments, stdin=encoded(slots), deadline=120)
    return done.returncode, done.stdout, done.stderr


def draw(generator: random.Random, number: int) -> tuple[Pair, list[Request | Pack]]:
    index, queue = QUEUES_OF[number % len(QUEUES_OF)]
    pair = Pair(partition(generator.choice([1, 2, 5, TRANSLATION_EXTENTS]), generator), index, queue)
    return pair, list(Slots(pair, generator).take(ROUND))


@pytest.fixture(scope="module")
def program(build_dir: Path) -> Path:
    return build_c(["ring/pair_stream.c"], ["-fsanitize=address,undefined", "-fno-sanitize-recover"], into=build_dir)


def test_random_slots(program: Path, long: bool) -> None:
    seed = random.randrange(1 << 32)
    generator, started, seen, number = random.Random(seed), time.monotonic(), Counter[str](), 0
    while number < ROUNDS_LONG if long else number < ROUNDS_LEAST or time.monotonic() - started < SECONDS:
        pair, slots = draw(generator, number)
        status, answers, errors = answered(program, pair, slots)
        assert status == 0, (seed, number, errors)
        assert answers == expected(pair, slots, seen), f"seed {seed}, round {number}: pair.h and the oracle disagree"
        number += 1
    assert set(seen) == ANSWERS, f"seed {seed}: {set(seen) ^ ANSWERS}"
    assert seen["none"] > seen.total() // 20, f"seed {seed}: hardly any request was valid"


def sound(**fields: int) -> Request:
    plain = Request(id=1 << 16, gpa=0, device_offset=0, endpoint_generation=7, length=4096, list_count=0, endpoint=0,
                    operation=OPERATIONS["read"], flags=0, taken=0, key=KEY)
    return plain._replace(**fields)


WRONG = {
    "key_invalid": {"key": KEY - 1}, "id_invalid": {"id": 0}, "flags_unknown": {"flags": 1},
    "operation_unknown": {"operation": OPERATIONS["path"]}, "list_limit": {"list_count": 1},
    "endpoint_foreign": {"endpoint": 1}, "generation_stale": {"endpoint_generation": 8}, "length_zero": {"length": 0},
    "offset_alignment": {"device_offset": 1}, "address_range": {"gpa": (1 << 64) - 4096},
}


def test_the_first_objection_is_the_answer(program: Path) -> None:
    """The order of the checks is part of the contract: of two defects the earlier one of this table is named."""
    pair = Pair(partition(1, random.Random(1)), 0, QUEUES[0])
    names = list(WRONG)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i:]]
    slots = [sound(**{**WRONG[later], **WRONG[earlier]}) for earlier, later in pairs]
    status, answers, errors = answered(program, pair, slots)
    assert (status, errors) == (0, b"")
    words = array("Q", answers)
    assert [REASON_NAMES[reason] for reason in words[2::4]] == [earlier for earlier, _ in pairs]


def test_every_number_of_a_pack(program: Path) -> None:
    """One to three entries are requests; 0 and 4 to 127 are no pack: one refusal for the slot, and nothing is read."""
    pair = Pair(partition(1, random.Random(2)), 2, ("send",))
    gpa = min(pair.partition.pages) * 4096
    slots: list[Request | Pack] = [
        Pack(tuple((number << 16 | count, gpa, 64) for number in (1, 2, 3)), 2, OPERATIONS["send"], PACK | count, KEY)
        for count in range(128)
    ]
    status, answers, errors = answered(program, pair, slots)
    assert (status, errors) == (0, b"")
    seen: Counter[str] = Counter()
    assert answers == expected(pair, slots, seen)
    assert seen == {"none": 1 + 2 + 3, "flags_unknown": 125}


@pytest.mark.parametrize(("pieces", "status"), [(TRANSLATION_EXTENTS, 0), (TRANSLATION_EXTENTS + 1, EXIT_PIECES)])
def test_a_partition_in_too_many_pieces_gets_no_entry(program: Path, pieces: int, status: int) -> None:
    pair = Pair(partition(pieces, random.Random(3)), 0, QUEUES[0])
    assert answered(program, pair, [sound()])[0] == status


FIND = "if (gpa < e->gpa || gpa - e->gpa >= e->length)"
MUTANTS = {
    "key ignored": [("if (r->key != t->key)", "if (false)")],
    "half the key compared": [("if (r->key != t->key)", "if ((uint32_t)r->key != (uint32_t)t->key)")],
    "id 0 let through": [("if (r->id == 0)", "if (false)")],
    "flags ignored": [("    if (!pv_flags_known(r->operation, r->flags))\n", "    if (false)\n")],
    "rights ignored": [("if (!(e->rights & right))", "if (false)")],
    "rights swapped": [("pv_operation_writes_memory(r->operation) ? PV_MAP_WRITE : PV_MAP_READ",
                        "pv_operation_writes_memory(r->operation) ? PV_MAP_READ : PV_MAP_WRITE")],
    "rights of the first extent only": [("if (!(e->rights & right))", "if (!count && !(e->rights & right))")],
    "addition instead of subtraction": [(FIND, "if (gpa < e->gpa || gpa + length > e->gpa + e->length)")],
    "extent end off by one": [(FIND, "if (gpa < e->gpa || gpa - e->gpa > e->length)")],
    "one byte beyond an extent": [("part = e->length - offset;", "part = e->length - offset + 1;")],
    "gap stepped over": [(FIND, "if (!count && (gpa < e->gpa || gpa - e->gpa >= e->length))")],
    "endpoint index ignored": [("if (r->endpoint != t->index)", "if (false)")],
    "operations of the queue ignored": [("|| !(operations >> r->operation & 1))", ")")],
    "segment lists let through": [("if (r->list_count)", "if (false)")],
    "grant not looked at": [("enum pv_reason reason = pv_validate_endpoint(&t->endpoint, r);",
                             "enum pv_reason reason = PV_REASON_NONE;")],
    "pack count not checked": [("return count <= PV_PACK_ENTRIES ? count : 0;", "return count;")],
    "pack of none is one": [("return count <= PV_PACK_ENTRIES ? count : 0;",
                             "return count <= PV_PACK_ENTRIES ? count + !count : 0;")],
    "first entry for all": [("request->id = pack->entry[index].id;", "request->id = pack->entry[0].id;")],
    "flags of the pack kept": [("request->flags = 0;", "request->flags = pack->flags;")],
    "key of a pack taken for granted": [("request->key = pack->key;", "request->key = t->key;")],
    "length of a pack cut": [("request->length = (uint32_t)(gpa_length >> PV_PACK_GPA_BITS);",
                              "request->length = (uint16_t)(gpa_length >> PV_PACK_GPA_BITS);")],
    "runs joined whatever their rights": [("&& last->rights == rights)", ")")],
    "runs joined over gaps": [("last->gpa + last->length == page << PV_PAGE_SHIFT && ", "")],
    "runs joined whatever their frames": [(" && last->hpa + last->length == hpa\n", "\n")],
}
GENERATION = {"generation not compared": [("if (e->generation != r->endpoint_generation)", "if (false)")]}


@pytest.fixture(scope="module")
def cases() -> list[tuple[Pair, list[Request | Pack], bytes]]:
    generator = random.Random(30)
    drawn = [draw(generator, number) for number in range(3 * len(QUEUES_OF))]
    return [(pair, slots, expected(pair, slots)) for pair, slots in drawn]


@pytest.mark.parametrize("name", [*MUTANTS, *GENERATION])
def test_weakened_copy_disagrees(
    name: str, cases: list[tuple[Pair, list[Request | Pack], bytes]], build_dir: Path
) -> None:
    """It may also die of what it let through."""
    header, replacements = ("pair.h", MUTANTS[name]) if name in MUTANTS else ("validate.h", GENERATION[name])
    flags = ["-fsanitize=address", "-Wno-unused", "-Wno-type-limits"]
    mutant = build_c(["ring/pair_stream.c"], flags, into=build_dir, headers=weakened(build_dir, header, replacements))
    for pair, slots, answers in cases:
        status, got, _ = answered(mutant, pair, slots)
        if status or got != answers:
            return
    pytest.fail("not caught")

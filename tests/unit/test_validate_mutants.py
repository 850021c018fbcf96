"""The oracle sees defects: weakened copies of validate.h must disagree with it (rules.md, mutants)."""

import random
from pathlib import Path

import pytest

from tests.framework.build import build_c, weakened
from tests.framework.oracle import Oracle
from tests.framework.requests import example, packed, random_requests
from tests.framework.validate_runner import encode, run_with_partitions

REQUESTS = 60_000

MUTANTS = {
    "memory range by addition": [("if (gpa > size || length > size - gpa)", "if (gpa + length > size)")],
    "one byte beyond memory": [("length > size - gpa)", "length > size - gpa + 1)")],
    "last page forgotten": [("(gpa + length - 1) >> PV_PAGE_SHIFT", "(gpa + length - 512) >> PV_PAGE_SHIFT")],
    "rights swapped": [("writes ? PV_MAP_WRITE : PV_MAP_READ", "writes ? PV_MAP_READ : PV_MAP_WRITE")],
    "rights of the first page only": [("if (!(word & right))", "if (!count && !(word & right))")],
    "generation not compared": [("if (e->generation != r->endpoint_generation)", "if (false)")],
    "half the generation compared": [("if (e->generation != r->endpoint_generation)",
                                      "if ((uint32_t)e->generation != (uint32_t)r->endpoint_generation)")],
    "flags ignored": [("if (!pv_flags_known(r->operation, r->flags))", "if (false)")],
    "flags of another operation": [
        ("return !(flags & ~PV_FLAG_FUA);", "return !(flags & ~(PV_FLAG_FUA | PV_FLAG_NO_HOLE));")
    ],
    "any flag with a discard": [("    return !flags;", "    return operation == PV_OP_DISCARD || !flags;")],
    "discard may carry an address": [("if (r->gpa && !pv_operation_has_data(r->operation))", "if (false)")],
    "write zeroes not named a write": [("operation == PV_OP_DISCARD || operation == PV_OP_WRITE_ZEROES;",
                                        "operation == PV_OP_DISCARD;")],
    "key ignored": [("if (r->key)", "if (0)")],
    "limit of the endpoint ignored": [("r->length > e->max_transfer || r->length > PV_TRANSFER_MAX",
                                       "r->length > PV_TRANSFER_MAX")],
    "limit of all endpoints ignored": [("r->length > e->max_transfer || r->length > PV_TRANSFER_MAX",
                                        "r->length > e->max_transfer")],
    "device range by addition": [("r->device_offset > e->length || r->length > e->length - r->device_offset",
                                  "r->device_offset + r->length > e->length")],
    "operation bits tested as a number": [("e->operations >> r->operation & 1", "e->operations & r->operation")],
    "cache line of another group": [("if (line->group == group && line->partition", "if (line->partition")],
    "cache line of another partition": [("line->partition == d->partition && ", "")],
    "extents joined by page size": [("extents[count - 1].hpa + extents[count - 1].length == hpa",
                                     "extents[count - 1].hpa + PV_PAGE == hpa")],
    "flush may carry an address": [("if (r->length | r->gpa | r->device_offset)",
                                    "if (r->length | r->device_offset)")],
    "segment lists let through": [("if (r->list_count)", "if (false)")],
}


@pytest.fixture(scope="module")
def case() -> tuple:
    """Two lives of one partition slot with different memory, requests for them in turn, and the oracle's answers."""
    generator = random.Random(20)
    partitions = [example(generator=generator) for _ in range(2)]
    requests = [one for _ in range(6) for one in random_requests(generator, REQUESTS // 6)]
    answers = [Oracle(partition).answer for partition in partitions]
    return partitions, packed(requests), encode(answers[i % 2](request) for i, request in enumerate(requests))


def test_shipped_header_agrees(case: tuple, build_dir: Path) -> None:
    partitions, requests, expected = case
    flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover"]
    program = build_c(["ring/validate_stream.c"], flags, into=build_dir)
    done = run_with_partitions(program, partitions, stdin=requests, deadline=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == expected


@pytest.mark.parametrize("name", MUTANTS)
def test_weakened_copy_disagrees(name: str, case: tuple, build_dir: Path) -> None:
    """It may also die of what it let through."""
    partitions, requests, expected = case
    headers = weakened(build_dir, "validate.h", MUTANTS[name])
    program = build_c(["ring/validate_stream.c"], into=build_dir, headers=headers)
    done = run_with_partitions(program, partitions, stdin=requests, deadline=120)
    assert done.returncode or done.stdout != expected, "not caught"

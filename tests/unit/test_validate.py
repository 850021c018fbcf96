"""validate.h against an independent oracle: borders in all combinations, and random requests (rules.md tests 1, 2)."""

import itertools
import os
import random
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from pyx.abi import REASON_NAMES, REASONS, make_id
from pyx.validate import Validator
from pyx.view import MapWriter, ViewWriter
from tests.framework.oracle import Oracle, Partition, Request
from tests.framework.requests import (
    ADDRESSES,
    ENDPOINTS,
    FLAGS,
    LENGTHS,
    OFFSETS,
    OPERATION_VALUES,
    SLOT,
    example,
    packed,
    random_requests,
    segments,
    validator,
)

CHUNK = 20_000
RANDOM = 1_500_000
RANDOM_LONG = 1_000_000_000
SECONDS = 8  # on a machine under load the default gets at least RANDOM_LEAST done
RANDOM_LEAST = 300_000
#: what validate.h itself can answer; the other reasons belong to other programs
ANSWERS = {
    "none", "id_invalid", "reserved_nonzero", "flags_unknown", "operation_unknown", "operation_denied", "read_only",
    "endpoint_unknown", "generation_stale", "length_zero", "length_limit", "length_alignment", "list_limit",
    "offset_range", "offset_alignment", "address_range", "address_alignment", "address_unmapped", "address_rights",
    "address_withheld",
    "frame_size",
}


def chunks(requests: Iterator[Request]) -> Iterator[list[Request]]:
    while chunk := list(itertools.islice(requests, CHUNK)):
        yield chunk


def compare(partition: Partition, requests: Iterator[Request]) -> Counter[str]:
    """Asserts that header and oracle agree on each request; returns how often each reason was given."""
    oracle, checked = Oracle(partition), validator(partition)
    seen: Counter[str] = Counter()
    for chunk in chunks(requests):
        expected = [oracle.answer(request) for request in chunk]
        answers = checked.validate(packed(chunk))
        if answers != expected:
            wrong = [case for case in zip(chunk, answers, expected, strict=True) if case[1] != case[2]]
            raise AssertionError(f"{len(wrong)} of {len(chunk)} disagree; request, answer, oracle: {wrong[:3]}")
        seen.update(REASON_NAMES[reason] for reason, _ in answers)
    checked.detach()
    return seen


def request(**fields: int) -> Request:
    plain = {"id": 1 << 16, "gpa": 0, "device_offset": 0, "endpoint_generation": 7, "length": 4096, "list_count": 0,
             "endpoint": 0, "operation": 1, "flags": 0, "taken": 0, "key": 0}
    return Request(**{**plain, **fields})


def test_borders_of_memory() -> None:
    """Every combination of 30 addresses, 30 lengths, operations, flags, generations and endpoints."""
    assert len(ADDRESSES) == len(LENGTHS) == 30
    combinations = (
        request(gpa=gpa, length=length, operation=operation, flags=flags, endpoint=entry["index"],
                endpoint_generation=entry["generation"] + age)
        for entry, gpa, length, operation, flags, age in itertools.product(
            ENDPOINTS, ADDRESSES, LENGTHS, OPERATION_VALUES, FLAGS, (0, 1, -1))
    )
    seen = compare(example(), combinations)
    assert seen.total() == len(ENDPOINTS) * 30 * 30 * len(OPERATION_VALUES) * len(FLAGS) * 3
    expected = {"address_range", "address_unmapped", "address_rights", "address_withheld", "frame_size", "read_only"}
    assert {"none", *expected} <= set(seen)


def test_borders_of_the_device() -> None:
    """Every combination of 30 offsets, 30 lengths, operations and endpoints."""
    assert len(OFFSETS) == 30
    combinations = (
        request(device_offset=offset, length=length, operation=operation, endpoint=entry["index"],
                endpoint_generation=entry["generation"])
        for entry, offset, length, operation in itertools.product(ENDPOINTS, OFFSETS, LENGTHS, OPERATION_VALUES)
    )
    seen = compare(example(), combinations)
    assert {"none", "offset_range", "offset_alignment", "length_alignment"} <= set(seen)


def test_borders_of_the_other_fields() -> None:
    combinations = (
        request(id=id, list_count=segments, endpoint=endpoint, taken=first, key=second, operation=operation,
                gpa=gpa, length=length)
        for id, segments, endpoint, first, second, operation, (gpa, length) in itertools.product(
            (0, 1, 1 << 16, (1 << 64) - 1), (0, 1, (1 << 32) - 1), (0, 3, 30, 31, 32, 33, 65535), (0, 1, 1 << 31),
            (0, 1, 1 << 63), (0, 1, 2, 3, 6), ((0, 0), (0, 4096), (4096, 0)))
    )
    assert {"id_invalid", "list_limit", "reserved_nonzero", "endpoint_unknown"} <= set(compare(example(), combinations))


@pytest.mark.parametrize("state", ["defined", "starting", "running", "stopping", "stopped", "failed", "removed"])
def test_only_a_living_partition_is_served(state: str) -> None:
    seen = compare(example(state), iter([request(), request(operation=3, length=0), request(id=0)]))
    assert ("partition_state" in seen) == (state in ("stopped", "failed", "removed"))


def test_random_requests(long: bool) -> None:
    seed = random.randrange(1 << 32)
    generator = random.Random(seed)
    wanted, started = RANDOM_LONG if long else RANDOM, time.monotonic()
    seen: Counter[str] = Counter()
    while seen.total() < wanted:
        partition = example(generator=generator)
        pools = (random_requests(generator, CHUNK) for _ in range(10))
        try:
            seen += compare(partition, itertools.chain.from_iterable(pools))
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        late = time.monotonic() - started > SECONDS
        if late and not long and seen.total() >= RANDOM_LEAST and set(seen) == ANSWERS:
            break  # the slower the machine, the fewer; but each reason at least once
    assert seen.total() >= RANDOM_LEAST
    assert set(seen) == ANSWERS, f"seed {seed}: not every reason was reached"
    assert seen["none"] > seen.total() // 20, f"seed {seed}: hardly any request was valid"


def test_mapping_cache_follows_the_generation() -> None:
    """A revoked page is refused as soon as the view has a new map generation, though the cache holds the old words."""
    partition = example()
    view, table = segments(partition)
    checked = Validator(view, table, partition.memory_pages)
    one = packed([request(gpa=8192)])
    assert checked.validate(one)[0][0] == 0
    misses = checked.misses
    assert checked.validate(one)[0][0] == 0 and checked.misses == misses, "the second look is served by the cache"
    MapWriter(table, partition.memory_pages).clear(2, 1)
    assert checked.validate(one)[0][0] == 0, "before the publication the old words are in force"
    ViewWriter(view).publish({
        "partition": make_id(SLOT, 1), "map_generation": 2, "type": 8, "state": partition.state,
        "memory_pages": partition.memory_pages, "endpoints": ENDPOINTS,
    })
    checked.refresh()
    assert checked.validate(one)[0] == (REASONS["address_unmapped"], ())
    os.close(view)
    os.close(table)

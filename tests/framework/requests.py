"""Partitions and requests for the validator: boundary values, random ones, and the real segments beside the oracle."""

import os
import random
from collections.abc import Iterator, Sequence

from pyx.abi import ENDPOINT_KINDS, FIRST_FRAME, OPERATIONS, STATES, make_id, map_size, operations_mask, view_size
from pyx.validate import Validator, pack
from pyx.view import MapWriter, ViewWriter
from tests.framework.oracle import Page, Partition, Request

PAGES = 20011  # more than the mapping cache holds (8192), and no multiple of its group of eight
LAST_FRAME = (1 << 40) - 1
SLOT = 9
HOLES = [100, 101, 512, 800]
READ_ONLY_PAGES = range(200, 216)
WRITE_ONLY_PAGES = range(300, 303)
WITHHELD_PAGES = range(513, 515)
DISK = {"kind": ENDPOINT_KINDS["disk"], "device": 1, "port": 3, "flags": 0}
NIC = {"kind": ENDPOINT_KINDS["nic"], "device": 0, "port": 1, "flags": 0, "offset": 0, "length": 0}
DISK_OPERATIONS = operations_mask("read", "write", "flush", "discard", "write_zeroes", "extents")
NIC_OPERATIONS = operations_mask(
    "send", "receive", "send_headed", "receive_headed", "tcp_open", "tcp_send", "tcp_receive", "tcp_end", "associate"
)
READ_ONLY_OPERATIONS = operations_mask("read", "flush")
ENDPOINTS = [
    {**DISK, "index": 0, "generation": 7, "offset": 1 << 20, "length": 8 << 20, "operations": DISK_OPERATIONS,
     "max_transfer": 1 << 20},
    {**DISK, "index": 1, "generation": 8, "offset": 0, "length": 1 << 20, "operations": READ_ONLY_OPERATIONS,
     "max_transfer": 65536, "flags": 1},
    {**NIC, "index": 2, "generation": (1 << 48) - 1, "operations": NIC_OPERATIONS,
     "max_transfer": 65609},
    {**NIC, "index": 5, "generation": 1, "operations": operations_mask("send", "send_headed"), "max_transfer": 1 << 20},
    {**DISK, "index": 31, "generation": 2, "offset": 0, "length": (1 << 63) - 512, "operations": DISK_OPERATIONS,
     "max_transfer": 0xFFFFFFFF},
]
ADDRESSES = [
    0, 1, 511, 512, 4095, 4096, 4097, 8 * 4096 - 1, 8 * 4096, 100 * 4096 - 512, 100 * 4096 - 1, 100 * 4096,
    102 * 4096, 199 * 4096 + 1, 216 * 4096 - 512, 303 * 4096 - 4096, 513 * 4096, 1000 * 4096 - 1,
    PAGES * 4096 - (1 << 20), PAGES * 4096 - 4096, PAGES * 4096 - 512, PAGES * 4096 - 1, PAGES * 4096,
    PAGES * 4096 + 1, (1 << 32) - 1, 1 << 32, 1 << 63, (1 << 64) - 4096, (1 << 64) - 512, (1 << 64) - 1,
]
LENGTHS = [
    0, 1, 13, 14, 24, 25, 26, 511, 512, 513, 4095, 4096, 4097, 8192, 65609, 65610, 65024, 65535, 65536, 65549, 65550,
    65551, (1 << 20) - 512, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (1 << 20) + 512, 1 << 31, (1 << 32) - 512,
    (1 << 32) - 1,
]
OFFSETS = [
    0, 1, 256, 511, 512, 513, 4096, (1 << 20) - 4096, (1 << 20) - 512, (1 << 20) - 1, 1 << 20, (1 << 20) + 512,
    (8 << 20) - (1 << 20), (8 << 20) - 512, (8 << 20) - 511, 8 << 20, (8 << 20) + 512, (1 << 32) - 512, 1 << 32,
    (1 << 63) - 1024, (1 << 63) - 512, (1 << 63) - 1, 1 << 63, (1 << 63) + 512, (1 << 64) - (1 << 20),
    (1 << 64) - 4096, (1 << 64) - 512, (1 << 64) - 511, (1 << 64) - 2, (1 << 64) - 1,
]
OPERATION_VALUES = [*range(len(OPERATIONS) + 2), 128, 255]
FLAGS = [0, 1, 2, 3, 128]


def example(state: str = "running", generator: random.Random | None = None) -> Partition:
    """A partition with holes, one-way pages and runs of neighbouring frames, cut anew by `generator`."""
    generator = generator or random.Random(0)
    pages: dict[int, Page] = {}
    frame = FIRST_FRAME
    for number in range(PAGES):
        if generator.random() < 0.3:
            frame = generator.choice([FIRST_FRAME + generator.randrange(1 << 22), LAST_FRAME - generator.randrange(64)])
        if number not in HOLES:
            readable, writable = number not in WRITE_ONLY_PAGES, number not in READ_ONLY_PAGES
            withheld = number in WITHHELD_PAGES
            pages[number] = Page(frame, readable and not withheld, writable and not withheld, withheld)
        frame = frame + 1 if frame < LAST_FRAME else FIRST_FRAME
    return Partition(STATES[state], PAGES, {entry["index"]: entry for entry in ENDPOINTS}, pages)


def segments(partition: Partition, generation: int = 1) -> tuple[int, int]:
    """Descriptors of a published view and a filled map, as the ultravisor would leave them; the caller closes them.
    `generation`: of the partition's id; its slot is always the same."""
    view, table = os.memfd_create("view"), os.memfd_create("map")
    os.ftruncate(view, view_size())
    os.ftruncate(table, map_size(partition.memory_pages))
    words = MapWriter(table, partition.memory_pages)
    for number, page in partition.pages.items():
        words.assign(number, page.frame, 1, page.readable, page.writable, page.withheld)
    words.detach()
    writer = ViewWriter(view)
    writer.publish({
        "partition": make_id(SLOT, generation), "map_generation": 1, "type": 8, "state": partition.state,
        "memory_pages": partition.memory_pages, "endpoints": list(partition.endpoints.values()),
    })
    writer.detach()
    return view, table


def validator(partition: Partition) -> Validator:
    view, table = segments(partition)
    try:
        return Validator(view, table, partition.memory_pages)
    finally:
        os.close(view)
        os.close(table)


def packed(requests: Sequence[Request]) -> bytes:
    return pack(*zip(*requests, strict=True))


def random_requests(generator: random.Random, count: int) -> Iterator[Request]:
    """`count` requests whose fields come from pools of 256 values: mostly plausible, some at borders, some anything."""
    def pool(likely: Sequence[int], borders: Sequence[int], bits: int) -> list[int]:
        values = generator.choices(likely, k=160) + generator.choices(borders, k=80)
        return values + [generator.getrandbits(bits) for _ in range(256 - len(values))]

    def rarely(usual: Sequence[int], bits: int) -> list[int]:
        return generator.choices(usual, k=253) + [generator.getrandbits(bits) for _ in range(3)]

    def addressees() -> list[tuple[int, int, int]]:
        """(endpoint generation, endpoint, operation), nine of ten of them granted."""
        likely = [(entry["generation"], entry["index"], operation) for entry in ENDPOINTS
                  for operation in OPERATIONS.values() if entry["operations"] >> operation & 1]
        likely += [(ENDPOINTS[1]["generation"], 1, OPERATIONS[name]) for name in ("write", "discard", "write_zeroes")]
        generations = [entry["generation"] + step for entry in ENDPOINTS for step in (0, 1 << 32)]
        odd = [
            (generator.choice([*generations, generator.getrandbits(64)]),
             generator.choice([0, 1, 2, 3, 31, 32, 65535]),
             generator.choice([*OPERATION_VALUES, generator.getrandbits(8)]))
            for _ in range(26)
        ]
        return generator.choices(likely, k=256 - len(odd)) + odd

    size = PAGES * 4096
    pools = [
        rarely([0, *(make_id(slot, slot + 1) for slot in range(60))], 64),
        pool([generator.randrange(size) for _ in range(200)],
             ADDRESSES + [size - length + step for length in LENGTHS[4:24] for step in (0, 1)], 64),
        pool([0] * 60 + [generator.randrange(4096) * 512 for _ in range(40)], OFFSETS, 64),
        pool([512 * generator.randrange(1, 257) for _ in range(50)]
             + [generator.randrange(1, 70000) for _ in range(20)], LENGTHS, 32),
        rarely([0], 32),
        addressees(),
        rarely([0, 0, 0, 0, 1, 2], 8),
        rarely([0], 32),
        rarely([0], 64),
    ]
    columns = ([values[index] for index in generator.randbytes(count)] for values in pools)
    for id, gpa, offset, length, segments, (generation, endpoint, operation), *rest in zip(*columns, strict=True):
        if operation == OPERATIONS["flush"] and gpa & 1:  # an operation without data, asked for as it should be
            gpa = offset = length = 0
        if operation in (OPERATIONS["discard"], OPERATIONS["write_zeroes"]) and not gpa & 512:
            gpa = 0
        yield Request(id, gpa, offset, generation, length, segments, endpoint, operation, *rest)

"""Partitions in a few pieces, and slots for the queue pair of one of their endpoints, beside the oracle of the pair."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pyx.abi import FIRST_FRAME, OPERATIONS, STATES, operations_mask
from pyx.validate import pack_joined
from tests.framework.oracle import PACK, Pack, Page, PairOracle, Partition, Request
from tests.framework.requests import ENDPOINTS, packed

KEY = 0x9E3779B97F4A7C15
TOP = 1 << 64
PACK_LENGTHS = [0, 1, 13, 14, 15, 64, 512, 1500, 4095, 4096, 4097, 65535, 65550, 65551, 65609, 65610, (1 << 20) - 1]
LENGTHS = [*PACK_LENGTHS, 1024, 8192, 65536, 1 << 20, (1 << 20) + 512, (1 << 32) - 1]
PACK_FLAGS = [8, 64, 127, 128, *range(132, 256)]  # no request and no pack has them
FLAGS = [1, 2, 3, 4, *PACK_FLAGS]
#: operations of each queue, as the devices' attach_port names them
DISK = ("read", "write", "flush", "discard", "write_zeroes", "extents")
SENDING = ("send", "send_headed", "tcp_open", "tcp_send", "tcp_receive", "tcp_end")
QUEUES = {0: DISK, 1: DISK, 2: SENDING, 5: ("receive", "receive_headed"), 31: ("read",)}


@dataclass(frozen=True)
class Pair:
    """One queue of the pair of `partition`'s endpoint `index`; endpoint 2 also stands for a NIC's receive queue."""

    partition: Partition
    index: int
    queue: tuple[str, ...]

    @property
    def arguments(self) -> tuple[int, int, int]:
        """Endpoint, key, operations: as `ring/pair_stream.c` takes them."""
        return self.index, KEY, operations_mask(*self.queue)

    def oracle(self) -> PairOracle:
        return PairOracle(self.partition, self.index, KEY, frozenset(OPERATIONS[name] for name in self.queue))


RIGHTS = [(True, True, False), (True, False, False), (False, True, False), (False, False, True)]  # the last: withheld


def partition(pieces: int, generator: random.Random) -> Partition:
    """Memory in `pieces` runs of one to 90 pages, with gaps in gpa, steps in hpa or other rights between them."""
    pages: dict[int, Page] = {}
    number, frame = generator.choice([0, 0, 7]), FIRST_FRAME
    rights = RIGHTS[0]
    for piece in range(pieces):
        if piece:
            kind = generator.choice(["gap", "frames", "rights"])
            number += generator.randint(1, 3) if kind == "gap" else 0
            frame += generator.randint(1, 9) if kind == "frames" else 0
            others = [one for one in RIGHTS if one != rights]
            rights = generator.choice(others) if kind == "rights" else rights
        for _ in range(generator.choice([1, 1, 2, 30, 90])):
            pages[number] = Page(frame, *rights)
            number, frame = number + 1, frame + 1
    size = number + generator.choice([0, 0, 5])
    return Partition(STATES["running"], size, {entry["index"]: entry for entry in ENDPOINTS}, pages)


def borders(partition: Partition) -> list[int]:
    """Addresses around every border of a run, and around those of the numbers that hold them."""
    def follows(number: int) -> bool:
        here, before = partition.pages.get(number), partition.pages.get(number - 1)
        return here is not None and before == replace(here, frame=here.frame - 1)

    steps = [number for number in range(partition.memory_pages + 2) if not follows(number)]
    near = {number * 4096 + step for number in steps for step in (-65550, -4096, -512, -14, -1, 0, 1, 512, 4095)}
    return sorted(gpa for gpa in near if gpa >= 0) + [(1 << 44) - 1, (1 << 44) - 4096]


WIDE = [1 << 44, 1 << 63, TOP - (1 << 20), TOP - 4096, TOP - 512, TOP - 1]  # more than an entry of a pack holds


class Slots:
    """Random slots for `pair`, mostly plausible ones; the fields of the others are at a border or anything."""

    def __init__(self, pair: Pair, generator: random.Random) -> None:
        self.generator = generator
        self.entry = pair.partition.endpoints[pair.index]
        self.operations = [OPERATIONS[name] for name in pair.queue]
        self.addresses = borders(pair.partition)
        self.index = pair.index

    def rarely(self, usual: int, others: Sequence[int]) -> int:
        return self.generator.choice(others) if self.generator.random() < 0.03 else usual

    def common(self) -> tuple[int, int, int]:
        """Endpoint, operation, key."""
        endpoint = self.rarely(self.index, [0, 1, 2, 3, 5, 31, 32, 0xFFFF])
        operation = self.rarely(self.generator.choice(self.operations), [*range(14), 128, 255])
        return endpoint, operation, self.rarely(KEY, [0, KEY - 1, KEY + 1, KEY ^ 1 << 32, KEY & 0xFFFFFFFF])

    def identity(self) -> int:
        return self.rarely(self.generator.getrandbits(63) | 1, [0, TOP - 1])

    def request(self) -> Request:
        endpoint, operation, key = self.common()
        generation = self.entry["generation"]
        gpa = self.rarely(self.generator.choice(self.addresses), WIDE)
        length = self.generator.choice(LENGTHS)
        offset = self.rarely(0, [1, 512, self.entry["length"], TOP - 512]) % TOP
        if operation == OPERATIONS["flush"] and self.generator.random() < 0.8:
            gpa = length = offset = 0
        if operation in (OPERATIONS["discard"], OPERATIONS["write_zeroes"]) and self.generator.random() < 0.8:
            gpa = 0
        return Request(
            self.identity(), gpa, offset, self.rarely(generation, [0, generation + 1, generation ^ 1 << 40]),
            length, self.rarely(0, [1, 1 << 31]), endpoint, operation, self.rarely(0, FLAGS), self.rarely(0, [77]), key,
        )

    def joined(self) -> Pack:
        count = self.generator.randint(1, 3)
        entries = [(self.identity(), self.generator.choice(self.addresses), self.generator.choice(PACK_LENGTHS))
                   for _ in range(count)] + [(0, 0, 0)] * (3 - count)
        endpoint, operation, key = self.common()
        return Pack(tuple(entries), endpoint, operation, self.rarely(PACK + count, PACK_FLAGS), key)

    def take(self, count: int) -> Iterator[Request | Pack]:
        for _ in range(count):
            yield self.request() if self.generator.random() < 0.5 else self.joined()


def encoded(slots: Sequence[Request | Pack]) -> bytes:
    """Slots as they stand in a ring."""
    return b"".join(
        pack_joined(slot.entries, slot.endpoint, slot.operation, slot.flags, 0, slot.key) if isinstance(slot, Pack)
        else packed([slot]) for slot in slots)

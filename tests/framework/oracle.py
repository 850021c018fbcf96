"""What the validator must answer, worked out from the rules with Python's unbounded integers (rules.md tests 1, 2).

Written from design.md section 3, rules.md 10 and the table of reasons, not from validate.h: an ordered list of
objections, each a sentence and a predicate over one request, and a partition map as a dictionary of pages. The
first objection that holds is the answer.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from typing import NamedTuple

from pyx.abi import ENDPOINT_KINDS, OPERATIONS, REASONS, STATES

PAGE_BYTES = 4096
SECTOR_BYTES = 512
ENDPOINT_SLOTS = 32
LONGEST_TRANSFER = 1024 * 1024
LONGEST_FRAME = 64 * 1024 + 14
LONGEST_HEADED = 12 + 14 + 2 * 4 + 40 + 65535  # header, Ethernet, two tags, the longest packet of IPv6
SHORTEST_FRAME = 14
READ_ONLY = 1

READ, WRITE, FLUSH, SEND, RECEIVE = (OPERATIONS[name] for name in ("read", "write", "flush", "send", "receive"))
SEND_HEADED, RECEIVE_HEADED = OPERATIONS["send_headed"], OPERATIONS["receive_headed"]
DISCARD, WRITE_ZEROES, EXTENTS = (OPERATIONS[name] for name in ("discard", "write_zeroes", "extents"))
TCP_OPEN, TCP_SEND, TCP_RECEIVE, TCP_END = (OPERATIONS[f"tcp_{name}"] for name in ("open", "send", "receive", "end"))
TCP = {TCP_OPEN, TCP_SEND, TCP_RECEIVE, TCP_END}
ADDRESS_BYTES, EVENT_BYTES = 24, 8
ASSOCIATE = OPERATIONS["associate"]
CHANGES_THE_DISK = {WRITE, DISCARD, WRITE_ZEROES}
#: flags that an operation may carry: of a disk 1 forced unit access, 2 no hole; of connections 1 listen, 1 accept or 2
#: events, 1 shutdown or 2 close or 4 reset
MAY_CARRY = {WRITE: {0, 1}, WRITE_ZEROES: {0, 1, 2, 3}, TCP_OPEN: {0, 1}, TCP_RECEIVE: {0, 1, 2}, TCP_END: {1, 2, 4}}
LIVELY_STATES = {STATES[name] for name in ("defined", "starting", "running", "stopping")}


class Request(NamedTuple):
    """Fields in the order of `pyx.validate.pack`."""

    id: int
    gpa: int
    device_offset: int
    endpoint_generation: int
    length: int
    list_count: int
    endpoint: int
    operation: int
    flags: int
    taken: int
    key: int


@dataclass(frozen=True)
class Page:
    frame: int
    readable: bool
    writable: bool
    withheld: bool = False  # from the partition, and then neither of the above


@dataclass
class Partition:
    """`endpoints`: by index, as `ViewWriter.publish` takes them. `pages`: by gpa page; absent: not mapped."""

    state: int
    memory_pages: int
    endpoints: dict[int, dict]
    pages: dict[int, Page] = field(default_factory=dict)


Answer = tuple[int, tuple[tuple[int, int], ...]]
Objection = tuple[str, Callable[[Request, dict], bool]]

FORM: list[Objection] = [
    ("id_invalid", lambda r, e: r.id == 0),
    ("reserved_nonzero", lambda r, e: r.key != 0),
    ("flags_unknown", lambda r, e: r.flags not in MAY_CARRY.get(r.operation, {0})),
    ("operation_unknown", lambda r, e: r.operation not in OPERATIONS.values()),
    ("list_limit", lambda r, e: r.list_count != 0),
]
GRANTED: list[Objection] = [
    ("generation_stale", lambda r, e: r.endpoint_generation != e["generation"]),
    ("read_only", lambda r, e: not grants(e, r.operation) and r.operation in CHANGES_THE_DISK
     and e["flags"] & READ_ONLY != 0),
    ("operation_denied", lambda r, e: not grants(e, r.operation)),
]
WITHOUT_DATA: list[Objection] = [
    ("address_alignment", lambda r, e: (r.gpa, r.length, r.device_offset) != (0, 0, 0)),
]
ENDING: list[Objection] = [
    ("address_alignment", lambda r, e: (r.gpa, r.length) != (0, 0)),
]
WITH_DATA: list[Objection] = [
    ("length_zero", lambda r, e: r.length == 0),
    ("length_limit", lambda r, e: r.length > min(e["max_transfer"], LONGEST_TRANSFER)),
]
ON_DISK: list[Objection] = [
    ("length_alignment", lambda r, e: r.length % SECTOR_BYTES != 0),
    ("offset_alignment", lambda r, e: r.device_offset % SECTOR_BYTES != 0),
    ("offset_range", lambda r, e: r.device_offset + r.length > e["length"]),
    ("address_alignment", lambda r, e: r.operation in (DISCARD, WRITE_ZEROES) and r.gpa != 0),
]
ON_NIC: list[Objection] = [
    ("reserved_nonzero", lambda r, e: r.device_offset != 0 and r.operation not in TCP),
    ("length_alignment", lambda r, e: r.operation == TCP_OPEN and r.length != ADDRESS_BYTES),
    ("length_alignment", lambda r, e: (r.operation, r.flags) == (TCP_RECEIVE, 1) and r.length != ADDRESS_BYTES),
    ("length_alignment", lambda r, e: (r.operation, r.flags) == (TCP_RECEIVE, 2) and r.length % EVENT_BYTES != 0),
    ("frame_size", lambda r, e: r.operation == SEND and not SHORTEST_FRAME <= r.length <= LONGEST_FRAME),
    ("frame_size", lambda r, e: r.operation == SEND_HEADED and not 12 + SHORTEST_FRAME <= r.length <= LONGEST_HEADED),
    ("frame_size", lambda r, e: r.operation == ASSOCIATE and r.length != 128),
]


def grants(endpoint: dict, operation: int) -> bool:
    return operation in granted(endpoint["operations"])


@cache
def granted(mask: int) -> frozenset[int]:
    return frozenset(bit for bit, digit in enumerate(reversed(f"{mask:b}")) if digit == "1")


def first(objections: list[Objection], request: Request, endpoint: dict) -> str | None:
    return next((reason for reason, holds in objections if holds(request, endpoint)), None)


class Oracle:
    """Answers for one partition. Its memory must not change; make a new oracle instead."""

    def __init__(self, partition: Partition) -> None:
        self.partition = partition
        self.memory = lru_cache(maxsize=1 << 16)(self._memory)

    def answer(self, request: Request) -> Answer:
        """(reason, host extents), as `pyx.validate.Validator.validate` gives them."""
        reason = self._refuse(request)
        if reason is not None:
            return REASONS[reason], ()
        if request.operation in (FLUSH, DISCARD, WRITE_ZEROES, TCP_END):
            return 0, ()
        device_writes = request.operation in (READ, EXTENTS, RECEIVE, RECEIVE_HEADED, TCP_RECEIVE)
        return self.memory(request.gpa, request.length, device_writes)

    def _refuse(self, request: Request) -> str | None:
        partition = self.partition
        if reason := first(FORM, request, {}):
            return reason
        if partition.state not in LIVELY_STATES:
            return "partition_state"
        endpoint = partition.endpoints.get(request.endpoint)
        if endpoint is None or request.endpoint >= ENDPOINT_SLOTS:
            return "endpoint_unknown"
        if reason := first(GRANTED, request, endpoint):
            return reason
        if request.operation == FLUSH:
            return first(WITHOUT_DATA, request, endpoint)
        if request.operation == TCP_END:
            return first(ENDING, request, endpoint)
        if reason := first(WITH_DATA, request, endpoint):
            return reason
        return first(ON_DISK if endpoint["kind"] == ENDPOINT_KINDS["disk"] else ON_NIC, request, endpoint)

    def _memory(self, gpa: int, length: int, device_writes: bool) -> Answer:
        end = gpa + length
        if end > self.partition.memory_pages * PAGE_BYTES:
            return REASONS["address_range"], ()
        touched = range(gpa // PAGE_BYTES, (end - 1) // PAGE_BYTES + 1)
        for number in touched:
            page = self.partition.pages.get(number)
            if page is None:
                return REASONS["address_unmapped"], ()
            if page.withheld:
                return REASONS["address_withheld"], ()
            if not (page.writable if device_writes else page.readable):
                return REASONS["address_rights"], ()
        return 0, tuple(merged(self._pieces(gpa, end, touched)))

    def _pieces(self, gpa: int, end: int, touched: range) -> Iterator[tuple[int, int]]:
        """Host ranges [start, stop), page by page."""
        for number in touched:
            low, high = max(gpa, number * PAGE_BYTES), min(end, (number + 1) * PAGE_BYTES)
            host = self.partition.pages[number].frame * PAGE_BYTES - number * PAGE_BYTES
            yield host + low, host + high


PATH_KEY: list[Objection] = [
    ("key_invalid", lambda r, e: r.key != e["key"]),
    ("id_invalid", lambda r, e: r.id == 0),
    ("flags_unknown", lambda r, e: r.flags not in MAY_CARRY.get(r.operation, {0})),
    ("operation_unknown", lambda r, e: r.operation not in e["queue"]),
    ("list_limit", lambda r, e: r.list_count != 0),
    ("endpoint_foreign", lambda r, e: r.endpoint != e["index"]),
]
PACK = 128
PACKED_AT_MOST = 3


class Pack(NamedTuple):
    """Up to three requests in one slot of a queue pair. `entries`: (id, gpa, length), always three, zeros behind the
    last; `flags`: what the slot says, whether it is a pack of a valid number or not."""

    entries: tuple[tuple[int, int, int], ...]
    endpoint: int
    operation: int
    flags: int
    key: int

    def requests(self, generation: int) -> list[Request]:
        """What the slot asks for: each entry alone, without offset, for the life of the endpoint that the key stands
        for. A pack of no valid number is one request whose flags say so."""
        if PACK < self.flags <= PACK + PACKED_AT_MOST:
            count, flags = self.flags - PACK, 0
        else:
            count, flags = 1, self.flags
        return [Request(id, gpa, 0, generation, length, 0, self.endpoint, self.operation, flags, 0, self.key)
                for id, gpa, length in self.entries[:count]]


class PairOracle(Oracle):
    """Answers of a device on a queue pair: `key` opens endpoint `index`, `queue` are the operations that belong on it.

    A page that is not mapped, or to nobody, is not in the translation entry: to the device it is outside of memory.
    """

    def __init__(self, partition: Partition, index: int, key: int, queue: frozenset[int]) -> None:
        super().__init__(partition)
        self.pair = {**partition.endpoints[index], "index": index, "key": key, "queue": queue}

    def answers(self, slot: Request | Pack) -> list[tuple[int, Answer]]:
        """(id, answer) of each request of a slot."""
        requests = slot.requests(self.pair["generation"]) if isinstance(slot, Pack) else [slot]
        return [(request.id, self.answer(request)) for request in requests]

    def _refuse(self, request: Request) -> str | None:
        endpoint = self.pair
        if reason := first(PATH_KEY, request, endpoint) or first(GRANTED, request, endpoint):
            return reason
        if request.operation == FLUSH:
            return first(WITHOUT_DATA, request, endpoint)
        if request.operation == TCP_END:
            return first(ENDING, request, endpoint)
        return (first(WITH_DATA, request, endpoint)
                or first(ON_DISK if endpoint["kind"] == ENDPOINT_KINDS["disk"] else ON_NIC, request, endpoint))

    def _memory(self, gpa: int, length: int, device_writes: bool) -> Answer:
        pieces: list[tuple[int, int]] = []
        before = None
        for number in range(gpa // PAGE_BYTES, (gpa + length - 1) // PAGE_BYTES + 1):
            page = self.partition.pages.get(number)
            if page is None or not (page.readable or page.writable or page.withheld):
                return REASONS["address_range"], ()
            if page.withheld:
                return REASONS["address_withheld"], ()
            if not (page.writable if device_writes else page.readable):
                return REASONS["address_rights"], ()
            low = max(gpa, number * PAGE_BYTES)
            size = min(gpa + length, (number + 1) * PAGE_BYTES) - low
            host = page.frame * PAGE_BYTES + low % PAGE_BYTES
            if before == replace(page, frame=page.frame - 1):  # one run of frames with equal rights
                pieces[-1] = (pieces[-1][0], pieces[-1][1] + size)
            else:
                pieces.append((host, size))
            before = page
        return 0, tuple(pieces)


def merged(ranges: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """(hpa, length) of the ranges, neighbours joined."""
    start, stop = next(ranges)
    for low, high in ranges:
        if low == stop:
            stop = high
        else:
            yield start, stop - start
            start, stop = low, high
    yield start, stop - start

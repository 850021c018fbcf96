"""Request slots for the rings of a real guest: sound ones, and ones that break a rule.

What must become of a slot is worked out by the oracle of the validator, behind the checks of the channel server, which
sees the queue that a request came by.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from pyx.abi import ENDPOINT_KINDS, OPERATIONS, REASONS, STATES, operations_mask
from pyx.validate import pack
from tests.framework import oracle
from tests.framework.oracle import Oracle, Page, Request

PAGE = 4096
#: operations that belong on a queue, by kind of endpoint and number of the queue
ON_QUEUE = {
    ("disk", 0): ("read", "write", "flush", "discard", "write_zeroes", "extents"),
    ("nic", 0): ("send", "send_headed", "tcp_open", "tcp_send", "tcp_receive", "tcp_end"),
    ("nic", 1): ("receive", "receive_headed"),
}
BORDERS = [
    0, 1, 2, 13, 14, 15, 511, 512, 513, 4095, 4096, 4097, 65535, 65536, 65550, 65551, (1 << 20) - 512, 1 << 20,
    (1 << 20) + 512, (1 << 31) - 1, 1 << 31, (1 << 32) - 512, (1 << 32) - 1, 1 << 32, 1 << 47, (1 << 63) - 1, 1 << 63,
    (1 << 64) - (1 << 20), (1 << 64) - 4096, (1 << 64) - 512, (1 << 64) - 1,
]  # fmt: skip
BITS = {"id": 64, "gpa": 64, "device_offset": 64, "endpoint_generation": 64, "length": 32, "list_count": 32,
        "endpoint": 16, "operation": 8, "flags": 8, "taken": 32, "key": 64}  # fmt: skip


class Target:
    """One queue of one endpoint of a running guest, as `hostctl view` tells of it."""

    def __init__(self, view: dict[str, Any], endpoint: str, queue: int = 0) -> None:
        enforced = view["enforced"]
        self.pages: int = enforced["memory_pages"]
        self.size = self.pages * PAGE
        rows = {row["name"]: row for row in enforced["endpoints"]}
        self.row = rows[endpoint]
        self.kind = "nic" if "send" in self.row["operations"] else "disk"
        self.operations = ON_QUEUE[self.kind, queue]
        everywhere = {number: Page(number + 1, True, True) for number in range(self.pages)}
        self._oracle = Oracle(oracle.Partition(
            STATES[enforced["state"]], self.pages, {row["index"]: _as_oracle(row) for row in rows.values()}, everywhere
        ))  # fmt: skip

    def sound(self, **fields: int) -> Request:
        """A request that is carried out, but for `fields`."""
        operation = "receive" if "receive" in self.operations else "send" if "send" in self.operations else "read"
        request = Request(
            id=1 << 16, gpa=0, device_offset=0, endpoint_generation=self.row["generation"], length=512, list_count=0,
            endpoint=self.row["index"], operation=OPERATIONS[operation], flags=0, taken=0, key=0,
        )  # fmt: skip
        return request._replace(**fields)

    def expected(self, request: Request) -> int:
        """The reason that this request must be refused with, 0 where it must be carried out."""
        if request.id == 0:
            return REASONS["id_invalid"]
        if request.key:
            return REASONS["reserved_nonzero"]
        if request.list_count:
            return REASONS["list_limit"]
        if request.endpoint != self.row["index"]:
            return REASONS["endpoint_foreign"]
        if request.operation not in [OPERATIONS[name] for name in self.operations]:
            return REASONS["operation_unknown"]
        return self._oracle.answer(request)[0]

    def malformed(self, generator: random.Random, count: int) -> Iterator[Request]:
        """Requests that differ from a sound one in one to four fields and must all be refused; each id but 0 once."""
        likely = {
            "gpa": [self.size - 512, self.size - 1, self.size, self.size + 1],
            "device_offset": [self.row["length"] - 512, self.row["length"], self.row["length"] + 512],
            "endpoint_generation": [self.row["generation"] + step for step in (-1, 1, 1 << 32)],
            "length": [512, 1024, self.row["max_transfer"], self.row["max_transfer"] + 1],
            "endpoint": range(40),
            "operation": range(8),
        }
        number = 0
        while number < count:
            fields = {}
            for name in generator.sample(list(BITS), generator.randint(1, 4)):
                limit = 1 << BITS[name]
                values = generator.choice((BORDERS, likely.get(name, BORDERS), [generator.getrandbits(BITS[name])]))
                fields[name] = generator.choice(values) % limit
            identity = 0 if fields.get("id") == 0 else (number + 1) << 16 | generator.getrandbits(16)
            request = self.sound(**{**fields, "id": identity})
            if request.operation == OPERATIONS["path"]:
                continue  # refused for what is in flight, or by the monitor: that differs, and has tests of its own
            if self.expected(request):
                number += 1
                yield request


def slots(requests: Sequence[Request]) -> bytes:
    return pack(*zip(*requests, strict=True))


def slot(request: Request) -> str:
    """As guests' raw calls take it."""
    return slots([request]).hex()


def call_slot(call: int, name: bytes = b"", identity: int = 1 << 16, reserved: int = 0) -> str:
    """A system call as it stands in a call ring: a hostile guest has no library of ours to make it."""
    return struct.pack("<Q48sHHHH", identity, name, call, 0, 0, reserved).hex()


def _as_oracle(row: dict[str, Any]) -> dict[str, Any]:
    kind = "nic" if "send" in row["operations"] else "disk"
    return {
        **row, "kind": ENDPOINT_KINDS[kind], "operations": operations_mask(*row["operations"]),
        "flags": oracle.READ_ONLY if row["read_only"] else 0,
    }  # fmt: skip

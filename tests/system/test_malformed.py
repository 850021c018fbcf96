"""Malformed descriptors through the real rings to the real monitor: each refused for its own reason, none carried out
(rules.md test 3).

The expected reason of each is worked out here, by the validator's oracle, before the guest sends it.
"""

import random
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from pyx.abi import OPERATIONS, REASON_NAMES
from tests.framework.host import Host
from tests.framework.slots import Request, Target, slots

SIZE = 1 << 20
COUNT, COUNT_LONG = 210_000, 10_000_000
CHUNK = 35_000  # slots of one file
QUEUES = [("vda", 0), ("vdb", 0), ("eth0", 0), ("eth0", 1)]
#: what a request of a guest can be refused with; the other reasons belong to states and roles
REACHABLE = {
    "id_invalid", "reserved_nonzero", "list_limit", "endpoint_foreign", "operation_unknown", "flags_unknown",
    "generation_stale", "read_only", "length_zero", "length_limit", "length_alignment", "offset_alignment",
    "offset_range", "address_range", "address_alignment", "frame_size",
}  # fmt: skip
DISKS = [{"name": "vda", "size": SIZE}, {"name": "vdb", "size": SIZE, "read_only": True}]


def test_malformed_descriptors_are_refused(host: Host, seed: int, long: bool) -> None:
    names = ("innocent", "guilty")
    _, guest = (host.guest(name, disks=DISKS, nics=["eth0"]) for name in names)
    pids = host.pids()
    generator = random.Random(seed)
    targets = {where: Target(host.view("guilty"), *where) for where in QUEUES}
    total: Counter[tuple[str, str]] = Counter()  # (endpoint, reason)
    before = host.metrics()
    for where, count in chunks(COUNT_LONG if long else COUNT):
        requests = list(targets[where].malformed(generator, count))
        reasons = [targets[where].expected(request) for request in requests]
        write(host, requests, reasons)
        answer = guest.call("raw:stream", endpoint=where[0], queue=where[1], file="slots.bin")
        assert answer == {"answered": count, "accepted": 0, "foreign": 0, "wrong": [],
                          "reasons": {str(reason): n for reason, n in Counter(reasons).items()}}  # fmt: skip
        total.update((where[0], REASON_NAMES[reason]) for reason in reasons)
    assert {reason for _, reason in total} == REACHABLE
    metrics = host.metrics()
    found = {(dict(key)["partition"], dict(key)["endpoint"], dict(key)["reason"]): count
             for key, count in metrics.changes(before, "io_refused_total").items()}  # fmt: skip
    assert found == {("guilty", *where): count for where, count in total.items()}
    for name in ("translations_total", "io_operations_completed_total", "io_failed_total"):
        assert metrics.changes(before, name) == {}, name
    assert host.pids() == pids
    assert host.failed_checks() == []
    for name in names:  # both may go on as if nothing had been
        assert host.row(name)["state"] == "running"
    guest.call("disk:write", disk="vda", length=65536, seed=1)
    guest.call("disk:read", disk="vda", length=65536, seed=1)


def chunks(count: int) -> Iterator[tuple[tuple[str, int], int]]:
    """(queue, slots) of each file, queue after queue."""
    number = 0
    while count > 0:
        yield QUEUES[number % len(QUEUES)], min(count, CHUNK)
        count -= CHUNK
        number += 1


def write(host: Host, requests: Sequence[Request], reasons: Sequence[int]) -> None:
    """The file that the guest reads, in its program folder."""
    (host.programs / "slots.bin").write_bytes(slots(requests) + struct.pack(f"<{len(reasons)}H", *reasons))


def test_random_bytes_are_refused(host: Host, seed: int, long: bool) -> None:
    """Slots of noise: no generation is ever guessed."""
    guest = host.guest("guilty", disks=DISKS, nics=["eth0"])
    target = Target(host.view("guilty"), "vda")
    generator = random.Random(seed)
    count = COUNT_LONG if long else 20_000
    for first in range(0, count, CHUNK):
        requests = [noise(generator, number) for number in range(min(CHUNK, count - first))]
        reasons = [target.expected(request) for request in requests]
        assert 0 not in reasons
        write(host, requests, reasons)
        answer: dict[str, Any] = guest.call("raw:stream", endpoint="vda", file="slots.bin")
        assert (answer["answered"], answer["accepted"], answer["wrong"]) == (len(requests), 0, [])


def noise(generator: random.Random, number: int) -> Request:
    def bits(count: int) -> int:
        return generator.getrandbits(count) if generator.random() < 0.5 else 0

    operation = bits(8)
    if operation == OPERATIONS["path"]:
        operation = 0  # its answer depends on what is in flight
    return Request(
        (number + 1) << 16, bits(64), bits(64), generator.getrandbits(64), bits(32), bits(32), bits(16), operation,
        bits(8), bits(32), bits(64),
    )  # fmt: skip

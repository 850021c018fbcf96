"""Each rule of a request: who breaks it is told which, it is counted for him alone, and nothing happens (U5, U8).

An innocent guest with the same endpoints stands beside; its counters must not move.
"""

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from pyx.abi import FRAME_MAX, HEADED_MAX, OPERATIONS, PATHS, REASONS, STATUSES, TRANSFER_MAX
from tests.framework.host import Host
from tests.framework.puppet import Puppet
from tests.framework.slots import Target, slot

MIB = 1 << 20
SIZE = 1 << 20  # of the disk; partition memory is twice that
NAME = "store"


class Case(NamedTuple):
    reason: str
    fields: dict[str, int]
    endpoint: str = "vda"
    queue: int = 0
    by_monitor: bool = True  # otherwise the channel server refuses


WRITE, FLUSH, SEND, RECEIVE = (OPERATIONS[name] for name in ("write", "flush", "send", "receive"))
TOP = 1 << 64
CASES = [
    Case("id_invalid", {"id": 0}, by_monitor=False),
    Case("reserved_nonzero", {"key": 1 << 63}, by_monitor=False),
    Case("reserved_nonzero", {"device_offset": 1}, "eth0"),
    Case("list_limit", {"list_count": 1}, by_monitor=False),
    Case("endpoint_foreign", {"endpoint": 1}, by_monitor=False),
    Case("endpoint_foreign", {"endpoint": 31}, by_monitor=False),
    Case("endpoint_foreign", {"endpoint": 0xFFFF}, by_monitor=False),
    Case("operation_unknown", {"operation": 0}, by_monitor=False),
    Case("operation_unknown", {"operation": 255}, by_monitor=False),
    Case("operation_unknown", {"operation": SEND}, by_monitor=False),
    Case("operation_unknown", {"operation": RECEIVE}, "eth0", by_monitor=False),
    Case("operation_unknown", {"operation": SEND}, "eth0", 1, by_monitor=False),
    Case("flags_unknown", {"flags": 1}),
    Case("flags_unknown", {"flags": 128}),
    Case("generation_stale", {"endpoint_generation": 0}),
    Case("generation_stale", {"endpoint_generation": TOP - 1}),
    Case("read_only", {"operation": WRITE}, "vdb"),
    Case("length_zero", {"length": 0}),
    Case("length_zero", {"length": 0}, "eth0", 1),
    Case("length_limit", {"length": TRANSFER_MAX + 512}),
    Case("length_limit", {"length": (1 << 32) - 512}),
    Case("frame_size", {"length": FRAME_MAX + 1}, "eth0"),
    Case("length_limit", {"length": HEADED_MAX + 1}, "eth0"),
    Case("length_alignment", {"length": 511}),
    Case("length_alignment", {"length": 513}),
    Case("offset_alignment", {"device_offset": 511}),
    Case("offset_range", {"device_offset": SIZE}),
    Case("offset_range", {"device_offset": SIZE - 512, "length": 1024}),
    Case("offset_range", {"device_offset": TOP - 512}),
    Case("offset_range", {"device_offset": TOP - 512, "length": 1024}),
    Case("offset_range", {"device_offset": 256 << 10}, "vdc"),  # the end of its sectors, not of the file
    Case("address_range", {"gpa": 2 * MIB}),
    Case("address_range", {"gpa": 2 * MIB - 511}),
    Case("address_range", {"gpa": 2 * MIB - 511}, "eth0", 1),
    Case("address_range", {"gpa": TOP - 1}),
    Case("address_range", {"gpa": TOP - 512}),  # the end wraps to 0
    Case("address_range", {"gpa": TOP - 256}, "eth0"),
    Case("address_alignment", {"operation": FLUSH, "length": 0, "gpa": 4096}),
    Case("address_alignment", {"operation": FLUSH, "length": 512}),
    Case("frame_size", {"length": 13}, "eth0"),
]


NOTHING_MOVED = (
    "translations_total", "io_operations_completed_total", "io_failed_total", "device_fenced_requests_total",
    "disk_reads_completed_total", "network_transmit_packets_total", "network_buffers_posted_total",
)  # fmt: skip


@pytest.fixture(scope="module")
def guest(module_host: Host) -> Iterator[Puppet]:
    """Endpoints in this order: vda 0, vdb 1, vdc 2, eth0 3; of the innocent one as well."""
    disks = [
        {"name": "vda", "size": SIZE},
        {"name": "vdb", "size": SIZE, "read_only": True},
        {"name": "vdc", "size": 4 * SIZE, "offset": SIZE, "limit": 256 << 10},
    ]
    _, guilty = (module_host.guest(name, disks=disks, nics=["eth0"], memory=2 * MIB) for name in ("innocent", NAME))
    yield guilty
    module_host.remove_guests()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.reason}-{case.endpoint}-{case.fields}")
def test_each_rule(module_host: Host, guest: Puppet, case: Case) -> None:
    host = module_host
    target = Target(host.view(NAME), case.endpoint, case.queue)
    request = target.sound(**case.fields)
    assert target.expected(request) == REASONS[case.reason], "the test's own idea of this request is another one"
    before = host.metrics()
    (answer,) = guest.call("raw:submit", endpoint=case.endpoint, queue=case.queue, slots=[slot(request)])
    assert answer == [request.id, STATUSES["refused"], REASONS[case.reason], 0]
    metrics = host.metrics()
    labels = {"partition": NAME, "endpoint": case.endpoint, "device": "nic0" if case.endpoint == "eth0" else "disk0"}
    assert metrics.changes(before, "io_refused_total") == {key({**labels, "reason": case.reason}): 1}
    expected = {key({"partition": NAME, "reason": case.reason}): 1} if case.by_monitor else {}
    assert metrics.changes(before, "translations_refused_total") == expected
    for name in NOTHING_MOVED:
        assert metrics.changes(before, name) == {}, name
    assert metrics.changes(before, "io_completions_total") == {key(labels): 1}


def test_the_driver_names_the_reason(guest: Puppet) -> None:
    """What a user's program gets is the status and the reason by name."""
    attempts = {
        ("vdb", "write", 0, 512): ["refused", "read_only"],
        ("vdb", "read", 0, 512): [],
        ("vdc", "read", 256 << 10, 512): ["refused", "offset_range"],
        ("vdc", "write", (256 << 10) - 512, 512): [],
        ("vda", "read", SIZE - 512, 1024): ["refused", "offset_range"],
        ("vda", "write", 3, 512): ["refused", "offset_alignment"],
    }
    for (disk, operation, offset, length), expected in attempts.items():
        answer = guest.call("disk:attempt", disk=disk, operation=operation, offset=offset, length=length)
        assert answer == expected, (disk, operation, offset, length)


def test_sound_requests_at_the_borders_are_carried_out(module_host: Host, guest: Puppet) -> None:
    """The other side of each border: the last sector, the last byte of memory, the longest transfer."""
    target = Target(module_host.view(NAME), "vda")
    requests = [
        target.sound(device_offset=SIZE - 512),
        target.sound(gpa=2 * MIB - 512),
        target.sound(gpa=2 * MIB - TRANSFER_MAX, length=TRANSFER_MAX, operation=WRITE),
        target.sound(gpa=MIB - 1, length=TRANSFER_MAX),
        target.sound(operation=FLUSH, length=0),
        target.sound(id=TOP - 1),
    ]
    answers = guest.call("raw:submit", endpoint="vda", slots=[slot(request) for request in requests])
    for request, answer in zip(requests, answers, strict=True):
        moved = 0 if request.operation == FLUSH else request.length
        assert answer == [request.id, STATUSES["ok"], 0, moved], request


@pytest.mark.parametrize("path", [0, PATHS["copy"], PATHS["direct"], 4, 1 << 31])
def test_a_path_that_nobody_wants(module_host: Host, guest: Puppet, path: int) -> None:
    """Of no number, or of one that no transaction wants: the guest stays where it is."""
    request = Target(module_host.view(NAME), "vda").sound(operation=OPERATIONS["path"], length=path)
    (answer,) = guest.call("raw:submit", endpoint="vda", slots=[slot(request)])
    assert answer == [request.id, STATUSES["refused"], REASONS["path_denied"], 0]
    assert module_host.path(NAME, "vda") == "redirect"


def test_a_path_with_requests_in_flight(module_host: Host, guest: Puppet) -> None:
    """A posted receive buffer is one, though it came by the other queue of the endpoint."""
    before = module_host.metrics()
    posted = Target(module_host.view(NAME), "eth0", 1).sound()
    guest.call("raw:throw", endpoint="eth0", queue=1, slots=[slot(posted)])
    module_host.until(lambda: bool(module_host.metrics().changes(before, "network_buffers_posted_total")))
    for path in (PATHS["redirect"], PATHS["direct"]):
        request = Target(module_host.view(NAME), "eth0").sound(operation=OPERATIONS["path"], length=path)
        (answer,) = guest.call("raw:submit", endpoint="eth0", slots=[slot(request)])
        assert answer == [request.id, STATUSES["refused"], REASONS["path_busy"], 0]


def key(labels: dict[str, str]) -> frozenset[tuple[str, str]]:
    return frozenset(labels.items())

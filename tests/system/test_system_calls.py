"""System calls, the only way into the monitor: sound ones are answered, all others are refused with a reason and
counted by partition, call and result (U15)."""

from collections.abc import Iterator

import pytest

from pyx.abi import CALLS
from tests.framework.host import Host
from tests.framework.puppet import Puppet
from tests.framework.slots import call_slot

CONNECT, SUBMIT, NULL = CALLS["connect"], CALLS["submit"], CALLS["null"]
UNKNOWN = "unknown"  # the call label of numbers that are no call
IDENTITY = 7 << 16


@pytest.fixture(scope="module")
def guest(module_host: Host) -> Iterator[Puppet]:
    """Endpoints vda, vdb and eth0; another guest has an endpoint `other`."""
    disks = [{"name": name, "size": "64KiB"} for name in ("vda", "vdb")]
    module_host.guest("neighbour", disks=[{"name": "other", "size": "64KiB"}])
    yield module_host.guest("guest", disks=disks, nics=["eth0"])
    module_host.remove_guests()


def counted(host: Host, before, call: str, result: str, count: int = 1) -> None:
    labels = {"partition": "guest", "call": call, "result": result}
    assert host.metrics().changes(before, "system_calls_total") == {frozenset(labels.items()): count}


@pytest.mark.parametrize(("service", "index"), [("vda", 0), ("vdb", 1), ("eth0", 2)])
def test_connect_to_an_own_endpoint(module_host: Host, guest: Puppet, service: str, index: int) -> None:
    before = module_host.metrics()
    assert guest.call("calls:connect", service=service) == ["ok", index]
    counted(module_host, before, "connect", "done")


@pytest.mark.parametrize(
    ("service", "reason"),
    [
        ("vdc", "service_unknown"),
        ("vd", "service_unknown"),
        ("vdaa", "service_unknown"),
        ("x" * 31, "service_unknown"),
        ("other", "service_unknown"),  # of the neighbour: it does not exist for this guest
        ("neighbour", "service_unknown"),
        ("monitor", "service_unknown"),
        ("ultravisor", "service_denied"),
        ("command", "service_denied"),
        ("operations", "service_denied"),
        ("console", "service_denied"),
    ],
)
def test_connect_to_anything_else(module_host: Host, guest: Puppet, service: str, reason: str) -> None:
    before = module_host.metrics()
    assert guest.call("calls:connect", service=service) == ["refused", reason]
    counted(module_host, before, "connect", reason)


@pytest.mark.parametrize(
    ("slot", "call", "reason", "identity"),
    [
        (call_slot(NULL, identity=0), "null", "call_malformed", 0),
        (call_slot(NULL, identity=IDENTITY, reserved=1), "null", "call_malformed", IDENTITY),
        (call_slot(CONNECT, identity=IDENTITY), "connect", "call_malformed", IDENTITY),
        (call_slot(CONNECT, b"v" * 32, IDENTITY), "connect", "call_malformed", IDENTITY),
        (call_slot(CONNECT, b"v" * 48, IDENTITY), "connect", "call_malformed", IDENTITY),
        (call_slot(SUBMIT, identity=IDENTITY), "submit", "call_denied", IDENTITY),
        (call_slot(SUBMIT, b"\xff" * 48, IDENTITY), "submit", "call_denied", IDENTITY),
        (call_slot(0, identity=IDENTITY), UNKNOWN, "call_unknown", IDENTITY),
        (call_slot(max(CALLS.values()) + 1, identity=IDENTITY), UNKNOWN, "call_unknown", IDENTITY),
        (call_slot(0xFFFF, identity=IDENTITY), UNKNOWN, "call_unknown", IDENTITY),
        (call_slot(0xFFFF, identity=0), UNKNOWN, "call_malformed", 0),
    ],
)
def test_malformed_calls(
    module_host: Host, guest: Puppet, slot: str, call: str, reason: str, identity: int
) -> None:
    before = module_host.metrics()
    assert guest.call("calls:raw", slots=[slot]) == [[identity, "refused", reason, 0]]
    counted(module_host, before, call, reason)


def test_many_calls_are_counted_exactly(module_host: Host, guest: Puppet) -> None:
    before = module_host.metrics()
    slots = [call_slot(NULL, identity=number << 16) for number in range(1, 1001)]
    answers = guest.call("calls:raw", slots=slots)
    assert answers == [[number << 16, "ok", "none", 0] for number in range(1, 1001)]
    counted(module_host, before, "null", "done", 1000)


def test_guests_use_the_same_call_for_their_devices(host: Host) -> None:
    """What `guest.disk(...)` does first: one connect for each endpoint, whenever it is opened the first time."""
    guest = host.guest("opener", disks=[{"name": "vda", "size": "64KiB"}])
    for _ in range(3):
        guest.call("disk:facts", disk="vda")
    assert host.metrics().by("result", "system_calls_total", partition="opener", call="connect") == {"done": 1}

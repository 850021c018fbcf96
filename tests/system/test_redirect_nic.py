"""The redirected path of a NIC: frames go from guest memory into guest memory, or are dropped and counted (U10, W7)."""

import hashlib
import time
from collections.abc import Iterator, Sequence

import pytest

from hostd.wire import RemoteError
from pyx.abi import FRAME_MAX, FRAME_MIN, HEADED_MAX
from tests.framework.host import Host
from tests.framework.metrics import Metrics
from tests.framework.puppet import Puppet
from tests.system.guests.frames import frame

BROADCAST = "ff" * 6
NOBODY = "02" * 6
BUFFERS = 32
BORDERS = (1500, 1514, 2048, 4095, 4096, 4097, 8192, 9014, 65535, 65536, FRAME_MAX - 1, FRAME_MAX)


def groups(sizes: Sequence[int]) -> Iterator[list[tuple[int, int]]]:
    """(size, seed) of frames, as many at once as the receiver has buffers."""
    for first in range(0, len(sizes), BUFFERS):
        yield [(size, size) for size in sizes[first : first + BUFFERS]]


def digests(to: str, source: str, frames: Sequence[tuple[int, int]]) -> list[str]:
    contents = (frame(bytes.fromhex(to), bytes.fromhex(source), size, seed) for size, seed in frames)
    return [hashlib.sha256(content).hexdigest() for content in contents]


def conserved(metrics: Metrics) -> None:
    """What guests sent was delivered or dropped for a reason, at every port (design.md section 12)."""
    delivered = metrics.value("network_receive_packets_total")
    assert metrics.value("network_forwarded_packets_total") == delivered
    assert metrics.value("network_dma_bytes_total") == metrics.value("network_receive_bytes_total")
    assert metrics.value("network_buffers_returned_total") == delivered
    assert metrics.value("host_copied_bytes_total") == 0


@pytest.fixture
def pair(host: Host) -> tuple[Puppet, Puppet]:
    sender, receiver = (host.guest(name, nics=["eth0"], memory="8MiB") for name in ("sender", "receiver"))
    return sender, receiver


def test_frames_of_every_size_arrive_as_they_were_sent(host: Host, pair: tuple[Puppet, Puppet], long: bool) -> None:
    sender, receiver = pair
    source = sender.call("nic:open", nic="eth0", buffers=1)
    to = receiver.call("nic:open", nic="eth0", buffers=BUFFERS, size=FRAME_MAX)
    sizes = range(FRAME_MIN, FRAME_MAX + 1) if long else [*range(FRAME_MIN, 130), *BORDERS]
    for frames in groups(sizes):
        assert sender.call("nic:send", nic="eth0", to=to, frames=frames) == {}
        assert receiver.call("nic:receive", nic="eth0", count=len(frames)) == digests(to, source, frames)
    metrics = host.metrics()
    conserved(metrics)
    assert metrics.value("network_transmit_packets_total", partition="sender") == len(sizes)
    assert metrics.value("network_receive_packets_total", partition="receiver") == len(sizes)
    assert metrics.value("network_receive_bytes_total", partition="receiver") == sum(sizes)
    # One request for each transmission (W7).
    assert metrics.value("io_operations_completed_total", partition="sender", op="send") == len(sizes)


def test_a_broadcast_reaches_everybody_but_its_sender(host: Host) -> None:
    guests = [host.guest(f"g{number}", nics=["eth0"]) for number in range(4)]
    addresses = [guest.call("nic:open", nic="eth0") for guest in guests]
    frames = [(60 + number, number) for number in range(10)]
    assert guests[0].call("nic:send", nic="eth0", to=BROADCAST, frames=frames) == {}
    for guest in guests[1:]:
        assert guest.call("nic:receive", nic="eth0", count=10) == digests(BROADCAST, addresses[0], frames)
    assert guests[0].call("nic:receive", nic="eth0", count=1, timeout=0.05) == []
    metrics = host.metrics()
    conserved(metrics)
    assert metrics.value("network_transmit_packets_total", partition="g0") == 10
    assert metrics.value("network_forwarded_packets_total", partition="g0") == 30


def test_a_third_guest_sees_nothing(host: Host, pair: tuple[Puppet, Puppet]) -> None:
    sender, receiver = pair
    third = host.guest("third", nics=["eth0"])
    third.call("nic:open", nic="eth0")
    to = receiver.call("nic:open", nic="eth0")
    sender.call("nic:send", nic="eth0", to=to, frames=[(100, 1)] * 20)
    assert len(receiver.call("nic:receive", nic="eth0", count=20)) == 20
    assert third.call("nic:receive", nic="eth0", count=1, timeout=0.05) == []


@pytest.mark.parametrize(
    ("reason", "to", "source"),
    [("no_destination", NOBODY, ""), ("no_destination", "self", ""), ("frame_source", "peer", "020000000bad"),
     ("frame_source", BROADCAST, "peer")],
)  # fmt: skip
def test_frames_without_a_way_are_dropped_and_counted(
    host: Host, pair: tuple[Puppet, Puppet], reason: str, to: str, source: str
) -> None:
    sender, receiver = pair
    known = {"self": sender.call("nic:open", nic="eth0"), "peer": receiver.call("nic:open", nic="eth0")}
    to, source = known.get(to, to), known.get(source, source)
    assert sender.call("nic:send", nic="eth0", to=to, source=source, frames=[(64, 1)] * 7) == {reason: 7}
    assert receiver.call("nic:receive", nic="eth0", count=1, timeout=0.05) == []
    metrics = host.metrics()
    conserved(metrics)
    assert metrics.by("reason", "network_transmit_drops_total") == {reason: 7}
    assert metrics.value("network_transmit_drops_total", partition="sender", reason=reason) == 7
    assert metrics.value("network_transmit_packets_total", partition="sender") == 0


def test_frames_that_do_not_fit_are_dropped_at_the_receiver(host: Host, pair: tuple[Puppet, Puppet]) -> None:
    sender, receiver = pair
    to = receiver.call("nic:open", nic="eth0", buffers=4, size=256)
    sender.call("nic:send", nic="eth0", to=to, frames=[(256, 1), (257, 2), (100, 3)])
    assert len(receiver.call("nic:receive", nic="eth0", count=2)) == 2
    metrics = host.metrics()
    conserved(metrics)
    assert metrics.by("reason", "network_receive_drops_total") == {"buffer_small": 1}
    assert metrics.value("network_receive_drops_total", partition="receiver", reason="buffer_small") == 1


def test_frames_wait_a_moment_for_a_receiver_without_buffers(host: Host, pair: tuple[Puppet, Puppet]) -> None:
    """Bounded: then they are dropped, and only their sender has waited."""
    sender, receiver = pair
    to = receiver.call("nic:open", nic="eth0", buffers=3)
    begin = time.monotonic()
    assert sender.call("nic:send", nic="eth0", to=to, frames=[(64, 1)] * 5) == {"no_buffer": 2}
    assert time.monotonic() - begin < 2.0
    assert len(receiver.call("nic:receive", nic="eth0", count=3)) == 3  # gives three buffers back
    assert sender.call("nic:send", nic="eth0", to=to, frames=[(64, 2)] * 3) == {}
    metrics = host.metrics()
    conserved(metrics)
    assert metrics.value("network_receive_drops_total", partition="receiver", reason="no_buffer") == 2
    assert metrics.value("network_held_packets_total", partition="sender") >= 1


@pytest.mark.parametrize(
    ("size", "reason"),
    [(1, "frame_size"), (FRAME_MIN - 1, "frame_size"), (FRAME_MAX + 1, "frame_size"), (HEADED_MAX + 1, "length_limit")],
)
def test_runts_and_giants_are_refused(host: Host, pair: tuple[Puppet, Puppet], size: int, reason: str) -> None:
    sender, receiver = pair
    to = receiver.call("nic:open", nic="eth0", buffers=4, size=FRAME_MAX)
    with pytest.raises(RemoteError) as refused:
        sender.call("nic:send", nic="eth0", to=to, frames=[(size, 1)])
    assert refused.value.details == {"status": "refused", "reason": reason}
    assert host.metrics().value("io_refused_total", partition="sender", reason=reason) == 1

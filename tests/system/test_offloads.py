"""Frames with a header in front through the device: finished for who takes none, as they are for who does.

What comes out is judged by scapy and tshark (A2, A5).
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from scapy.layers.l2 import Ether

from hostd.wire import RemoteError
from pyx import offload
from pyx.abi import FRAME_LARGE_MAX, NET_HEADER
from tests.framework.host import Host
from tests.framework.packets import CWR, FIN, PSH, drawn, frame, objections, transport, without_checksum
from tests.framework.puppet import Puppet

MTU_FRAME = 1514
LARGE = FRAME_LARGE_MAX
#: paths of sender and receiver; the conventional one carries checksums and no large frames
PATHS = ["redirect", "direct"]


def started(host: Host, path: str, **receiver: object) -> tuple[Puppet, Puppet, str, str]:
    nic = {"name": "eth0", "path": path}
    sender, taker = (host.guest(name, nics=[nic], memory="16MiB") for name in ("sender", "receiver"))
    source = sender.call("offloads:open", nic="eth0", buffers=1)
    return sender, taker, source, taker.call("offloads:open", nic="eth0", **receiver)


def headed(packet: Ether, segment: int = 0) -> str:
    whole = bytearray(NET_HEADER) + without_checksum(packet)
    offload.fill(whole, segment)
    return whole.hex()


def taken(receiver: Puppet, count: int) -> list[bytes]:
    return [bytes.fromhex(text) for text in receiver.call("offloads:receive", nic="eth0", count=count)]


@pytest.mark.parametrize("path", PATHS)
def test_a_client_that_takes_no_header_gets_finished_frames(host: Host, tmp_path: Path, path: str) -> None:
    sender, receiver, source, to = started(host, path, buffers=128, size=MTU_FRAME + 60)
    generator = random.Random(5)
    everything: list[bytes] = []
    cut = 0
    for number in range(24):
        packet = drawn(generator, most=1300 if number % 2 else 60000, source=source, to=to)
        whole = bytearray.fromhex(headed(packet, 1300))
        wanted = offload.Judged(whole).frames()
        assert sender.call("offloads:send", nic="eth0", frames=[whole.hex()]) == {}
        assert taken(receiver, len(wanted)) == wanted
        cut += len(wanted) > 1
        everything += wanted
    assert objections(tmp_path, everything) in ([], None)
    metrics = host.metrics()
    assert cut > 5
    assert metrics.value("network_cut_packets_total", partition="sender") == cut
    assert metrics.value("network_completed_checksums_total", partition="sender") == len(everything)
    assert metrics.value("network_receive_packets_total", partition="receiver") == len(everything)
    assert metrics.value("network_transmit_packets_total", partition="sender") == 24


@pytest.mark.parametrize("path", PATHS)
def test_a_client_that_takes_headers_gets_large_frames_as_they_are(host: Host, path: str) -> None:
    sender, receiver, source, to = started(host, path, buffers=16, size=LARGE, headed=True)
    packet = frame(bytes(60000), source=source, to=to, flags=PSH | FIN | CWR | 16)
    whole = headed(packet, 1448)
    sender.call("offloads:send", nic="eth0", frames=[whole])
    (got,) = taken(receiver, 1)
    header = offload.NetHeader.load(got)
    sent = offload.NetHeader.load(bytes.fromhex(whole))
    assert (header.flags, header.gso_type) == (offload.NEEDS_CHECKSUM, offload.TYPES["tcp4"] | offload.ECN)
    assert (header.gso_size, header.num_buffers) == (1448, 1)
    assert (header.csum_start, header.csum_offset) == (sent.csum_start, sent.csum_offset)
    assert got[NET_HEADER:] == bytes.fromhex(whole)[NET_HEADER:]
    assert host.metrics().value("network_cut_packets_total") == 0


@pytest.mark.parametrize("path", ["copy", *PATHS])
def test_checksums_of_received_frames_are_told(host: Host, path: str) -> None:
    sender, receiver, source, to = started(host, path, buffers=16, size=2048, headed=True)
    good = bytes(frame(b"x" * 99, source=source, to=to))
    bad = good[:-1] + b"y"
    other = good[:12] + b"\x88\xb5" + good[14:]
    sender.call("offloads:send", nic="eth0", frames=[raw.hex() for raw in (good, bad, other)], headed=False)
    got = taken(receiver, 3)
    assert [raw[NET_HEADER:] for raw in got] == [good, bad, other]
    assert [offload.NetHeader.load(raw).flags for raw in got] == [offload.DATA_VALID, 0, 0]
    metrics = host.metrics()
    assert metrics.value("network_valid_checksums_total", partition="receiver") == 1
    assert metrics.value("network_invalid_checksums_total", partition="receiver") == 1


def test_a_large_frame_waits_midway_for_buffers(host: Host) -> None:
    """Nothing of it is lost, doubled or out of order."""
    sender, receiver, source, to = started(host, "direct", buffers=3, size=MTU_FRAME)
    packet = frame(random.Random(1).randbytes(14480), source=source, to=to)
    call = sender.begin("offloads:send", nic="eth0", frames=[headed(packet, 1448)])
    pieces = taken(receiver, 10)
    assert call.result() == {}
    assert b"".join(bytes(transport(Ether(piece)).payload) for piece in pieces) == bytes(transport(packet).payload)


def test_the_conventional_path_carries_no_large_frames(host: Host) -> None:
    """A refusal, so that the driver can do it itself; a frame of the MTU passes."""
    sender, receiver, source, to = started(host, "copy", buffers=16, size=MTU_FRAME)
    packet = frame(bytes(5000), source=source, to=to)
    with pytest.raises(RemoteError) as refused:
        sender.call("offloads:send", nic="eth0", frames=[headed(packet, 1448)])
    assert refused.value.details == {"status": "refused", "reason": "offload_withheld"}
    small = frame(bytes(500), source=source, to=to)
    sender.call("offloads:send", nic="eth0", frames=[headed(small)])
    assert taken(receiver, 1) == [bytes(small)]


@pytest.mark.parametrize("path", PATHS)
def test_headers_that_lie_are_dropped_and_counted(host: Host, path: str) -> None:
    sender, receiver, source, to = started(host, path, buffers=16, size=MTU_FRAME)
    whole = bytes.fromhex(headed(frame(bytes(5000), source=source, to=to), 1000))
    lies = [whole[:4] + b"\0\0" + whole[6:], b"\xff" + whole[1:], whole[:6] + b"\xff\xff" + whole[8:]]
    assert sender.call("offloads:send", nic="eth0", frames=[raw.hex() for raw in lies]) == {"offload_invalid": 3}
    assert receiver.call("offloads:receive", nic="eth0", count=1, timeout=0.05) == []
    metrics = host.metrics()
    assert metrics.by("reason", "network_transmit_drops_total") == {"offload_invalid": 3}


@pytest.mark.parametrize("path", PATHS)
def test_segments_of_a_connection_become_one_frame(host: Host, path: str) -> None:
    """Those that the device takes in one turn; cut again they are what was sent."""
    sender, receiver, source, to = started(host, path, buffers=64, size=LARGE, headed=True)
    packet = frame(random.Random(3).randbytes(58_000), source=source, to=to, flags=PSH | 16)
    whole = bytes.fromhex(headed(packet, 1000))
    pieces = offload.Judged(whole).frames()
    other = bytes(frame(b"of another connection", source=source, to=to, ports=(9, 9)))
    sent = [*pieces[:30], other, *pieces[30:]]
    sender.call("offloads:send", nic="eth0", frames=[piece.hex() for piece in sent], headed=False)
    got: list[bytes] = []
    while len(got) < len(sent):
        (one,) = taken(receiver, 1)
        got += offload.Judged(one).frames()
    assert got == sent
    metrics = host.metrics()
    merged = metrics.value("network_merged_packets_total", partition="receiver")
    assert merged == len(sent) - metrics.value("network_receive_packets_total", partition="receiver") > 40
    assert metrics.value("network_forwarded_packets_total") == metrics.value("network_receive_packets_total")
    assert metrics.value("network_dma_bytes_total") == metrics.value("network_receive_bytes_total")

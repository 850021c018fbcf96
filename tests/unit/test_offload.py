"""offload.h against scapy and tshark: what is finished in software, or by a device, is what a sender would have sent.

Every frame that comes of a large one is whole, with right sums, and together they carry the same bytes (A2, A5). The
device runs the same header; tests/system/test_offloads.py sends such frames through it.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from pyx import offload
from pyx.abi import FRAME_LARGE_MAX, FRAME_MAX, NET_HEADER, OFFLOADS
from tests.framework.packets import (
    ACK,
    CWR,
    FIN,
    PSH,
    RST,
    SYN,
    URG,
    again,
    drawn,
    frame,
    objections,
    transport,
    without_checksum,
)  # fmt: skip

FRAMES = 150
FRAMES_LONG = 20_000


def headed(raw: bytes, segment: int = 0) -> bytearray:
    """The frame with a header in front that asks for its checksum, and for pieces of `segment` bytes."""
    whole = bytearray(NET_HEADER) + raw
    offload.fill(whole, segment)
    return whole


def altered(whole: bytearray, **fields: int) -> bytes:
    header = offload.NetHeader.load(whole)
    names = ("flags", "gso_type", "hdr_len", "gso_size", "csum_start", "csum_offset", "num_buffers")
    return (
        bytes(offload.NetHeader(**{**{name: getattr(header, name) for name in names}, **fields})) + whole[NET_HEADER:]
    )


def refused(whole: bytes) -> str:
    with pytest.raises(offload.OffloadError) as told:
        offload.Judged(whole)
    return told.value.reason


def check_pieces(original: Ether, pieces: list[bytes], segment: int) -> None:
    """The rules of a cut, one by one, from the documents and not from offload.h."""
    payload = bytes(transport(original).payload)
    parsed = [Ether(raw) for raw in pieces]
    assert b"".join(bytes(transport(piece).payload) for piece in parsed) == payload
    assert [len(transport(piece).payload) for piece in parsed[:-1]] == [segment] * (len(pieces) - 1)
    for number, (piece, raw) in enumerate(zip(parsed, pieces, strict=True)):
        assert again(raw) == raw  # lengths and sums of all headers
        assert bytes(piece)[:14] == bytes(original)[:14]
        if IP in piece:
            assert piece[IP].id == (original[IP].id + number) % 65536
            assert (piece[IP].flags, piece[IP].tos, piece[IP].options) == (
                original[IP].flags, original[IP].tos, original[IP].options)  # fmt: skip
        else:
            assert piece[IPv6].fl == original[IPv6].fl
        if UDP in piece:
            assert piece[UDP].chksum != 0
            continue
        last = number + 1 == len(pieces)
        wanted = int(original[TCP].flags)
        if not last:
            wanted &= ~(FIN | PSH)
        if number:
            wanted &= ~CWR
        assert int(piece[TCP].flags) == wanted
        assert piece[TCP].seq == (original[TCP].seq + number * segment) % (1 << 32)
        assert (piece[TCP].options, piece[TCP].ack, piece[TCP].window) == (
            original[TCP].options, original[TCP].ack, original[TCP].window)  # fmt: skip


def test_checksums_and_cuts_are_those_of_scapy(tmp_path: Path, long: bool) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    generator = random.Random(seed)
    everything: list[bytes] = []
    kinds: set[tuple[int, bool, bool]] = set()
    for _ in range(FRAMES_LONG if long else FRAMES):
        packet = drawn(generator, most=generator.choice((1400, 64000)))
        whole = bytes(packet)
        segment = generator.choice((0, 0, 536, 1448, 8948, 65000))
        judged = offload.Judged(headed(without_checksum(packet), segment))
        pieces = judged.frames()
        if len(pieces) == 1:
            assert pieces == [whole]
        else:
            check_pieces(Ether(whole), pieces, segment)
        assert max(map(len, pieces)) == judged.longest
        assert all(offload.valid(piece) for piece in pieces)
        kinds.add((IP in packet, TCP in packet, len(pieces) > 1))
        if len(everything) < 4000:
            everything += pieces
    assert len(kinds) == 8
    found = objections(tmp_path, everything)
    if found is None:
        pytest.skip("tshark is not installed: only scapy has judged")
    assert found == []


def test_a_wrong_checksum_is_seen(tmp_path: Path) -> None:
    """By all three: the test above could not fail otherwise."""
    raw = bytearray(bytes(frame(b"abc" * 99)))
    assert offload.valid(raw) is True
    raw[-5] ^= 1
    assert offload.valid(raw) is False
    assert again(bytes(raw)) != raw
    found = objections(tmp_path, [bytes(raw)])
    assert found is None or len(found) == 1
    assert offload.valid(bytes(raw[:12]) + b"\x88\xb5" + bytes(60)) is None
    assert offload.valid(b"") is None


def test_bytes_behind_a_packet_stay_and_do_not_count() -> None:
    raw = bytes(frame(b"ab"))
    padded = raw + b"\xaa" * (60 - len(raw))
    whole = bytearray(NET_HEADER) + padded
    offload.fill(whole)
    assert offload.Judged(whole).frames() == [padded]
    assert offload.valid(padded) is True


def test_what_a_frame_needs_and_takes() -> None:
    def bits(*names: str) -> int:
        return sum(OFFLOADS[name] for name in names)

    data = bytes(5000)
    for packet, segment, needs, accepts in (
        (frame(data), 0, ("checksum",), ("receive_checksum",)),
        (frame(data), 1000, ("checksum", "send_tcp4"), ("receive_checksum", "receive_tcp4")),
        (frame(data), 5000, ("checksum",), ("receive_checksum",)),
        (frame(data, version=6), 1000, ("checksum", "send_tcp6"), ("receive_checksum", "receive_tcp6")),
        (frame(data, protocol="udp"), 1000, ("checksum", "send_udp"), ("receive_checksum", "receive_udp")),
        (frame(data, flags=ACK | CWR), 1000, ("checksum", "send_tcp4", "send_ecn"),
         ("receive_checksum", "receive_tcp4", "receive_ecn")),
    ):  # fmt: skip
        judged = offload.Judged(headed(bytes(packet), segment))
        assert (judged.needs, judged.accepts) == (bits(*needs), bits(*accepts))
    nothing = offload.Judged(bytes(NET_HEADER) + bytes(frame(data)))
    assert (nothing.needs, nothing.accepts, nothing.pieces) == (0, 0, 1)


def test_the_longest_packets() -> None:
    """64 KiB, and a byte more."""
    longest = frame(bytes(65535 - 40), version=4)
    assert len(longest) == 14 + 65535
    assert offload.Judged(headed(bytes(longest), 1448)).pieces == 46
    longest = frame(bytes(65535 - 20), version=6, tags=2)
    assert len(longest) == FRAME_LARGE_MAX
    assert offload.Judged(headed(bytes(longest), 1428)).pieces == 46
    assert refused(bytes(NET_HEADER) + bytes(FRAME_LARGE_MAX + 1)) == "frame_size"
    assert refused(bytes(NET_HEADER) + bytes(FRAME_MAX + 1)) == "frame_size"  # nobody is to cut it
    assert refused(bytes(NET_HEADER) + bytes(13)) == "frame_size"


LARGE = headed(bytes(frame(bytes(5000), options=[("Timestamp", (1, 2))])), 1000)


@pytest.mark.parametrize(
    "fields",
    [{"gso_size": 0}, {"flags": 0}, {"flags": 4}, {"flags": 0xFF}, {"gso_type": 2}, {"gso_type": 3}, {"gso_type": 4},
     {"gso_type": 5}, {"gso_type": 0x80}, {"gso_type": 0x85}, {"gso_type": 0xFF}, {"gso_size": 2}, {"csum_start": 0},
     {"csum_start": 33}, {"csum_start": 65535}, {"csum_offset": 6}, {"csum_offset": 65535}, {"csum_offset": 15}],
    ids=str,
)  # fmt: skip
def test_headers_that_lie_are_refused(fields: dict[str, int]) -> None:
    assert offload.Judged(LARGE).pieces == 5
    assert refused(altered(LARGE, **fields)) == "offload_invalid"


@pytest.mark.parametrize("flags", [SYN, RST, URG, CWR], ids=["SYN", "RST", "URG", "CWR without ECN"])
def test_what_belongs_to_one_place_of_a_stream_is_not_cut(flags: int) -> None:
    whole = bytearray(NET_HEADER) + bytes(frame(bytes(5000), flags=ACK))
    offload.fill(whole, 1000)
    whole[NET_HEADER + 14 + 20 + 13] |= flags
    assert refused(bytes(whole)) == "offload_invalid"


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [("header length of IPv4", 14, 0x44), ("header length beyond the frame", 14, 0x4F), ("version", 14, 0x65),
     ("total length", 16, 0xFF), ("fragment", 20, 0x20), ("protocol", 23, 1), ("header length of TCP", 46, 0x40),
     ("header length of TCP, long", 46, 0xF0), ("type", 12, 0x09)],
)  # fmt: skip
def test_frames_that_are_not_what_their_header_says(name: str, place: int, value: int) -> None:
    whole = headed(bytes(frame(b"x" * 12)))
    whole[NET_HEADER + place] = value
    assert refused(bytes(whole)) == "offload_invalid", name


def test_a_false_sum_of_the_pseudo_header_is_not_believed() -> None:
    packet = frame(bytes(3000))
    whole = headed(bytes(packet), 1000)
    whole[NET_HEADER + 50 : NET_HEADER + 52] = b"\x12\x34"
    check_pieces(packet.__class__(bytes(packet)), offload.Judged(whole).frames(), 1000)


def test_a_checksum_of_udp_that_comes_out_as_nothing_is_sent_as_all_ones() -> None:
    """0 would say that there is none (RFC 768)."""
    probe = Ether(bytes(frame(b"\0\0", protocol="udp")))
    packet = frame(probe[UDP].chksum.to_bytes(2, "big"), protocol="udp")
    (made,) = offload.Judged(headed(without_checksum(packet))).frames()
    assert Ether(made)[UDP].chksum == 0xFFFF
    assert offload.valid(made) is True


def cut(packet: Ether, segment: int) -> list[bytes]:
    return offload.Judged(headed(without_checksum(packet), segment)).frames()


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("options", [[], [("Timestamp", (7, 8))]], ids=["", "timestamps"])
def test_segments_become_the_frame_that_they_were_cut_from(version: int, options: list) -> None:
    packet = frame(random.Random(1).randbytes(20_000), version=version, tags=1, flags=ACK | PSH, options=options)
    pieces = cut(packet, 1000)
    (merged,) = offload.merge(pieces)
    header = offload.NetHeader.load(merged)
    assert header.flags == offload.NEEDS_CHECKSUM and header.gso_size == 1000
    assert header.gso_type == offload.TYPES["tcp4" if version == 4 else "tcp6"]
    assert bytes(transport(Ether(merged[NET_HEADER:])).payload) == bytes(transport(packet).payload)
    assert offload.Judged(merged).frames() == pieces  # byte for byte: a receiver may pass it on


def test_a_merged_frame_is_no_longer_than_its_memory() -> None:
    pieces = cut(frame(bytes(20_000)), 1000)
    merged = offload.merge(pieces, 54 + 4500)
    assert [len(one) for one in merged] == [NET_HEADER + 54 + 4000] * 5
    pieces = cut(frame(bytes(65_000)), 1000) + cut(frame(bytes(65_000), sequence=(1 << 31) + 65_000, identity=63), 1000)
    assert max(len(one) for one in offload.merge(pieces)) <= NET_HEADER + 14 + 65_535


def second(**fields: object) -> list[bytes]:
    """Two segments that belong together, but for `fields` of the second one."""
    given: dict = {"identity": 11, "sequence": 2000, "flags": ACK}
    first = frame(bytes(1000), **{**given, "identity": 10, "sequence": 1000})
    return [bytes(first), bytes(frame(bytes(1000), **{**given, **fields}))]


@pytest.mark.parametrize(
    "fields",
    [{"sequence": 2001}, {"sequence": 1000}, {"identity": 12}, {"identity": 10}, {"ports": (40000, 5002)},
     {"ports": (40001, 5001)}, {"options": [("Timestamp", (1, 2))]}, {"flags": ACK | SYN}, {"flags": ACK | RST},
     {"flags": ACK | URG}, {"flags": ACK | CWR}, {"flags": ACK | 0x40}, {"flags": PSH}, {"tags": 1},
     {"ip_options": True}, {"source": "02:00:00:00:00:03"}, {"version": 6}, {"protocol": "udp"}],
    ids=str,
)  # fmt: skip
def test_what_differs_is_not_merged(fields: dict) -> None:
    pieces = second(**fields)
    assert [one[NET_HEADER:] for one in offload.merge(pieces)] == pieces
    assert len(offload.merge(second())) == 1


def test_other_fields_that_a_merge_would_lose() -> None:
    for place, name in ((15, "type of service"), (22, "time to live"), (20, "fragment field"), (45, "acknowledged"),
                        (49, "window")):  # fmt: skip
        first, other = second()
        changed = bytearray(other)
        changed[place] ^= 0x02 if place != 20 else 0x40
        pieces = [first, again(bytes(changed))]
        assert offload.valid(pieces[1])
        assert [one[NET_HEADER:] for one in offload.merge(pieces)] == pieces, name


def test_pushed_and_short_segments_end_a_merge() -> None:
    parts = [(1000, ACK), (1000, ACK | PSH), (1000, ACK), (900, ACK), (1000, ACK), (1001, ACK), (1000, ACK | FIN)]
    pieces, sequence = [], 5
    for number, (size, flags) in enumerate(parts):
        pieces.append(bytes(frame(bytes(size), sequence=sequence, flags=flags, identity=number)))
        sequence += size
    merged = offload.merge(pieces)
    assert [len(one) - NET_HEADER - 54 for one in merged] == [2000, 1900, 1000, 2001]
    assert [int(Ether(one[NET_HEADER:])[TCP].flags) for one in merged] == [ACK | PSH, ACK, ACK, ACK | FIN]
    assert [frame for one in merged for frame in offload.Judged(one).frames()] == pieces


def test_a_wrong_checksum_is_not_merged_and_not_called_right() -> None:
    first, other = second()
    broken = other[:-1] + b"\x01"
    merged = offload.merge([first, broken, other])
    assert [one[NET_HEADER:] for one in merged] == [first, broken, other]
    assert [offload.NetHeader.load(one).flags for one in merged] == [offload.DATA_VALID, 0, offload.DATA_VALID]

"""esp.h against scapy and against published packets: what is sealed is what a standard implementation opens, and the
other way (A5; RFC 4303, 4106). The device runs the same header; tests/system/test_esp.py sends such frames through it.
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from pyx import esp, offload
from tests.framework.build import build_c, weakened
from tests.framework.packets import Frame, frame
from tests.framework.sealing import ENDS, KEYS, NETWORKS, SPI, TUNNELS, plain_packet, scapy_association, sealed_by_scapy

if esp.missing():
    pytest.skip(f"no ESP here: {esp.missing()}", allow_module_level=True)
pytest.importorskip("cryptography", reason="scapy needs the package `cryptography` for ESP")

SIZES = (0, 1, 2, 3, 13, 14, 15, 512, 1385, 1400)
MODES = [("transport", 4, 4), ("transport", 6, 6), *(("tunnel", outer, inner) for outer in (4, 6) for inner in (4, 6))]


def association(
    direction: str, mode: str = "transport", version: int = 4, inner: int = 4, **given: Any
) -> esp.Association:  # fmt: skip
    ends = TUNNELS[version] if mode == "tunnel" else ENDS[version]
    carried = NETWORKS[inner] if mode == "tunnel" else None
    return esp.Association(direction, SPI, *ends, mode=mode, inner=carried, **{"key": KEYS[16], **given})


def reason(call: Callable[[], object]) -> str:
    with pytest.raises(esp.EspError) as told:
        call()
    return told.value.reason


@pytest.mark.parametrize("key", KEYS, ids=lambda length: f"{8 * length} bits")
@pytest.mark.parametrize(("mode", "version", "inner"), MODES)
def test_scapy_opens_what_is_sealed(mode: str, version: int, inner: int, key: int) -> None:
    sealing = association("out", mode, version, inner, key=KEYS[key], vector=random.getrandbits(63))
    for number, size in enumerate(SIZES, 1):
        plain = plain_packet(inner, random.randbytes(size), tags=number % 3)
        sealed = Ether(sealing.seal(bytes(plain)))
        outer = sealed[IP if version == 4 else IPv6]
        assert sealing.sequence == number and bytes(sealed)[:12] == bytes(plain)[:12]
        if version == 4:
            header = outer.copy()
            del header.chksum, header.len
            assert bytes(header)[:20] == bytes(outer)[:20]
        opened = scapy_association(mode, version, KEYS[key]).decrypt(outer)
        wanted = plain[IP if inner == 4 else IPv6]
        assert bytes(opened) == bytes(wanted)


@pytest.mark.parametrize("key", KEYS, ids=lambda length: f"{8 * length} bits")
@pytest.mark.parametrize(("mode", "version", "inner"), MODES)
def test_what_scapy_seals_is_opened(mode: str, version: int, inner: int, key: int) -> None:
    opening = association("in", mode, version, inner, key=KEYS[key])
    for number, size in enumerate(SIZES, 1):
        plain = plain_packet(inner, random.randbytes(size))
        sealed = sealed_by_scapy(plain, mode, version, KEYS[key], number)
        opened = opening.open(sealed)
        if mode == "tunnel" or version == 6:
            assert opened == bytes(plain)
        else:  # scapy leaves the sum of the header to the kernel
            assert bytes(Ether(opened)[IP].payload) == bytes(plain[IP].payload)
        assert offload.valid(opened)


# draft-mcgrew-gcm-test-01, section 4: key, salt, SPI, number, vector, what is encrypted but its trailer, and the rest
PUBLISHED = {
    "128 bits, extended": (
        "4c80cdefbb5d10da906ac73c3613a634", "2e443b68", 0x4321, 0x8765432100000000, "4956ed7e3b244cfe",
        """45000048699a000080114db7c0a80102c0a801010a9bf15638d301000001000000000000045f736970045f756470037369
        700963796265726369747902646b0000210001""",
        """fecf537e729d5b07dc30df528dd22b768d1b98736696a6fd348509fa13ceac34cfa2436f14a3f3cf65925bf1f4a13c5d15b21e1884f5
        ff6247aeabb786b93bce61bc17d768fd9732459018148f6cbe722fd04796562dfdb4""",
    ),
    "192 bits": (
        "feffe9928665731c6d6a8f9467308308feffe9928665731c", "cafebabe", 0xA5F8, 10, "facedbaddecaf888",
        "45000028a4ad4000400678800a01038f0a010612802306b8cb712602dd6bb03e501016d07568",
        """a5b1f8066029aea40e598b8122de02420938b3ab33f828e687b8858b5bfbdbd0315b27452144cc77
        95457b9652037f5318027b5b4cd7a636""",
    ),
    "256 bits": (
        "abbccddef00112233445566778899aababbccddef00112233445566778899aab", "11223344", 0x4A2CBFE3, 2,
        "0102030405060708",
        "4500003069a6400080062690c0a801029389155e0a9e008b2dc57ee0000000007002400020bf0000020405b401010402",
        """ff425c9b724599df7a3bcd510194e00d6a78107f1b0b1cbf06efae9d65a5d763748a637985771d347f0545659f14e99def842d8eb335
        f4eecfdbf831824b4c4915956c96""",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PUBLISHED)
def test_published_packets(case: str) -> None:
    key, salt, spi, number, vector, content, sealed = PUBLISHED[case]
    given: dict[str, Any] = {
        "key": bytes.fromhex(key + salt), "sequence": number - 1, "extended": number > 0xFFFFFFFF,
        "vector": (int(vector, 16) - number) % 2**64,
    }  # fmt: skip
    wire = spi.to_bytes(4, "big") + (number & 0xFFFFFFFF).to_bytes(4, "big") + bytes.fromhex(vector + sealed)
    packet = Ether() / IP(src=ENDS[4][0], dst=ENDS[4][1], proto=1) / Raw(bytes.fromhex(content))
    found = esp.Association("out", spi, *ENDS[4], **given).seal(bytes(packet))
    assert bytes(Ether(found)[IP].payload) == wire
    del given["vector"]
    arrived = Ether() / IP(src=ENDS[4][0], dst=ENDS[4][1], proto=50) / Raw(wire)
    assert esp.Association("in", spi, *ENDS[4], **given).open(bytes(arrived)) == bytes(packet)


def sealed(count: int = 1, **given: Any) -> list[bytes]:
    sealing = association("out", **given)
    plain = bytes(plain_packet(4, b"the same bytes"))
    return [sealing.seal(plain) for _ in range(count)]


def test_altered_bytes_are_seen() -> None:
    """Each byte that is authenticated: behind the IP header all of them, and of those before it none."""
    good = sealed(3)[2]
    for place in range(14 + 20, len(good)):
        bad = good[:place] + bytes((good[place] ^ 1 << random.randrange(8),)) + good[place + 1 :]
        known = {"esp_altered", "esp_unknown"} if place < 38 else {"esp_altered"}
        assert reason(lambda bad=bad: association("in").open(bad)) in known, place


def resized(good: bytes, size: int) -> bytes:
    """The frame with `size` bytes of ESP, and an IP header that says so."""
    packet = Ether(good)
    header = IP(src=packet[IP].src, dst=packet[IP].dst, proto=50)
    return bytes(Ether(src=packet.src, dst=packet.dst) / header / Raw(bytes(packet[IP].payload)[:size]))


def test_truncated_packets() -> None:
    (good,) = sealed()
    assert reason(lambda: association("in").open(good[:-1])) == "esp_truncated"  # shorter than IP says
    whole = len(good) - 34
    for size in range(4, whole):
        expected = "esp_truncated" if size < 36 or size % 4 else "esp_altered"
        assert reason(lambda size=size: association("in").open(resized(good, size))) == expected, size
    assert association("in").open(resized(good, whole))
    piece = Ether(good)
    piece[IP].flags, piece[IP].chksum = "MF", None
    assert reason(lambda: association("in").open(bytes(piece))) == "esp_truncated"
    plain = plain_packet(4, b"x" * 40)
    plain[IP].frag, plain[IP].chksum = 3, None
    assert reason(lambda: association("out").seal(bytes(plain))) == "esp_truncated"


def test_lengths_inside_that_lie() -> None:
    """Authentic, because their maker has the key: padding longer than the packet, or of other bytes, and tunnels whose
    packet is not whole."""
    for content, mode, expected in (
        (b"\1\2\3\4\5\6" + b"\x07\x11", "transport", "esp_length"),
        (b"abcdefghij" + b"\1\2\2\2\4\x11", "transport", "esp_length"),
        (bytes(10) + b"\0\4", "tunnel", "esp_length"),
        (bytes(plain_packet(4, b"y" * 40)[IP])[:-4] + b"\1\2\2\4", "tunnel", "esp_length"),
        (b"nothing at all" + b"\0\x06", "tunnel", "esp_policy"),
    ):
        assert reason(lambda c=content, m=mode: association("in", m).open(coded_frame(c, m))) == expected, content
    assert association("in").open(coded_frame(b"dummy!" + b"\0\x3b", "transport")) == b""  # RFC 4303, 2.6


def coded_frame(content: bytes, mode: str) -> bytes:
    """A frame whose ESP carries exactly these bytes, trailer included, sealed by the library that scapy uses."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    assert len(content) % 4 == 0
    known = SPI.to_bytes(4, "big") + (1).to_bytes(4, "big")
    vector = bytes(8)
    body = AESGCM(KEYS[16][:16]).encrypt(KEYS[16][16:] + vector, content, known)
    source, to = TUNNELS[4] if mode == "tunnel" else ENDS[4]
    return bytes(Ether() / IP(src=source, dst=to, proto=50) / Raw(known + vector + body))


def test_others_are_not_taken() -> None:
    (good,) = sealed()
    packet = Ether(good)
    packet[IP].src, packet[IP].chksum = "10.9.9.9", None  # authentic, but from another
    assert reason(lambda: association("in").open(bytes(packet))) == "esp_policy"
    packet[IP].dst = "10.9.9.9"
    assert reason(lambda: association("in").open(bytes(packet))) == "esp_unknown"
    assert reason(lambda: association("in").open(bytes(plain_packet(4, b"plain")))) == "esp_unknown"
    assert reason(lambda: association("out").seal(bytes(frame(b"for nobody", version=6)))) == "esp_policy"
    inside = Ether() / IP(src="172.16.9.9", dst="172.17.0.2") / UDP() / Raw(b"not of these networks")
    foreign = sealed_by_scapy(inside, "tunnel", 4, KEYS[16], 1)
    assert reason(lambda: association("in", "tunnel").open(foreign)) == "esp_policy"


@pytest.mark.parametrize("window", [32, 64, 100, 1024])
def test_each_number_is_taken_once(window: int) -> None:
    """Against a set of all numbers: any order, gaps, jumps of many words."""
    generator = random.Random(window)
    numbers = sorted({min(generator.choice((base, base + generator.randrange(3 * window))), 4095)
                      for base in range(1, 4000, max(1, window // 8))})  # fmt: skip
    packets = dict(enumerate(sealed(4096), 1))
    opening = association("in", window=window)
    seen: set[int] = set()
    for _ in range(3):
        order = sorted(numbers, key=lambda number: number + generator.randrange(2 * window))
        for number in order:
            newest = max(seen, default=0)
            fresh = number not in seen and newest - number < window
            if fresh:
                assert opening.open(packets[number])
                seen.add(number)
            else:
                assert reason(lambda sealed=packets[number]: opening.open(sealed)) == "esp_replayed"


def test_numbers_run_out() -> None:
    last = association("out", sequence=2**32 - 2)
    frames = [last.seal(bytes(plain_packet(4, b"last")))]
    assert reason(lambda: last.seal(bytes(plain_packet(4, b"never")))) == "esp_exhausted"
    assert association("in", sequence=2**32 - 10).open(frames[0])


def test_extended_numbers_pass_the_border_of_32_bits() -> None:
    start = 2**32 - 40
    sealing, plain = association("out", sequence=start, extended=True), bytes(plain_packet(4, b"the same bytes"))
    packets = [sealing.seal(plain) for _ in range(80)]
    assert sealing.sequence == start + 80
    opening = association("in", sequence=start, extended=True, window=64)
    order = list(range(80))
    for base in range(0, 80, 16):
        order[base : base + 16] = random.sample(order[base : base + 16], 16)
    for number in order:
        assert opening.open(packets[number])
    for number in range(80):
        assert reason(lambda number=number: opening.open(packets[number])) in ("esp_replayed", "esp_altered")
    assert opening.sequence == start + 80
    # one that has lost more than 2**32 numbers takes the high half of another time: it does not open
    late = association("in", sequence=2**40 + 2**20, extended=True)
    assert reason(lambda: late.open(packets[0])) == "esp_altered"
    begin = association("in", extended=True)
    assert reason(lambda: begin.open(packets[0])) == "esp_replayed"  # before the first number of all


def test_a_set_up_that_makes_no_sense_is_refused() -> None:
    sound: dict[str, Any] = {"key": KEYS[16]}
    for bad in ({"spi": 255}, {"key": bytes(16)}, {"key": bytes(37)}, {"window": 31}, {"window": 1025},
                {"sequence": 2**32}, {"mode": "tunnel"}, {"inner": NETWORKS[4]}, {"destination": "fd00::1"},
                {"mode": "tunnel", "inner": ("10.0.0.0/8", "fd00::/16")}, {"mode": "both"}):  # fmt: skip
        given = {"spi": SPI, "source": ENDS[4][0], "destination": ENDS[4][1], **sound, **bad}
        with pytest.raises(ValueError):
            esp.order("in", **given)
    assert len(esp.order("in", SPI, *ENDS[4], key=KEYS[32])) == esp.ORDER_SIZE


def test_marks_of_a_tunnel() -> None:
    """RFC 4301, 5.1.2: traffic class and don't-fragment are those of the inner packet."""
    inner: Frame = plain_packet(4, b"marked")
    inner[IP].tos, inner[IP].flags, inner[IP].chksum = 0xB9, 0, None
    outer = Ether(association("out", "tunnel").seal(bytes(inner)))[IP]
    assert (outer.tos, outer.flags.DF, outer.ttl) == (0xB9, False, 64)
    outer6 = Ether(association("out", "tunnel", 6, 4).seal(bytes(inner)))[IPv6]
    assert (outer6.tc, outer6.hlim) == (0xB9, 64)


def test_a_ping_between_others_stays_as_it_is() -> None:
    assert not association("out").carries(bytes(Ether() / IP(src="10.0.0.9", dst="10.0.0.8") / ICMP()))
    assert association("out").carries(bytes(plain_packet(4, b"")))


@pytest.mark.parametrize(("old", "new", "told"), [
    ("library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);", "library = NULL;", "no libcrypto.so.3 (OpenSSL)"),
    ('"EVP_aes_192_gcm"', '"EVP_nothing"', "libcrypto has no AES-GCM"),
    ("0x03, 0x88, 0xda", "0x03, 0x88, 0xdb", "AES-GCM of libcrypto does not give the published answer"),
])  # fmt: skip
def test_a_library_that_is_not_there_or_not_right_is_told(tmp_path: Path, old: str, new: str, told: str) -> None:
    """The device withholds ESP for it, and `doctor` shows it."""
    weak = weakened(tmp_path, "aead.h", [(old, new)])
    source = tmp_path / "probe.c"
    source.write_text('#include "aead.h"\n#include <stdio.h>\nint main(void)\n'
                      "{ struct pv_aead a; return puts(pv_aead_open(&a)) < 0; }\n")  # fmt: skip
    program = build_c([source], into=tmp_path, headers=weak)
    assert subprocess.run([program], capture_output=True, text=True, timeout=10).stdout.strip() == told

"""The hash that frames are spread by: the vectors that Microsoft publishes for receive side scaling, the definition."""

import ipaddress
import random

import pytest

from pyx import offload
from tests.framework import packets

KEY = int("6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa", 16)
#: "Verifying the RSS hash calculation": destination, source, hash of the addresses alone, and with the ports of TCP
VECTORS = [
    ("161.142.100.80", 1766, "66.9.149.187", 2794, 0x323E8FC2, 0x51CCC178),
    ("65.69.140.83", 4739, "199.92.111.2", 14230, 0xD718262A, 0xC626B0EA),
    ("12.22.207.184", 38024, "24.19.198.95", 12898, 0xD2D0A5DE, 0x5C2B394A),
    ("209.142.163.6", 2217, "38.27.205.30", 48228, 0x82989176, 0xAFC7327F),
    ("202.188.127.2", 1303, "153.39.163.191", 44251, 0x5D1809C5, 0x10E828A2),
    ("3ffe:2501:200:3::1", 1766, "3ffe:2501:200:1fff::7", 2794, 0x2CC18CD5, 0x40207D3D),
    ("ff02::1", 4739, "3ffe:501:8::260:97ff:fe40:efab", 14230, 0x0F0C461C, 0xDDE51BBF),
    ("fe80::200:f8ff:fe21:67cf", 38024, "3ffe:1900:4545:3:200:f8ff:fe21:67cf", 44251, 0x4B61E985, 0x02D1FEEF),
]


def toeplitz(data: bytes) -> int:
    """The definition, bit by bit."""
    result = 0
    for bit in range(8 * len(data)):
        if data[bit // 8] >> (7 - bit % 8) & 1:
            result ^= KEY >> (320 - 32 - bit) & 0xFFFFFFFF
    return result


@pytest.mark.parametrize(("to", "to_port", "source", "port", "alone", "ports"), VECTORS)
def test_published_vectors(to: str, to_port: int, source: str, port: int, alone: int, ports: int) -> None:
    addresses = ipaddress.ip_address(source).packed + ipaddress.ip_address(to).packed
    assert offload.toeplitz(addresses) == toeplitz(addresses) == alone
    assert offload.toeplitz(addresses + port.to_bytes(2, "big") + to_port.to_bytes(2, "big")) == ports
    version = ipaddress.ip_address(to).version
    frame = packets.frame(b"x", version=version, ports=(port, to_port))
    layer = "IP" if version == 4 else "IPv6"
    frame[layer].src, frame[layer].dst = source, to
    assert offload.flow_of(bytes(frame)) == ports


def test_any_input_hashes_as_the_definition_says() -> None:
    generator = random.Random(5)
    for _ in range(500):
        data = generator.randbytes(generator.randrange(37))
        assert offload.toeplitz(data) == toeplitz(data), data.hex()


def test_what_a_flow_is() -> None:
    """Tags, options and the direction's other fields do not matter; ports do; a fragment has none."""
    plain = offload.flow_of(bytes(packets.frame(b"abc")))
    assert offload.flow_of(bytes(packets.frame(b"another", tags=2, flags=packets.FIN, sequence=7))) == plain
    assert offload.flow_of(bytes(packets.frame(b"abc", ports=(40001, 5001)))) != plain
    fragment = packets.frame(b"abc", protocol="udp")
    addresses = ipaddress.ip_address("10.1.2.3").packed + ipaddress.ip_address("10.1.2.4").packed
    fragment["IP"].frag = 10
    assert offload.flow_of(bytes(fragment)) == toeplitz(addresses)
    assert offload.flow_of(bytes(12) + b"\x88\xb5" + bytes(40)) == 0
    assert {offload.queue_of(hash_, 3) for hash_ in range(128)} == {0, 1, 2}
    with pytest.raises(ValueError, match="1 to 4"):
        offload.queue_of(1, 5)

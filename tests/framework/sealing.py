"""ESP as scapy makes and opens it: an implementation that is not ours (it seals by the package `cryptography`)."""

from __future__ import annotations

from typing import Any

from tests.framework.packets import Frame  # first: it quiets scapy

from scapy.layers.inet import IP, UDP  # isort: skip
from scapy.layers.inet6 import IPv6  # isort: skip
from scapy.layers.ipsec import ESP, SecurityAssociation  # isort: skip
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether  # isort: skip
from scapy.packet import Raw  # isort: skip

SPI = 0x1234_5678
#: by bytes of the cipher's key: key and salt
KEYS = {length: bytes((7 * place + length) & 0xFF for place in range(length + 4)) for length in (16, 24, 32)}
#: by version of IP
ENDS = {4: ("10.1.2.3", "10.1.2.4"), 6: ("fd00::1", "fd00::2")}  # of transport mode
TUNNELS = {4: ("192.168.7.1", "192.168.7.2"), 6: ("fd07::1", "fd07::2")}
NETWORKS = {4: ("10.1.2.0/30", "10.1.0.0/21"), 6: ("fd00::/127", "fd00::/61")}  # behind a tunnel: ENDS lie in them


def plain_packet(
    version: int, payload: bytes, *, tags: int = 0, source: str = "02:00:00:00:00:01", to: str = "02:00:00:00:00:02",
    ends: tuple[str, str] | None = None,
) -> Frame:  # fmt: skip
    """A UDP packet that associations carry: both ends are those of transport mode and lie within a tunnel's networks,
    unless `ends` says otherwise."""
    first, last = ends or ENDS[version]
    packet: Any = Ether(src=source, dst=to)
    for number in range(tags):
        packet /= Dot1AD(vlan=7) if tags == 2 and number == 0 else Dot1Q(vlan=42)
    packet /= IP(src=first, dst=last, flags="DF", id=7) if version == 4 else IPv6(src=first, dst=last)
    packet = packet / UDP(sport=1, dport=2) / Raw(payload) if payload else packet / UDP(sport=1, dport=2)
    return Ether(bytes(packet))  # lengths and sums filled in


def scapy_association(
    mode: str, version: int, key: bytes, number: int = 1, spi: int = SPI, ends: tuple[str, str] | None = None
) -> Any:
    header = None
    if mode == "tunnel":
        first, last = ends or TUNNELS[version]
        header = IP(src=first, dst=last) if version == 4 else IPv6(src=first, dst=last)
    return SecurityAssociation(
        ESP, spi=spi, seq_num=number, crypt_algo="AES-GCM", crypt_key=key, tunnel_header=header
    )


def sealed_by_scapy(
    plain: Frame, mode: str, version: int, key: bytes, number: int, spi: int = SPI, ends: tuple[str, str] | None = None
) -> bytes:
    """The frame with its packet sealed under that number."""
    packet = plain[IP] if IP in plain else plain[IPv6]
    packet = scapy_association(mode, version, key, number, spi, ends).encrypt(packet.copy())
    return bytes(Ether(src=plain.src, dst=plain.dst) / packet)

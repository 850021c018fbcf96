"""Frames for tests of offloads, made and judged by scapy and tshark: two implementations that are not ours."""

from __future__ import annotations

import logging
import random
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)  # it warns of routes that this machine does not have

from scapy.layers.inet import IP, TCP, UDP  # noqa: E402
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrHopByHop, PadN  # noqa: E402
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether  # noqa: E402
from scapy.packet import Packet, Raw  # noqa: E402
from scapy.utils import wrpcap  # noqa: E402

Frame = Packet
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << bit for bit in range(8))
PORT = 5001
OPTIONS = [[], [("Timestamp", (1000, 2000))], [("NOP", None), ("NOP", None), ("SAck", (1, 2, 5, 9))], [("MSS", 1460)]]


def frame(
    payload: bytes, *, version: int = 4, protocol: str = "tcp", tags: int = 0, flags: int = ACK, options: Any = (),
    extensions: int = 0, source: str = "02:00:00:00:00:01", to: str = "02:00:00:00:00:02", sequence: int = 1 << 31,
    identity: int = 0xFFFE, ports: tuple[int, int] = (40000, PORT), ip_options: bool = False,
) -> Frame:  # fmt: skip
    """A whole frame; scapy fills in lengths and checksums."""
    packet: Packet = Ether(src=source, dst=to)
    for number in range(tags):
        packet /= Dot1AD(vlan=7) if tags == 2 and number == 0 else Dot1Q(vlan=42, prio=3)
    if version == 4:
        packet /= IP(src="10.1.2.3", dst="10.1.2.4", id=identity, flags="DF", tos=3 if flags & CWR else 0,
                     options=[b"\x94\x04\x00\x00"] if ip_options else [])  # fmt: skip
    else:
        packet /= IPv6(src="fd00::1", dst="fd00::2", fl=0x12345)
        for number in range(extensions):
            packet /= (IPv6ExtHdrHopByHop, IPv6ExtHdrDestOpt)[number % 2](options=[PadN(optdata=bytes(4 + 8 * number))])
    if protocol == "tcp":
        packet /= TCP(
            sport=ports[0], dport=ports[1], seq=sequence, ack=77, window=8192, flags=flags, options=list(options)
        )
    else:
        packet /= UDP(sport=ports[0], dport=ports[1])
    return packet / Raw(payload) if payload else packet


def drawn(generator: random.Random, most: int = 65000, **given: Any) -> Frame:
    """A frame of any kind that an offload applies to."""
    version = generator.choice((4, 6))
    wanted: dict[str, Any] = {
        "version": version, "protocol": generator.choice(("tcp", "udp")), "tags": generator.randrange(3),
        "flags": ACK | generator.choice((0, PSH, FIN, PSH | FIN, ECE, CWR, CWR | ECE | PSH | FIN)),
        "options": generator.choice(OPTIONS), "extensions": generator.randrange(3) if version == 6 else 0,
        "sequence": generator.choice((0, 1, (1 << 32) - 700, generator.getrandbits(32))),
        "identity": generator.choice((0, 0xFFFF, generator.getrandbits(16))), "ip_options": generator.random() < 0.2,
    }  # fmt: skip
    size = generator.choice((1, 2, 3, 99, 1447, 1448, 1449, 9000, most - 1, most, generator.randrange(1, most)))
    return frame(generator.randbytes(min(size, most)), **{**wanted, **given})


def again(raw: bytes) -> bytes:
    """The frame with lengths and checksums worked out anew by scapy."""
    packet = Ether(raw)
    layer: Any = packet
    while layer and not isinstance(layer, Raw):
        for name in ("chksum", "len", "plen"):
            if name in layer.fields:
                layer.delfieldval(name)
        layer = layer.payload
    return bytes(packet.__class__(bytes(packet)))


def transport(packet: Frame) -> Packet:
    return packet[TCP] if TCP in packet else packet[UDP]


def without_checksum(packet: Frame) -> bytes:
    """The same frame with rubbish where the checksum of TCP or UDP belongs."""
    changed = packet.copy()
    transport(changed).chksum = 0xBEEF
    return bytes(changed)


def objections(folder: Path, frames: Sequence[bytes]) -> list[str] | None:
    """What tshark finds wrong: a bad checksum, a bad length, a malformed frame. None where it is not installed."""
    if shutil.which("tshark") is None:
        return None
    path = folder / "frames.pcap"
    wrpcap(str(path), [Ether(raw) for raw in frames])
    # The payload is random: guesses at what it could be would find it malformed.
    checks = ["-d", f"tcp.port=={PORT},data", "-d", f"udp.port=={PORT},data"]
    checks += [word for name in ("ip", "tcp", "udp") for word in ("-o", f"{name}.check_checksum:TRUE")]
    bad = ("_ws.malformed || ip.checksum.status == 0 || tcp.checksum.status == 0 || udp.checksum.status == 0"
           " || ip.bogus_ip_length || tcp.bogus_header_length || _ws.expert.severity == 8388608")  # fmt: skip
    done = subprocess.run(
        ["tshark", "-n", *checks, "-r", str(path), "-Y", bad], capture_output=True, text=True, timeout=60
    )
    counted = subprocess.run(["tshark", "-n", "-r", str(path), "-T", "fields", "-e", "frame.number"],
                             capture_output=True, text=True, timeout=60)  # fmt: skip
    if done.returncode or len(counted.stdout.split()) != len(frames):
        return [f"tshark read {len(counted.stdout.split())} of {len(frames)} frames: {done.stderr}"]
    return done.stdout.splitlines()

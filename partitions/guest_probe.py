"""Probe frames: what a NIC was granted is shown to be true before a driver relies on it (A2).

Frames to two addresses come back to their sender (abi_offload.h): one as the wire would show them, finished, the
other as any receiver gets them. What comes back must be what the driver's own code makes of the same frame; a device
that does something else lies, and its work is done in the driver.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence
from typing import Any, Protocol

from pyx import abi, offload
from pyx.calls import RequestError
from pyx.memory import Buffer, Memory

BITS = abi.OFFLOADS
SENT = sum(BITS[name] for name in ("checksum", "send_tcp4", "send_tcp6", "send_udp", "send_ecn"))
SECONDS = 0.5  # for the answer to one probe: one that was lost is tried again
TRIES = 3
SEGMENT = 200  # bytes of payload of each piece, of PAYLOAD
PAYLOAD = bytes(index & 0xFF for index in range(500))
TCP, UDP = 6, 17
ACK, PSH, ECE, CWR = 0x10, 0x08, 0x40, 0x80
#: what is sent to show each offload: version of IP, protocol, flags of TCP, cut into pieces or not
PROBES = {
    "checksum": (4, UDP, 0, 0),
    "send_tcp4": (4, TCP, ACK | PSH, SEGMENT),
    "send_tcp6": (6, TCP, ACK | PSH, SEGMENT),
    "send_udp": (4, UDP, 0, SEGMENT),
    "send_ecn": (4, TCP, ACK | ECE | CWR, SEGMENT),
    "receive_checksum": (4, UDP, 0, 0),
    "receive_tcp4": (4, TCP, ACK | PSH, SEGMENT),
    "receive_tcp6": (6, TCP, ACK | PSH, SEGMENT),
    "receive_udp": (6, UDP, 0, SEGMENT),
    "receive_ecn": (4, TCP, ACK | ECE | CWR, SEGMENT),
}


def probe_frame(
    to: bytes, source: bytes, version: int, protocol: int, flags: int, payload: bytes = PAYLOAD,
    ends: tuple[bytes, bytes] | None = None,
) -> bytes:  # fmt: skip
    """A frame without a checksum of TCP or UDP, between addresses that belong to nobody (RFC 5737, 3849), or `ends` of
    IPv4. Of other protocols `payload` is all there is."""
    if protocol == TCP:
        transport = struct.pack(">HHIIBBHHH", 9, 9, 1000, 1, 5 << 4, flags, 1024, 0, 0) + payload
    elif protocol == UDP:
        transport = struct.pack(">HHHH", 9, 9, 8 + len(payload), 0) + payload
    else:
        transport = payload
    if version == 4:
        header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(transport), 1, 0x4000, 64, protocol, 0,
                             *(ends or (bytes((192, 0, 2, 1)), bytes((192, 0, 2, 2)))))  # fmt: skip
        total = sum(struct.unpack(">10H", header))
        total = (total & 0xFFFF) + (total >> 16)
        header = header[:10] + struct.pack(">H", ~(total + (total >> 16)) & 0xFFFF) + header[12:]
        return to + source + b"\x08\x00" + header + transport
    end = bytes.fromhex("20010db8000000000000000000000001")
    header = struct.pack(">IHBB16s16s", 6 << 28, len(transport), protocol, 64, end, end[:-1] + b"\x02")
    return to + source + b"\x86\xdd" + header + transport


class Driver(Protocol):
    """What is used of one."""

    mac: bytes

    @property
    def granted(self) -> int: ...
    def send_many(self, frames: Sequence[Buffer]) -> None: ...
    def send_headed(self, frames: Sequence[Buffer]) -> None: ...
    def receive(self, timeout: float) -> Any: ...
    def release(self, frame: Any) -> None: ...
    def put_back(self, frames: Sequence[Any]) -> None: ...


def prove(nic: Driver, memory: Memory, wanted: int, headed: bool) -> tuple[int, int, int]:
    """Bits of `wanted` that are true, those that are not, and those of which nothing came back. `headed`: what arrives
    has a header in front. Other frames that arrive meanwhile are kept for `receive`."""
    proved = disproved = lost = 0
    checksum = BITS["checksum"]
    for name, bit in BITS.items():
        if name not in PROBES or not bit & wanted:
            continue
        if bit != checksum and name.startswith("send") and disproved & checksum:
            continue  # a cut changes checksums: it cannot be right where those are not
        probe = _Probe(nic, memory, name)
        if probe.needs & ~nic.granted:
            continue  # nothing can be shown of it alone
        try:
            outcomes = [probe.shown(headed)]
            while not outcomes[-1] and len(outcomes) < TRIES:
                outcomes.append(probe.shown(headed))
        except RequestError as error:
            if error.reason != "offload_withheld":
                raise
            continue  # a weaker device has just taken over, and the driver is not told yet: nothing is shown
        if outcomes[-1]:
            proved |= bit
        elif any(one is False for one in outcomes):
            disproved |= bit
        else:
            lost |= bit
    return proved, disproved, lost


class _Probe:
    """One frame that shows one offload."""

    def __init__(self, nic: Driver, memory: Memory, name: str) -> None:
        version, protocol, flags, self._segment = PROBES[name]
        self._nic = nic
        self._sent = not name.startswith("receive")
        self._to = (abi.PROBE_WIRE if self._sent else abi.PROBE_RECEIVER).to_bytes(8, "little")[:6]
        content = probe_frame(self._to, nic.mac, version, protocol, flags)
        self._whole = memory.allocate(abi.NET_HEADER + len(content))
        self._whole[abi.NET_HEADER :] = content
        self._header = offload.fill(self._whole, self._segment)
        judged = offload.Judged(self._whole)
        self._finished = judged.frames()
        self._plain = [memory.allocate(len(self._finished[0])) for _ in range(2)]
        self.needs = judged.needs if self._sent or self._segment else 0

    def shown(self, headed: bool) -> bool | None:
        """Sends it; is what comes back what is promised? None: nothing came."""
        if self._sent:
            self._nic.send_headed([self._whole])
            found = [frame for _, frame in back(self._nic, self._to, len(self._finished), headed)]
            return found == self._finished if found else None
        if not self._segment:  # a right checksum and a wrong one
            right, wrong = self._plain
            right[:] = self._finished[0]
            wrong[:] = self._finished[0][:-1] + bytes((self._finished[0][-1] ^ 1,))
            self._nic.send_many([right, wrong])
            valid = [bool(front and front.valid) for front, _ in back(self._nic, self._to, 2, headed)]
            return valid == [True, False] if valid else None
        self._nic.send_headed([self._whole])  # comes as it is
        for front, frame in back(self._nic, self._to, 1, headed):
            wanted = (self._header.gso_type, self._header.gso_size)
            same = frame == bytes(self._whole)[abi.NET_HEADER :]
            return same and front is not None and (front.gso_type, front.gso_size) == wanted
        return None


def back(nic: Driver, to: bytes, count: int, headed: bool) -> list[tuple[offload.NetHeader | None, bytes]]:
    """The next `count` frames to the probe address: headers, where they have one, and frames."""
    found: list[tuple[offload.NetHeader | None, bytes]] = []
    kept = []
    end = time.monotonic() + SECONDS
    start = abi.NET_HEADER if headed else 0
    while len(found) < count and (left := end - time.monotonic()) > 0:
        buffer = nic.receive(left)
        if buffer is None:
            continue
        content = bytes(buffer)
        if content[start : start + 6] != to:
            kept.append(buffer)
            continue
        found.append((offload.NetHeader.load(content) if headed else None, content[start:]))
        nic.release(buffer)
    nic.put_back(kept)
    return found

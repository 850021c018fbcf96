"""Security associations of a NIC: what the device seals and opens for its guest, ESP with AES-GCM (A5; RFC 4303, 4106).

    nic.associations.add("out", 0x1000, "10.0.0.1", "10.0.0.2", key=key)     # 16, 24 or 32 bytes, and 4 of salt
    nic.associations.add("in", 0x2000, "10.0.0.2", "10.0.0.1", key=other)

A key goes from the buffer of the request to the device, over the queue pair, and that buffer is overwritten. Frames
that an association carries go out sealed and come in opened; nothing else of the driver changes.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from partitions.guest_probe import UDP, back, probe_frame
from pyx import abi, esp
from pyx.calls import RequestError
from pyx.memory import Buffer, Memory

if TYPE_CHECKING:
    from partitions.guest_nic import Nic

BIT = abi.OFFLOADS["esp"]
ASSOCIATE = abi.OPERATIONS["associate"]
_ENDS = ("192.0.2.1", "192.0.2.2")  # of probes: nobody's (RFC 5737), as guest_probe has them
_SPI = 0x7072_6F62
_PAYLOAD = b"what a probe carries must not be seen on the wire"
# draft-mcgrew-gcm-test-01, section 4: key and salt, SPI, and one packet with what it is to become
_KNOWN_KEY = bytes.fromhex("abbccddef00112233445566778899aababbccddef00112233445566778899aab11223344")
_KNOWN_SPI = 0x4A2CBFE3
_KNOWN = bytes.fromhex(
    "4a2cbfe3000000020102030405060708ff425c9b724599df7a3bcd510194e00d6a78107f1b0b1cbf06efae9d65a5d763"
    "748a637985771d347f0545659f14e99def842d8eb335f4eecfdbf831824b4c4915956c96"
)
_KNOWN_PLAIN = bytes.fromhex(
    "4500003069a6400080062690c0a801029389155e0a9e008b2dc57ee0000000007002400020bf0000020405b401010402"
)
_ICMP, _ESP, _NOTHING = 1, 50, 59


class Associations:
    """Those of one NIC, as its device keeps them."""

    def __init__(self, nic: Nic, memory: Memory) -> None:
        self._nic = nic
        self._memory = memory
        self._room: Buffer | None = None

    def add(
        self, direction: str, spi: int, source: str, destination: str, *, key: bytes, mode: str = "transport",
        inner: tuple[str, str] | None = None, extended: bool = False, window: int = 64, sequence: int = 0,
    ) -> None:  # fmt: skip
        """`direction`: "out" or "in". Carries packets from `source` to `destination`; in `mode` "tunnel" those between
        the `inner` networks, and ESP goes from `source` to `destination`. `extended`: sequence numbers of 64 bits.
        `window`: numbers that may arrive late; `sequence`: the last one that was used under this key, which must never
        have been used elsewhere. PermissionError with who withholds ESP; RequestError where the device has it already,
        or has no room."""
        nic = self._nic
        if not nic.usable & BIT:
            nic.have_buffers()
            nic.prove()
        if not nic.usable & BIT:
            told = nic.capabilities()["esp"]
            by = f"withheld by {', '.join(told['withheld_by'])}" if told["withheld_by"] else "not what the device says"
            raise PermissionError(f"{nic.name}: ESP is {by}")
        self._order(direction, spi, source, destination, key=key, mode=mode, inner=inner, extended=extended,
                    window=window, sequence=sequence)  # fmt: skip

    def remove(self, direction: str, spi: int, source: str, destination: str) -> None:
        """From then on what it carried goes plain. RequestError where there is none."""
        self._order(direction, spi, source, destination)

    def _order(self, direction: str, spi: int, source: str, destination: str, **what: Any) -> None:
        order = esp.order(direction, spi, source, destination, **what)
        self._room = self._room or self._memory.allocate(len(order))
        try:
            self._room[:] = order
            self._nic.send_many([self._room], ASSOCIATE)
        finally:
            self._room[:] = order[:] = bytes(len(order))

    # ---- proof ----

    def shown(self, headed: bool) -> bool:
        """Does the device seal and open as RFC 4106 says, and take nothing twice or altered?"""
        key = os.urandom(20)
        made: list[tuple[str, int]] = []
        try:
            for direction, spi, secret in (("out", _SPI, key), ("in", _SPI, key), ("in", _KNOWN_SPI, _KNOWN_KEY)):
                self._order(direction, spi, *_ENDS, key=secret)
                made.append((direction, spi))
            plain = self._frame(abi.PROBE_WIRE, UDP, _PAYLOAD)
            sealed = self._back([plain], 1, abi.PROBE_WIRE, headed)
            if len(sealed) != 1 or len(sealed[0]) <= len(plain) or sealed[0][23] != _ESP or _PAYLOAD in sealed[0]:
                return False
            to = abi.PROBE_RECEIVER.to_bytes(8, "little")[:6]
            whole = to + sealed[0][6:]
            altered = whole[:-1] + bytes((whole[-1] ^ 1,))
            end = self._frame(abi.PROBE_RECEIVER, _NOTHING, b"the last one")
            known = self._frame(abi.PROBE_RECEIVER, _ESP, _KNOWN)
            wanted = [to + plain[6:], self._frame(abi.PROBE_RECEIVER, _ICMP, _KNOWN_PLAIN), end]
            self._order(*made.pop(0), *_ENDS)  # what goes out now is sealed already
            return self._back([altered, whole, whole, known, end], 3, abi.PROBE_RECEIVER, headed) == wanted
        except RequestError:
            return False
        finally:
            for direction, spi in made:
                self._order(direction, spi, *_ENDS)

    def _frame(self, to: int, protocol: int, payload: bytes) -> bytes:
        """A frame to a probe address; the last one of a row is between others than the associations carry."""
        ends = (b"\xc0\x00\x02\x02", b"\xc0\x00\x02\x01") if protocol == _NOTHING else None
        return probe_frame(to.to_bytes(8, "little")[:6], self._nic.mac, 4, protocol, 0, payload, ends)

    def _back(self, frames: list[bytes], count: int, to: int, headed: bool) -> list[bytes]:
        """Sends frames; the next `count` that come back."""
        rooms = []
        for frame in frames:
            rooms.append(self._memory.allocate(len(frame)))
            rooms[-1][:] = frame
        self._nic.send_many(rooms)
        return [frame for _, frame in back(self._nic, to.to_bytes(8, "little")[:6], count, headed)]

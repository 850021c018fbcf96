"""Guest `sender`: reads the archive from its disk and sends it in frames to the receiver.

Go-back-N with cumulative acknowledgements: frames may be lost on a network, so the receiver says what it has and
the sender goes back when nothing moves. The argument is the MAC address of the receiver.
"""

from __future__ import annotations

import hashlib
import time

from partitions.examples.archive import (
    ACK,
    DATA,
    DATA_FRAME,
    END,
    FRAME_HEADER,
    HELLO,
    Frame,
    Header,
    pack_frame,
    unpack_frame,
    unpack_header,
)  # fmt: skip
from partitions.guest import Guest
from partitions.guest_devices import Disk, Nic
from pyx.memory import Buffer

PAYLOAD = 32768  # bytes of archive in one frame
WINDOW = 64  # frames that are not acknowledged
RETRY_SECONDS = 0.2
PATIENCE_SECONDS = 30.0


class Stream:
    """The archive in frames: frame n carries bytes from n * PAYLOAD; window n % WINDOW of the buffer holds it."""

    def __init__(self, guest: Guest, disk: Disk, nic: Nic, peer: bytes, header: Header) -> None:
        self.disk = disk
        self.nic = nic
        self.peer = peer
        self.header = header
        self.count = -(-header.length // PAYLOAD)
        self.digest = hashlib.sha256()
        self.retransmitted = 0
        self._frames = [guest.memory.allocate(FRAME_HEADER + PAYLOAD) for _ in range(WINDOW)]
        self._filled = 0  # frames filled so far

    def frame(self, number: int) -> Buffer:
        """The buffer of a frame within the window; read from disk the first time."""
        start = number * PAYLOAD
        length = min(PAYLOAD, self.header.length - start)
        buffer = self._frames[number % WINDOW]
        if number == self._filled:
            # The disk fills the frame behind its header: the guest copies nothing.
            sectors = -(-length // 512) * 512
            self.disk.read_into(buffer[FRAME_HEADER : FRAME_HEADER + sectors], DATA + start)
            self.digest.update(memoryview(buffer)[FRAME_HEADER : FRAME_HEADER + length])
            buffer[:FRAME_HEADER] = pack_frame(Frame(self.peer, self.nic.mac, DATA_FRAME, number, length))
            self._filled += 1
        return buffer[: FRAME_HEADER + length]


def control(guest: Guest, nic: Nic, peer: bytes, kind: int, sequence: int, payload: bytes = b"") -> None:
    buffer = guest.memory.allocate(FRAME_HEADER + max(len(payload), 64))
    buffer[:FRAME_HEADER] = pack_frame(Frame(peer, nic.mac, kind, sequence, len(payload)))
    buffer[FRAME_HEADER : FRAME_HEADER + len(payload)] = payload
    nic.send(buffer)


def acknowledged(nic: Nic, base: int, timeout: float) -> int:
    """The highest acknowledgement that arrives within `timeout` seconds; `base` where none does."""
    received = nic.receive(timeout)
    while received is not None:
        frame = unpack_frame(memoryview(received))
        if frame is not None and frame.kind == ACK:
            base = max(base, frame.sequence)
        nic.release(received)
        received = nic.receive(0)
    return base


def greet(guest: Guest, nic: Nic, peer: bytes, count: int) -> None:
    """Repeats the greeting until the receiver answers: it may start later."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while acknowledged(nic, -1, RETRY_SECONDS) < 0:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{peer.hex(':')} did not answer within {PATIENCE_SECONDS} s")
        control(guest, nic, peer, HELLO, count)


def main(guest: Guest) -> int:
    disk, nic = guest.disk("vda"), guest.nic("eth0")
    peer = bytes.fromhex(guest.arguments[0].replace(":", ""))
    sector = guest.memory.allocate(512)
    disk.read_into(sector, 0)
    stream = Stream(guest, disk, nic, peer, unpack_header(bytes(sector)))
    nic.open(buffers=64)
    greet(guest, nic, peer, stream.count)
    base = following = 0
    moved = time.monotonic()
    while base < stream.count:
        upto = min(stream.count, base + WINDOW)
        if following < upto:
            nic.send_many([stream.frame(number) for number in range(following, upto)])
            following = upto
        now_base = acknowledged(nic, base, RETRY_SECONDS)
        if now_base > base:
            base, moved = now_base, time.monotonic()
        elif time.monotonic() - moved > PATIENCE_SECONDS:
            raise TimeoutError(f"the receiver stopped acknowledging at frame {base} of {stream.count}")
        else:
            stream.retransmitted += following - base
            following = base
    control(guest, nic, peer, END, stream.count, stream.digest.digest())
    guest.report(
        role="sender", bytes=stream.header.length, sha256=stream.digest.hexdigest(),
        sha256_disk=stream.header.digest.hex(), frames=stream.count, retransmitted=stream.retransmitted,
        counts=guest.counts(),
    )  # fmt: skip
    return 0 if stream.digest.digest() == stream.header.digest else 1

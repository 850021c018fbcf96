"""Guest `receiver`: takes the archive in frames, in order, acknowledges, and reports its SHA-256."""

from __future__ import annotations

import hashlib

from partitions.examples.archive import ACK, DATA_FRAME, END, FRAME_HEADER, HELLO, Frame, pack_frame, unpack_frame
from partitions.guest import Guest

BUFFERS = 256
FRAME_SIZE = 36864
ACK_EVERY = 16  # frames
PATIENCE_SECONDS = 30.0


def main(guest: Guest) -> int:
    nic = guest.nic("eth0")
    nic.open(BUFFERS, FRAME_SIZE)
    answer = guest.memory.allocate(64)
    digest = hashlib.sha256()
    expected = total = 0
    length = out_of_order = 0
    finished: bytes | None = None

    def acknowledge(peer: bytes) -> None:
        answer[:FRAME_HEADER] = pack_frame(Frame(peer, nic.mac, ACK, expected, 0))
        nic.send(answer)

    while finished is None:
        received = nic.receive(PATIENCE_SECONDS)
        if received is None:
            raise TimeoutError(f"no frame for {PATIENCE_SECONDS} s; {expected} of {total} arrived")
        content = memoryview(received)
        frame = unpack_frame(content)
        if frame is None:
            pass
        elif frame.kind == HELLO:
            total = frame.sequence
            acknowledge(frame.source)
        elif frame.kind == DATA_FRAME and frame.sequence == expected:
            digest.update(content[FRAME_HEADER : FRAME_HEADER + frame.length])
            length += frame.length
            expected += 1
            if expected % ACK_EVERY == 0 or expected == total:
                acknowledge(frame.source)
        elif frame.kind == DATA_FRAME:
            out_of_order += 1
            acknowledge(frame.source)
        elif frame.kind == END:
            finished = bytes(content[FRAME_HEADER : FRAME_HEADER + frame.length])
        content.release()
        nic.release(received)
    guest.report(
        role="receiver", bytes=length, sha256=digest.hexdigest(), sha256_sent=finished.hex(), frames=expected,
        out_of_order=out_of_order, counts=guest.counts(),
    )  # fmt: skip
    return 0 if finished == digest.digest() else 1

"""Load through the guest's API, as a user's program would use it: large sends beside frames of the MTU (A2).

Each frame's payload begins with its sequence number, which its receiver compares; the last one says that there are no
more.
"""

from __future__ import annotations

import time
from typing import Any

from partitions.guest import Guest
from partitions.guest_probe import ACK, TCP, probe_frame
from pyx import abi
from pyx.memory import Buffer

SEGMENT = 1448  # bytes of payload of each piece of a large frame
HEADERS = 54  # Ethernet, IPv4, TCP
LAST = (1 << 64) - 1
BATCH_BYTES = 1 << 19  # of frames that are handed over at once: as many bytes, whatever their size


class Sender:
    """Sends frames of `size` bytes to the address `to`: large ones by `send_large`, others as they are."""

    def __init__(self, guest: Guest, size: int, to: str, large: bool, name: str = "eth0") -> None:
        self._nic = guest.nic(name)
        self._size, self._large = size, large
        count = min(max(BATCH_BYTES // size, 1), 64)
        content = probe_frame(bytes.fromhex(to.replace(":", "")), self._nic.mac, 4, TCP, ACK, bytes(size - HEADERS))
        start = abi.NET_HEADER if large else 0
        self._place = start + HEADERS
        self._frames: list[Buffer] = []
        for _ in range(count):
            buffer = guest.memory.allocate(start + size)
            buffer[start:] = content
            self._frames.append(buffer)
        self._sequence = 0
        self._views = [memoryview(frame)[self._place : self._place + 8] for frame in self._frames]

    def run(self, seconds: float, start: int) -> dict[str, Any]:
        """For `seconds` from the time `start` of the monotonic clock (ns), then the frame that says so."""
        self._nic.transmit.wait(max(0.0, start / 1e9 - time.monotonic()))  # nothing is in flight
        dropped, sent = dict(self._nic.dropped), 0
        begin = time.monotonic()
        while (now := time.monotonic()) < begin + seconds:
            for view in self._views:
                view[:] = self._sequence.to_bytes(8, "little")
                self._sequence += 1
            self._send(self._frames)
            sent += len(self._frames)
        self._views[0][:] = LAST.to_bytes(8, "little")
        self._send(self._frames[:1])
        return {"frames": sent, "seconds": now - begin, "dropped": self._nic.dropped != dropped}

    def _send(self, frames: list[Buffer]) -> None:
        if self._large:
            self._nic.send_large(frames, SEGMENT)
        else:
            self._nic.send_many(frames)


class Receiver:
    """Receives them; `headed`: large ones as they are."""

    def __init__(self, guest: Guest, size: int, headed: bool, name: str) -> None:
        self._nic = guest.nic(name)
        self._headed = headed
        self._nic.open(max(BATCH_BYTES * 4 // max(size, 2048), 16), size, headed)
        self._expected = 0

    def run(self, patience: float = 10.0) -> dict[str, Any]:
        """Until the frame that says that there are no more. Bytes are those of frames, without the header in front."""
        front = abi.NET_HEADER if self._headed else 0
        place = front + HEADERS
        frames = lost = moved = 0
        first = last = 0.0
        used: list[Buffer] = []
        while (frame := self._nic.receive(patience)) is not None:
            sequence = int.from_bytes(memoryview(frame)[place : place + 8], "little")
            used.append(frame)
            if sequence == LAST:
                break
            last = time.monotonic()
            first = first or last
            lost += sequence != self._expected
            self._expected = sequence + 1
            frames += 1
            moved += len(frame) - front
            if len(used) == 4:
                self._nic.release(*used)
                used = []
        self._nic.release(*used)
        return {"frames": frames, "bytes": moved, "lost": lost, "seconds": last - first}

"""The virtual drivers of a guest: disk and NIC over the queues of their endpoints (A1, W7).

No adapter code is here: a request names partition memory, an offset and a length. Completion means that the device
has moved the data; a buffer must not change before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pyx import abi
from pyx.calls import RequestError
from pyx.memory import Buffer, Memory
from pyx.queue import ClientQueue

READ, WRITE, FLUSH = abi.OPERATIONS["read"], abi.OPERATIONS["write"], abi.OPERATIONS["flush"]
DISCARD, WRITE_ZEROES = abi.OPERATIONS["discard"], abi.OPERATIONS["write_zeroes"]
SEND, RECEIVE = abi.OPERATIONS["send"], abi.OPERATIONS["receive"]
SEND_HEADED, RECEIVE_HEADED = abi.OPERATIONS["send_headed"], abi.OPERATIONS["receive_headed"]
OK = abi.STATUSES["ok"]


class Disk:
    """A virtual disk of `size` bytes. Offsets and lengths are multiples of 512 bytes."""

    def __init__(self, _memory: Memory, endpoint: dict[str, Any], queues: Sequence[ClientQueue]) -> None:
        self.name: str = endpoint["name"]
        self.size: int = endpoint["length"]
        self.read_only: bool = endpoint["read_only"]
        self.transfer_max: int = endpoint["max_transfer"]
        self.queue = queues[0]

    def read_into(self, buffer: Buffer, offset: int = 0) -> None:
        """Fills `buffer` from byte `offset` of the disk; the device writes into it, nothing is copied."""
        self._transfer(READ, buffer, offset)

    def write_from(self, buffer: Buffer, offset: int = 0, *, fua: bool = False) -> None:
        """Writes `buffer` at byte `offset`. Durable after the next `flush`; with `fua` (forced unit access) at once."""
        self._transfer(WRITE, buffer, offset, abi.FLAG_FUA if fua else 0)

    def discard(self, offset: int, length: int) -> None:
        """Says that nobody needs this range any more. It reads as zeroes or as before, and may lose its room."""
        self._clear(DISCARD, offset, length, 0)

    def write_zeroes(self, offset: int, length: int, *, fua: bool = False, hole: bool = True) -> None:
        """Sets this range to zeroes, without moving any. `hole` False: it keeps its room on the medium."""
        self._clear(WRITE_ZEROES, offset, length, (abi.FLAG_FUA if fua else 0) | (0 if hole else abi.FLAG_NO_HOLE))

    def flush(self) -> None:
        """Returns when all writes completed before are durable."""
        self.queue.submit(FLUSH, None, 0)
        self.queue.kick()
        self._finish(1, "flush")

    def transfer_many(self, operation: int, parts: Iterable[tuple[Buffer, int]]) -> None:
        """Reads or writes (buffer, offset) each, all at once; at most as many as the queue takes."""
        count = 0
        for buffer, offset in parts:
            self.queue.submit(operation, buffer, offset)
            count += 1
        self.queue.kick()
        self._finish(count, f"{self.name}: {abi.OPERATION_NAMES[operation]} of {count} buffers")

    def _transfer(self, operation: int, buffer: Buffer, offset: int, flags: int = 0) -> None:
        parts = (
            (buffer[start : start + self.transfer_max], offset + start, 0)
            for start in range(0, len(buffer), self.transfer_max)
        )
        self._submit_all(operation, parts, flags, len(buffer), offset)

    def _clear(self, operation: int, offset: int, length: int, flags: int) -> None:
        parts = (
            (None, offset + start, min(self.transfer_max, length - start))
            for start in range(0, length, self.transfer_max)
        )
        self._submit_all(operation, parts, flags, length, offset)

    def _submit_all(
        self, operation: int, parts: Iterable[tuple[Buffer | None, int, int]], flags: int, total: int, offset: int
    ) -> None:
        """Parts as (buffer, offset, length where there is no buffer), as many in flight as the queue takes."""
        in_flight = 0
        what = f"{self.name}: {abi.OPERATION_NAMES[operation]} of {total} bytes at {offset}"
        for buffer, start, length in parts:
            if self.queue.in_flight == self.queue.capacity:
                self.queue.kick()
                in_flight -= self._finish(1, what)
            self.queue.submit(operation, buffer, start, length, flags)
            in_flight += 1
        self.queue.kick()
        self._finish(in_flight, what)

    def _finish(self, wanted: int, what: str) -> int:
        """Waits for `wanted` completions; the first bad one is raised once all are there."""
        found = 0
        bad: tuple[int, int] | None = None
        while found < wanted:
            for _slot, status, reason, _bytes in self.queue.wait():
                found += 1
                if status != OK and bad is None:
                    bad = (status, reason)
        if bad is not None:
            raise RequestError(*bad, what)
        return found


class Nic:
    """A virtual NIC with address `mac` (6 bytes). Frames begin with their Ethernet header.

    `buffers` receive buffers of `frame_size` bytes are posted at the first receive and again when their frame is
    released.
    """

    def __init__(
        self, memory: Memory, endpoint: dict[str, Any], queues: Sequence[ClientQueue], buffers: int = 256,
        frame_size: int = 2048,
    ) -> None:  # fmt: skip
        self.name: str = endpoint["name"]
        self.mac = bytes.fromhex(endpoint["mac"].replace(":", ""))
        self.transmit, self.receive_queue = queues
        self.dropped: dict[str, int] = {}  # frames of ours that the switch dropped, by reason
        self._memory = memory
        self._buffers = min(buffers, self.receive_queue.capacity)
        self._frame_size = frame_size
        self._headed = False
        self._posted: dict[int, Buffer] = {}
        self._arrived: list[Buffer] = []

    def open(self, buffers: int = 256, frame_size: int = 2048, headed: bool = False) -> None:
        """Chooses number and size of the receive buffers; before the first receive only. `headed`: each frame comes
        with a header of `abi.NET_HEADER` bytes in front (`pyx.offload.NetHeader`), which says whether its checksum is
        right or still missing, and whether it is a large frame; `frame_size` counts without it."""
        if self._posted:
            raise RuntimeError(f"{self.name}: receive buffers are posted already")
        self._buffers = min(buffers, self.receive_queue.capacity)
        self._frame_size = frame_size
        self._headed = headed
        size = frame_size + (abi.NET_HEADER if headed else 0)
        self._post([self._memory.allocate(size) for _ in range(self._buffers)])

    def send(self, frame: Buffer) -> None:
        """Sends one frame from partition memory; returns when the device has taken it."""
        self.send_many([frame])

    def send_headed(self, frames: Sequence[Buffer]) -> None:
        """Sends frames with a header in front, in order, as `pyx.offload.fill` writes it: the device completes
        checksums and cuts large frames for receivers that do not take them as they are."""
        self.send_many(frames, SEND_HEADED)

    def send_many(self, frames: Sequence[Buffer], operation: int = SEND) -> None:
        """Sends frames in order; returns when the device has taken all. RequestError where one is refused."""
        in_flight = 0
        for frame in frames:
            if self.transmit.in_flight == self.transmit.capacity:
                self.transmit.kick()
                in_flight -= self._sent()
            self.transmit.submit(operation, frame)
            in_flight += 1
        self.transmit.kick()
        while in_flight > 0:
            in_flight -= self._sent()

    def _sent(self) -> int:
        answers = self.transmit.wait()
        for _slot, status, reason, _bytes in answers:
            if status != OK:
                raise RequestError(status, reason, f"{self.name}: send")
            if reason:
                name = abi.REASON_NAMES[reason]
                self.dropped[name] = self.dropped.get(name, 0) + 1
        return len(answers)

    def receive(self, timeout: float | None = None) -> Buffer | None:
        """The next frame, in the buffer that it arrived in; None after `timeout` seconds. Give it back with
        `release`, or the NIC runs out of buffers."""
        if not self._posted and not self._arrived:
            self.open(self._buffers, self._frame_size)
        if not self._arrived:
            for slot, status, reason, length in self.receive_queue.wait(timeout):
                buffer = self._posted.pop(slot)
                if status == OK:
                    self._arrived.append(buffer[:length])
                else:
                    raise RequestError(status, reason, f"{self.name}: receive")
            self._arrived.reverse()
        return self._arrived.pop() if self._arrived else None

    def release(self, *frames: Buffer) -> None:
        """Posts the buffers of received frames again."""
        self._post([frame.whole for frame in frames])

    def _post(self, buffers: Sequence[Buffer]) -> None:
        operation = RECEIVE_HEADED if self._headed else RECEIVE
        for buffer in buffers:
            self._posted[self.receive_queue.submit(operation, buffer)] = buffer
        self.receive_queue.kick()

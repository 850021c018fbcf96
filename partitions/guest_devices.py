"""The virtual drivers of a guest: disk here, NIC in guest_nic.py, over the queues of their endpoints (A1, W7).

No adapter code is here: a request names partition memory, an offset and a length. Completion means that the device
has moved the data; a buffer must not change before.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from typing import Any

from partitions.guest_nic import Nic
from pyx import abi
from pyx.calls import RequestError
from pyx.endpoint import ClientEndpoint
from pyx.memory import Buffer, Memory
from pyx.queue import ClientQueue

READ, WRITE, FLUSH = abi.OPERATIONS["read"], abi.OPERATIONS["write"], abi.OPERATIONS["flush"]
DISCARD, WRITE_ZEROES = abi.OPERATIONS["discard"], abi.OPERATIONS["write_zeroes"]
OK = abi.STATUSES["ok"]

__all__ = ["Disk", "Nic"]


class Disk:
    """A virtual disk of `capacity` bytes. Offsets and lengths are multiples of 512 bytes."""

    def __init__(
        self,
        _memory: Memory,
        endpoint: dict[str, Any],
        queues: Sequence[ClientQueue],
        path: ClientEndpoint | None = None,
    ) -> None:
        self.name: str = endpoint["name"]
        self.read_only: bool = endpoint["read_only"]
        self.transfer_max: int = endpoint["max_transfer"]
        self.queue = queues[0]
        self._length: int = endpoint["length"]  # when this guest was told of it
        self._path = path
        self._seen = self.capacity

    @property
    def capacity(self) -> int:
        """Bytes that it has now. They grow, and never shrink, while it is here."""
        return (self._path.capacity if self._path is not None else 0) or self._length

    def grown(self, timeout: float) -> int | None:
        """Waits for the disk to grow: its capacity once that is another one than at the last call, or when it was
        opened; None after `timeout` seconds."""
        if self._path is None:
            raise OSError(errno.EOPNOTSUPP, f"{self.name}: nobody tells of its size here")
        found = self._path.await_capacity(self._seen, timeout)
        if found in (0, self._seen):
            return None
        self._seen = found
        return found

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

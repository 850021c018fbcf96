"""A double of a server that goes on after it has lost its office: a process of its own, on the rings of a running host.

The host itself kills a server that hangs before another one takes its place, so no zombie of its own making ever posts
anything. This one does: it asks in the name of the office, under an epoch that is given, as long as it is told to. It
keeps to the rings' own rules, so only the epoch is wrong. The office's true seat has to rest meanwhile, for a ring has
one producer; whoever takes the office, or adopts the ring, finds the index where this process left it.

    python -m tests.framework.zombie RING-FD BELL-FD BELL-OFFSET CAPACITY SLOTS-FILE     each slot is posted and taken
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from hostd.wire import Wire, close_fds
from tests.framework.host import Host
from tests.framework.stepping import HEAD, HEADER, SLOT, Ring
from tools.chaos.holdings import listed

ROOT = Path(__file__).resolve().parents[2]
BATCH = 50  # requests that are posted at once
DEADLINE = 10.0  # seconds for a batch to be taken
FUTEX, FUTEX_WAKE = 202, 1  # x86-64; linux/futex.h
DMA = struct.Struct("<QQQQQIIHHHHBBHI")  # struct pv_dma_request
REDIRECT = 1  # enum pv_path, below the flags of the request

_libc = ctypes.CDLL(None, use_errno=True)


def segment(host: Host, label: str) -> tuple[int, int]:
    """(descriptor, size in bytes) of the segment that the keeper has under `label`, for writing."""
    with Wire.connect(host.paths.keeper_socket) as wire:
        (row,) = [row for row in listed(wire)[0] if row["label"] == label]
        _, (descriptor,) = wire.request({"op": "segment.get", "segments": [row["id"]], "access": "write"})
    return descriptor, row["size"]


def haunt(
    host: Host, slots: Sequence[bytes], ring: str, bell: str, bell_offset: int, rings: int, folder: Path
) -> None:
    """Has the double post `slots` on the first of `rings` rings in the segment `ring`; returns when all are taken."""
    (ring_fd, size), (bell_fd, _) = segment(host, ring), segment(host, bell)
    file = folder / "slots.bin"
    file.write_bytes(b"".join(slots))
    capacity = (size // rings - HEADER) // SLOT
    try:
        command = [sys.executable, "-m", "tests.framework.zombie",
                   *map(str, (ring_fd, bell_fd, bell_offset, capacity, file))]  # fmt: skip
        done = subprocess.run(
            command, cwd=ROOT, pass_fds=(ring_fd, bell_fd), capture_output=True, text=True, timeout=120
        )
    finally:
        close_fds([ring_fd, bell_fd])
    assert done.returncode == 0, done.stderr


def post(ring: Ring, bell: mmap.mmap, offset: int, slots: Sequence[bytes]) -> None:
    """Posts and rings until all are taken."""
    ring.push(*slots)
    end = time.monotonic() + DEADLINE
    tail = ring.tail()
    while ring.index(HEAD) != tail:
        if time.monotonic() > end:
            raise TimeoutError(f"head {ring.index(HEAD)}, tail {tail}: nobody takes them")
        word = ctypes.c_uint32.from_buffer(bell, offset)
        word.value += 1
        _libc.syscall(FUTEX, ctypes.byref(word), FUTEX_WAKE, 1 << 30, None, None, 0)
        time.sleep(0.001)


def main(ring_fd: int, bell_fd: int, offset: int, capacity: int, file: str) -> None:
    memory = mmap.mmap(ring_fd, os.fstat(ring_fd).st_size)
    bell = mmap.mmap(bell_fd, os.fstat(bell_fd).st_size)
    data = Path(file).read_bytes()
    slots = [data[at : at + SLOT] for at in range(0, len(data), SLOT)]
    ring = Ring(memory, capacity=capacity)
    for first in range(0, len(slots), BATCH):
        post(ring, bell, offset, slots[first : first + BATCH])


if __name__ == "__main__":
    ring_number, bell_number, bell_at, slots_max = map(int, sys.argv[1:5])
    main(ring_number, bell_number, bell_at, slots_max, sys.argv[5])

"""A guest that serves its disks over NBD, on the listening socket that it was handed (`hostctl spawn --export-nbd`).

What a client asks for goes the way of every guest's request: rings, validation, device. Exports bear the names of the
disks; the empty name stands for the first one.
"""

from __future__ import annotations

import sys
import threading

from partitions.guest import Guest
from partitions.nbd_options import Export, Handshake
from pyx.nbd import NbdServer

PROGRAM = "partitions.nbd_export:main"
SLICE = 1.0  # seconds between two looks for signals
CONNECTIONS = 256  # at once: a client opens a handful
PAYLOAD_MAX = 32 << 20  # bytes of one read or write: what clients assume that a server takes at least
SPARE = 256 << 10  # bytes of partition memory that are left to others


def server_of(guest: Guest, listener: int, room: int, connections: int) -> NbdServer:
    """A server for all disks of `guest`, with `room` bytes of its memory for data; whoever calls runs it."""
    disks = [guest.disk(name) for name in guest.disks]
    buffer = guest.memory.allocate(room)
    # Two of the longest requests fit: the next one arrives while the disk works.
    payload_max = min(PAYLOAD_MAX, 1 << (len(buffer) // 2).bit_length() - 1)
    exports = [Export(disk.name, disk.size, disk.read_only, payload_max) for disk in disks]
    server = NbdServer(buffer, guest.waiter, listener, lambda: Handshake(exports), payload_max, connections)
    for disk in disks:
        server.add_disk(disk.queue, disk.size, disk.read_only, disk.transfer_max)
    return server


def main(guest: Guest) -> int:
    if guest.listener is None:
        print(f"{guest.name}: no socket to listen on; spawn it with --export-nbd", file=sys.stderr, flush=True)
        return 2
    if not guest.disks:
        print(f"{guest.name} has no disk to export", file=sys.stderr, flush=True)
        return 2
    server = server_of(guest, guest.listener, guest.memory.size - SPARE, CONNECTIONS)
    threading.Thread(target=server.wake, name="waker", daemon=True).start()
    while True:
        server.serve(SLICE)

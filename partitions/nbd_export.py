"""A guest that serves its disks over NBD, on the listening socket that it was handed (`hostctl spawn --export-nbd`).

What a client asks for goes the way of every guest's request: rings, validation, device. Exports bear the names of the
disks; the empty name stands for the first one.
"""

from __future__ import annotations

import sys
import threading
from dataclasses import replace

from partitions.guest import Disk, Guest
from partitions.nbd_options import Export, Handshake
from pyx.nbd import NbdServer

PROGRAM = "partitions.nbd_export:main"
SLICE = 1.0  # seconds between two looks for signals
CONNECTIONS = 256  # at once: a client opens a handful
PAYLOAD_MAX = 32 << 20  # bytes of one read or write: what clients assume that a server takes at least
EXPORTS_MAX = 32  # in the life of a partition: a server keeps the place of a disk that went
SPARE = 256 << 10  # bytes of partition memory that are left to others


def server_of(guest: Guest, listener: int, room: int, connections: int) -> tuple[NbdServer, Disks]:
    """A server for all disks of `guest`, with `room` bytes of its memory for data; whoever calls runs it."""
    buffer = guest.memory.allocate(room)
    # Two of the longest requests fit: the next one arrives while the disk works.
    payload_max = min(PAYLOAD_MAX, 1 << (len(buffer) // 2).bit_length() - 1)
    exports: list[Export] = []
    server = NbdServer(buffer, guest.waiter, listener, lambda: Handshake(disks.now()), payload_max, connections)
    disks = Disks(guest, server, exports)
    return server, disks


class Disks:
    """What is exported: the disks of the guest, also those that come and go. A disk that comes back is another
    export of the same name: connections from then on see it.

    A disk that has grown is seen by connections from then on, too. Earlier ones may use all of it, but the protocol has
    no word that would tell them: its NBD_CMD_RESIZE is a client's wish in an extension that never was taken in."""

    def __init__(self, guest: Guest, server: NbdServer, exports: list[Export]) -> None:
        self._guest, self._server, self._exports = guest, server, exports
        self._known: dict[str, tuple[int, Disk]] = {}
        self.update()

    def now(self) -> list[Export]:
        """The exports, with the sizes that their disks have now."""
        for number, disk in self._known.values():
            if self._exports[number].size != disk.capacity:
                self._exports[number] = replace(self._exports[number], size=disk.capacity)
        return self._exports

    def update(self) -> None:
        """Compares with what the guest has now."""
        disks = {name: self._guest.disk(name) for name in self._guest.disks}
        for name, (number, disk) in list(self._known.items()):
            if disks.get(name) is not disk:
                self._server.drop_disk(number)
                del self._known[name]
                self._exports[number] = replace(self._exports[number], gone=True)
        for name, disk in disks.items():
            if name not in self._known and len(self._exports) < EXPORTS_MAX:
                self._known[name] = (len(self._exports), disk)
                self._server.add_disk(disk.queue, disk.capacity, disk.read_only, disk.transfer_max)
                self._exports.append(Export(disk.name, disk.capacity, disk.read_only, self._server.payload_max))


def main(guest: Guest) -> int:
    if guest.listener is None:
        print(f"{guest.name}: no socket to listen on; spawn it with --export-nbd", file=sys.stderr, flush=True)
        return 2
    if not guest.disks:
        print(f"{guest.name} has no disk to export", file=sys.stderr, flush=True)
        return 2
    server, disks = server_of(guest, guest.listener, guest.memory.size - SPARE, CONNECTIONS)
    threading.Thread(target=server.wake, name="waker", daemon=True).start()
    while True:
        server.serve(SLICE)
        if guest.follow():
            disks.update()

"""Load over TCP that the device ends, for `bench tcp` (A5); load_sockets.py has the same over plain sockets."""

from __future__ import annotations

from typing import Any

from partitions.guest import Guest
from partitions.guest_tcp import Connection
from partitions.load_sockets import BACKLOG, BLOCK, PATIENCE, PORT, stream, taken
from pyx.calls import RequestError


class GuestTcp:
    """What a load guest does at the TCP of its NIC."""

    def __init__(self, guest: Guest) -> None:
        self._tcp = guest.nic("eth0").tcp
        self._buffer = guest.memory.allocate(BLOCK)
        self._listener: Any = None

    def listen(self) -> None:
        self._listener = self._tcp.listen(PORT, backlog=BACKLOG)

    def receive(self) -> dict[str, float]:
        with self._listener.accept(PATIENCE) as connection:
            return taken(lambda: connection.receive_into(self._buffer, PATIENCE))

    def send(self, address: str, start: int, seconds: float) -> dict[str, int]:
        with self._tcp.connect(address, PORT, PATIENCE) as connection:
            return {"bytes": BLOCK * stream(lambda: connection.send(self._buffer, PATIENCE), start, seconds)}

    def dial(self, address: str, start: int, seconds: float) -> dict[str, int]:
        def once() -> None:
            self._tcp.connect(address, PORT, PATIENCE).reset()

        count = stream(once, start, seconds)
        with self._tcp.connect(address, PORT, PATIENCE) as last:
            last.send(self._buffer[:1], PATIENCE)
        return {"count": count}

    def accept(self) -> dict[str, int]:
        """Connections until one that says something."""
        count = 0
        while True:
            with self._listener.accept(PATIENCE) as connection:
                if self._speaks(connection):
                    return {"count": count}
            count += 1

    def _speaks(self, connection: Connection) -> bool:
        try:
            return connection.receive_into(self._buffer, PATIENCE) > 0
        except RequestError:
            return False  # it was reset

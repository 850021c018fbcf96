"""Guests that generate load and obey a benchmark: partitions/load.py has the other end of the wire.

    with crew(host) as guests:
        load = guests.start("load", disks=[...])
        load.call("open_disk", bytes_in_flight=4096)
        print(load.call("disk", op="read", block=4096, depth=1, seconds=0.1))

The socket lies in the guests' program folder, the one place that benchmark and guest both see. `together` has several
guests begin at one instant, so a window of a few milliseconds is a window of all.
"""

from __future__ import annotations

import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hostd.errors import HostError
from hostd.wire import RemoteError, Wire, raise_error
from partitions.load import SOCKET
from tools.bench.host import BenchHost

PROGRAM = "partitions.load:serve"
DEADLINE = 60.0  # seconds for any answer, beside the time that the command itself takes
LEAD = 0.003  # seconds from the command to the common start: every guest has read it by then

Command = tuple["LoadGuest", str, dict[str, Any]]


class LoadGuest:
    """One guest and the wire to it."""

    def __init__(self, name: str, host: BenchHost, wire: Wire) -> None:
        self.name = name
        self.host = host
        self.wire = wire

    def begin(self, command: str, **arguments: Any) -> None:
        self.wire.send({"command": command, "arguments": arguments}, timeout=DEADLINE)

    def result(self, seconds: float = 0.0) -> dict[str, Any]:
        """The answer to the last command; HostError with the guest's own words where it failed or died."""
        try:
            reply, _ = self.wire.receive(seconds + DEADLINE)
            raise_error(reply)
        except (RemoteError, EOFError, TimeoutError) as error:
            raise HostError("internal", f"load guest {self.name}: {error}\n{self.host.logs(self.name)}") from error
        return dict(reply["result"])

    def call(self, command: str, **arguments: Any) -> dict[str, Any]:
        self.begin(command, **arguments)
        return self.result(float(arguments.get("seconds", 0)))


class Crew:
    """All load guests of one host."""

    def __init__(self, host: BenchHost, folder: Path) -> None:
        self.host = host
        self.folder = folder
        self.guests: dict[str, LoadGuest] = {}
        path = folder / SOCKET
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(path))
        path.chmod(0o666)  # guests have uids of their own
        self._listener.listen(64)
        self._listener.settimeout(DEADLINE)

    def start(self, name: str, memory: int = 2 << 20, **spec: Any) -> LoadGuest:
        """Spawns a guest with `memory` bytes beside what the host needs of it; `spec` as in a manifest."""
        self.host.spawn(name, PROGRAM, directory=str(self.folder), memory=_whole(memory), **spec)
        connection, _ = self._listener.accept()
        wire = Wire(connection)
        hello, _ = wire.receive(DEADLINE)
        if hello != {"name": name}:
            raise HostError("internal", f"{hello} came from the guest that was to be {name}")
        self.guests[name] = LoadGuest(name, self.host, wire)
        return self.guests[name]

    def dismiss(self, *names: str) -> None:
        for name in names:
            self.guests.pop(name).wire.close()
            self.host.remove(name)

    def close(self) -> None:
        for guest in self.guests.values():
            guest.wire.close()
        self._listener.close()


def together(
    waiting: Sequence[Command],
    working: Sequence[Command],
    seconds: float,
    meanwhile: Callable[[float, float], None] | None = None,
) -> list[dict[str, Any]]:
    """Has `waiting` (receivers) and `working` begin at one instant, for `seconds`; returns all answers in order.

    The instant is a time of the monotonic clock, which is one for all processes. `meanwhile` is called with it and
    `seconds`.
    """
    for guest, command, arguments in waiting:
        guest.begin(command, **arguments)
    start = time.monotonic() + LEAD
    for guest, command, arguments in working:
        guest.begin(command, start=int(start * 1e9), seconds=seconds, **arguments)
    if meanwhile is not None:
        meanwhile(start, seconds)
    return [guest.result(seconds) for guest, _, _ in (*waiting, *working)]


def go_over(guests: Sequence[LoadGuest], endpoint: str, path: str, timeout: float = 2.0) -> None:
    """Changes the path of an endpoint of each guest, which serves it meanwhile; HostError where one does not follow."""
    for guest in guests:
        guest.begin("follow", path=path, seconds=timeout, name=endpoint)
        try:
            guest.host.set_path(guest.name, endpoint, path, timeout)
        finally:
            found = guest.result(timeout)["path"]
        if found != path:
            raise HostError("internal", f"{endpoint} of {guest.name} is on {found}, not on {path}")


@contextmanager
def crew(host: BenchHost) -> Iterator[Crew]:
    folder = Path(tempfile.mkdtemp(prefix="partvisor-bench-"))
    folder.chmod(0o755)  # guests have uids of their own
    guests = Crew(host, folder)
    try:
        yield guests
    finally:
        guests.close()
        shutil.rmtree(folder)


def _whole(memory: int) -> int:
    """Partition memory is a multiple of MiB here, for the eye."""
    return (memory + (1 << 20) - 1) >> 20 << 20

"""Services of the control plane are opened again while one of its roles dies: the others are cut off from nobody, and
nobody waits for an answer of the dead one."""

import asyncio
import os
import socket
from types import SimpleNamespace
from typing import Any

import pytest

from hostd.asking import Absence, reviving
from hostd.boot import CONTROL_PLANE
from hostd.loading import Loading
from hostd.records import Record
from hostd.wire import RemoteError


class Wire:
    """Keeps the sockets that it was given; `dead`: nobody answers."""

    def __init__(self, dead: bool = False) -> None:
        self.dead = dead
        self.ends: list[socket.socket] = []

    async def request(self, message: dict[str, Any], fds: list[int], timeout: float | None) -> Any:
        if self.dead:
            raise EOFError("the peer has closed its end")
        self.ends += [socket.socket(fileno=os.dup(fd)) for fd in fds]
        return {"channels": []}, []


def loading_of(dead: str) -> tuple[Loading, dict[str, Record]]:
    """With all roles that it asks; one of them is dead."""
    records = {}
    for number, name in enumerate((*CONTROL_PLANE, "console", "monitor"), 1):
        record = records[name] = Record(name, name, number=number, pidfd=0)
        record.wire = Wire(name == dead)  # type: ignore[assignment]
        record.absence = Absence()
    if dead in records:
        records[dead].absence.begin()
    loading = Loading.__new__(Loading)
    loading._records, loading._tasks, loading.channels, loading._numbers = records, set(), [], []
    loading._fabric = SimpleNamespace(monitor=records["monitor"], symmetric=False)  # type: ignore[assignment]
    loading._connected, loading._unconnected, loading._heard = asyncio.Event(), None, {}

    return loading, records


def test_a_living_service_gets_its_wire_though_the_other_is_dead() -> None:
    """Else command has a wire to nobody, and nothing of the service dies that would give it another one."""

    async def run() -> None:
        loading, records = loading_of("ultravisor")
        reviving.set(tuple(records[name] for name in CONTROL_PLANE))
        with pytest.raises(RemoteError, match="ultravisor"):
            await loading._close_services(loading.boot_wires, again=True)
        command, operations = (records[name].wire.ends for name in ("command", "operations"))  # type: ignore[union-attr]
        assert len(command) == 2 and len(operations) == 1
        command[1].send(b"?")
        assert operations[0].recv(1) == b"?"
        for end in (*command, *operations):
            end.close()

    asyncio.run(run())


def test_a_service_that_dies_with_its_new_wire_leaves_nobody_waiting() -> None:
    """Command asks over the wire at once, and hostd asks command: no end of it may stay at hostd."""

    async def run() -> None:
        loading, records = loading_of("nobody")
        seen: list[bytes] = []
        asked = records["console"].wire.request  # type: ignore[union-attr]

        async def look(*arguments: Any, **more: Any) -> Any:
            records["ultravisor"].wire.ends.pop().close()  # type: ignore[union-attr]
            seen.append(records["command"].wire.ends[0].recv(1, socket.MSG_DONTWAIT))  # type: ignore[union-attr]
            return await asked(*arguments, **more)

        records["console"].wire.request = look  # type: ignore[union-attr]
        await loading._close_services(loading.boot_wires, again=True)
        assert seen == [b""]
        for name in ("command", "operations"):
            for end in records[name].wire.ends:  # type: ignore[union-attr]
                end.close()

    asyncio.run(run())

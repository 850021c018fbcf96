"""Connections of the device's TCP, as the test asks for them: opened by name, and kept between calls."""

from __future__ import annotations

import hashlib
import random
from typing import Any

from puppet import Puppet

from partitions.guest import RequestError
from partitions.guest_tcp import Connection, Listener, Tcp
from pyx import abi

KEPT: dict[str, Connection] = {}
ROOM: dict[str, Any] = {}
CHUNK = 65536


def tcp_of(puppet: Puppet) -> Tcp:
    return puppet.guest.nic("eth0").tcp


def room(puppet: Puppet, name: str, size: int = CHUNK) -> Any:
    if name not in ROOM:
        ROOM[name] = puppet.guest.memory.allocate(size)
    return ROOM[name]


def told(function: Any, *arguments: Any) -> Any:
    """Its result, or how it was refused: [status, reason]."""
    try:
        return function(*arguments)
    except RequestError as error:
        return [error.status, error.reason]
    except TimeoutError:
        return "timeout"


def listen(puppet: Puppet, name: str, port: int, address: str = "0.0.0.0", backlog: int = 128) -> Any:
    def do() -> None:
        KEPT[name] = tcp_of(puppet).listen(port, address, backlog)

    return told(do)


def connect(puppet: Puppet, name: str, address: str, port: int, timeout: float = 10.0) -> Any:
    def do() -> None:
        KEPT[name] = tcp_of(puppet).connect(address, port, timeout)

    return told(do)


def accept(puppet: Puppet, listener: str, name: str, timeout: float = 10.0) -> Any:
    def do() -> Any:
        one = KEPT[listener]
        assert isinstance(one, Listener)
        KEPT[name] = one.accept(timeout)
        return list(KEPT[name].peer or ())

    return told(do)


def send(puppet: Puppet, name: str, seed: int, total: int, timeout: float = 20.0) -> Any:
    """`total` bytes of a generator; their digest."""

    def do() -> str:
        generator, digest, buffer = random.Random(seed), hashlib.sha256(), room(puppet, f"out {name}")
        for start in range(0, total, CHUNK):
            data = generator.randbytes(min(CHUNK, total - start))
            digest.update(data)
            buffer[: len(data)] = data
            KEPT[name].send(buffer[: len(data)], timeout)
        return digest.hexdigest()

    return told(do)


def fill(puppet: Puppet, name: str, timeout: float = 0.3) -> int:
    """Sends until the connection takes no more; bytes that it took whole requests of."""
    buffer, total = room(puppet, f"out {name}"), 0
    buffer[:] = bytes(range(256)) * (CHUNK // 256)
    while True:
        try:
            KEPT[name].send(buffer, timeout)
        except TimeoutError:
            return total
        total += CHUNK


def go_on(puppet: Puppet, name: str, timeout: float = 10.0) -> Any:
    """What `fill` left under way ends."""
    return told(KEPT[name].send, room(puppet, f"out {name}"), timeout)


def receive(puppet: Puppet, name: str, total: int | None = None, timeout: float = 20.0) -> Any:
    """[digest, bytes] of `total` bytes, or of all until the peer has ended."""

    def do() -> list[Any]:
        digest, count, buffer = hashlib.sha256(), 0, room(puppet, f"in {name}")
        while total is None or count < total:
            part = KEPT[name].receive_into(buffer, timeout)
            if part == 0:
                break
            digest.update(buffer[:part])
            count += part
        return [digest.hexdigest(), count]

    return told(do)


def end(puppet: Puppet, name: str, how: str) -> Any:
    return told(getattr(KEPT[name], how))


def echo(puppet: Puppet, listener: str, ends: int) -> dict[str, int]:
    """Serves all clients of a listener by what `events` tells, until so many have ended."""
    server, buffer = KEPT[listener], room(puppet, "echo")
    assert isinstance(server, Listener)
    most = accepted = ended = echoed = 0
    here: set[int] = set()
    while ended < ends:
        for connection in tcp_of(puppet).events(20.0):
            if connection is server:
                one = server.accept(5.0)
                here.add(one.number)
                accepted += 1
                most = max(most, len(here))
                continue
            count = connection.receive_into(buffer, 5.0)
            if count:
                connection.send(buffer[:count], 5.0)
                echoed += count
            else:
                connection.close()
                here.discard(connection.number)
                ended += 1
    return {"accepted": accepted, "most": most, "echoed": echoed}


def raw(puppet: Puppet, requests: list[list[int]], timeout: float = 1.0) -> list[Any]:
    """Requests [operation, offset, length, flags] as a hostile driver makes them, one after the other, over the same
    memory where they are not longer than that: [status, reason] of each, or "waits"."""
    queue, buffer = puppet.guest.queues("eth0")[0], room(puppet, "raw")
    answers: list[Any] = []
    for operation, offset, length, flags in requests:
        memory = buffer[:length] if 0 < length <= CHUNK else None
        slot = queue.submit(operation, memory, offset, length, flags)
        queue.kick()
        found = [one for one in queue.wait(timeout) if one[0] == slot]
        answers.append([abi.STATUS_NAMES[found[0][1]], abi.REASON_NAMES[found[0][2]]] if found else "waits")
    return answers


def write(puppet: Puppet, data: str) -> None:
    """What the requests of `raw` find in their memory."""
    room(puppet, "raw")[: len(data) // 2] = bytes.fromhex(data)

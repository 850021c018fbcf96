"""The keeper, as hostd sees it: start or find it, and ask it for segments, processes and held descriptors.

The process itself is hostd/keeper_process.py. It runs in a session of its own and outlives hostd.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hostd.async_wire import AsyncWire
from hostd.runtime import LOG, SOCKET, sweep_stale
from hostd.wire import DESCRIPTORS_MAX, Message, RemoteError, WireError, close_fds

READY_TIMEOUT = 20.0  # seconds for an interpreter to start on a busy machine
Descriptors = list[int]
Keys = list[str]
STOP_TIMEOUT = 20.0  # seconds: grace for partitions, and the kernel's time to end the killed ones


class Keeper(AsyncWire):
    """Client of one keeper. Errors are RemoteError with the codes of hostd.errors; EOFError once it has died.

    Descriptors in results belong to the caller. `pid` is the keeper's; `process` is set where this process is its
    parent.
    """

    process: subprocess.Popen[bytes] | None = None

    def __init__(
        self,
        sock: socket.socket,
        on_event: Callable[[Message, list[int]], None] | None = None,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(sock, on_event, on_close)
        self.pid: int = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]

    async def create_segments(self, wanted: Sequence[tuple[str, int, str]]) -> list[tuple[int, int]]:
        """Segments for (kind, size, label) each; returns (id, descriptor) in the same order, all or none."""
        made: list[tuple[int, int]] = []
        try:
            for first in range(0, len(wanted), DESCRIPTORS_MAX):
                part = [
                    {"kind": kind, "size": size, "label": label}
                    for kind, size, label in wanted[first : first + DESCRIPTORS_MAX]
                ]
                reply, fds = await self.request({"op": "segment.create_many", "segments": part}, timeout=None)
                made.extend(zip(reply["segments"], fds, strict=True))
        except BaseException:
            close_fds(descriptor for _, descriptor in made)
            if made and self.error is None:
                await self.drop_segments([identity for identity, _ in made])
            raise
        return made

    async def get_segments(self, ids: Sequence[int], read_only: bool = False) -> list[int]:
        """Descriptors of segments; `read_only` ones can be neither written through nor truncated."""
        found: list[int] = []
        try:
            for first in range(0, len(ids), DESCRIPTORS_MAX):
                message: Message = {"op": "segment.get", "segments": list(ids[first : first + DESCRIPTORS_MAX])}
                if read_only:
                    message["access"] = "read"
                found.extend((await self.request(message))[1])
        except BaseException:
            close_fds(found)
            raise
        return found

    async def drop_segments(self, ids: Sequence[int]) -> None:
        for first in range(0, len(ids), DESCRIPTORS_MAX):
            await self.request({"op": "segment.drop", "segments": list(ids[first : first + DESCRIPTORS_MAX])})

    async def start(self, spec: dict[str, Any], fds: Sequence[int] = ()) -> Message:
        """Start a process; `fds` are named by spec["fds"] and stay the caller's.

        Returns {"process", "pid", "start_time", "sandbox", "pidfd", "handed"}; `handed` are descriptors, by name, that
        the process made for others before its entry.
        """
        reply, received = await self.request({"op": "start", "spec": spec}, fds, timeout=60.0)
        return {**reply, "pidfd": received[0], "handed": dict(zip(reply["handed"], received[1:], strict=True))}

    async def get_process(self, process: int) -> Message:
        """{"pid", "status", "pidfd"}; status and pidfd exclude each other."""
        reply, received = await self.request({"op": "process.get", "process": process})
        return {**reply, "pidfd": received[0] if received else None}

    async def forget_process(self, process: int) -> None:
        await self.request({"op": "process.forget", "process": process})

    async def list(self) -> dict[str, list[Message]]:
        """{"segments": [...], "processes": [...]}."""
        rows: dict[str, list[Message]] = {"segments": [], "processes": []}
        first: int | None = 0
        while first is not None:
            reply, _ = await self.request({"op": "list", "from": first})
            for kind, found in rows.items():
                found.extend(reply[kind])
            first = reply["next"]
        return rows

    async def hold(self, key: str, fds: Sequence[int]) -> None:
        """Have descriptors kept under `key`, in place of what was there; the caller keeps its own."""
        await self.request({"op": "hold", "key": key}, fds)

    async def get_held(self, key: str) -> Descriptors | None:
        """Descriptors kept under `key`; None if there are none."""
        try:
            return (await self.request({"op": "get_held", "key": key}))[1]
        except RemoteError as error:
            if error.code == "not_found":
                return None
            raise

    async def list_held(self) -> Keys:
        """All keys, in the order of their first use."""
        keys: list[str] = []
        first: int | None = 0
        while first is not None:
            reply, _ = await self.request({"op": "list_held", "from": first})
            keys += reply["keys"]
            first = reply["next"]
        return keys

    async def release(self, key: str) -> None:
        await self.request({"op": "release", "key": key})

    async def watch(self) -> None:
        """From now on `on_event` gets {"event": "exit", "process", "pid", "name", "status"}."""
        await self.request({"op": "watch"})

    async def lead(self) -> None:
        """This process is the host's daemon from now on. Whatever an earlier one had asked for is over, and what it had
        begun to start is ended."""
        await self.request({"op": "lead"})

    async def stop(self) -> None:
        """End the keeper and everything that it started; returns when nothing of it is left.

        A keeper that is dead already has taken everything along.
        """
        try:
            await self.request({"op": "stop"}, timeout=STOP_TIMEOUT)
            await asyncio.wait_for(asyncio.shield(self.closed), STOP_TIMEOUT)
        except (EOFError, WireError):
            pass
        finally:
            self.close()
            if self.process is not None:
                await asyncio.to_thread(self.process.wait, STOP_TIMEOUT)


async def connect(runtime: Path, on_event: Callable[[Message, list[int]], None] | None = None) -> Keeper:
    """The living keeper of `runtime`. FileNotFoundError or ConnectionRefusedError if there is none."""
    return await Keeper.connect(runtime / SOCKET, on_event)


async def launch(
    runtime: Path, modules: Sequence[str] = (), on_event: Callable[[Message, list[int]], None] | None = None
) -> Keeper:
    """Start the keeper of `runtime`, whose loader imports `modules`, and connect to it.

    The runtime folder must exist. RemoteError "conflict" if it has a keeper already or cannot be used.
    """
    sweep_stale(runtime)
    try:
        log = os.open(runtime / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise RemoteError("conflict", f"keeper: {runtime / LOG}: {error.strerror}") from error
    ready, ready_write = os.pipe()
    try:
        # An empty environment: what is in hostd's must not be found in the memory of a partition (rule 27).
        process = subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "hostd.keeper_process"),
                *("--runtime", str(runtime), "--ready", str(ready_write), *modules),
            ],
            env={"PATH": os.defpath, "LANG": "C.UTF-8", "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,  # not hostd's: whoever stops reading that could make the keeper wait
            pass_fds=[ready_write],
            start_new_session=True,
        )
    except BaseException:
        os.close(ready)
        raise
    finally:
        os.close(ready_write)
        os.close(log)
    try:
        word = await asyncio.wait_for(_read_all(ready), READY_TIMEOUT)
        if word != b"ready":
            raise RemoteError("conflict", f"keeper: {word.decode(errors='replace') or 'died while starting'}")
        keeper = await connect(runtime, on_event)
    except BaseException:
        process.send_signal(signal.SIGKILL)
        process.wait()
        raise
    keeper.process = process
    return keeper


async def _read_all(descriptor: int) -> bytes:
    """Everything from a pipe until its last writer has closed it; closes it."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", 0)
    )
    try:
        return await reader.read()
    finally:
        transport.close()


__all__ = ["Keeper", "connect", "launch", "sweep_stale"]

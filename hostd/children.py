"""Processes of the host through the keeper: start, control wire, output, exit.

Every process gets a pipe for its output; the keeper holds a copy of the reading ends and of hostd's ends of the
control wires, so that the death of hostd neither breaks a pipe nor ends a wire.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from hostd.async_wire import AsyncWire
from hostd.keeper import Keeper
from hostd.records import Record
from hostd.wire import Message, close_fds, pair

READ_MAX = 64 << 10
Row = dict[str, Any]


class Children:
    """Starts processes and keeps their records; `on_exit(record)` is called once for each that ends."""

    def __init__(self, keeper: Keeper, on_exit: Callable[[Record], None]) -> None:
        self.keeper = keeper
        self.by_process: dict[int, Record] = {}
        self._on_exit = on_exit
        self._early: dict[int, dict[str, int]] = {}  # exits that overtook the start reply
        self._strangers: dict[int, asyncio.Future[None]] = {}  # whose ends are waited for
        self._loop = asyncio.get_running_loop()

    async def start(
        self,
        record: Record,
        spec: dict[str, Any],
        fds: dict[str, int],
        *,
        control: bool = True,
        on_event: Callable[[Message, list[int]], None] | None = None,
        echo: bool = False,
    ) -> None:
        """Starts the process of `record`. `fds` stay the caller's. `echo`: its output also goes to hostd's stderr."""
        read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(write, True)
        handed = {**fds, "stdout": write, "stderr": write}
        ours, theirs = pair() if control else (None, None)
        if theirs is not None:
            handed["control"] = theirs.fileno()
        record.sandbox_wanted = spec["sandbox"]
        try:
            document = {**spec, "name": record.name, "type": record.type, "fds": list(handed)}
            reply = await self.keeper.start(document, list(handed.values()))
            await self.keeper.hold(f"{record.name}:{reply['process']}", [read, *([ours.fileno()] if ours else [])])
        except BaseException:
            os.close(read)
            if ours is not None:
                ours.close()
            raise
        finally:
            os.close(write)
            if theirs is not None:
                theirs.close()
        record.process, record.pid, record.start_ticks = reply["process"], reply["pid"], reply["start_time"]
        record.pidfd, record.sandbox, record.handed = reply["pidfd"], reply["sandbox"], reply["handed"]
        self._loop.add_reader(read, self._read, record, read, echo)
        if ours is not None:
            record.wire = AsyncWire(ours, on_event)
        self._know(record)

    async def resume(self, record: Record, on_event: Callable[[Message, list[int]], None] | None = None) -> None:
        """The process of `record` lives, and another hostd started it: takes its pidfd and wires from the keeper."""
        record.pidfd = (await self.keeper.get_process(record.process))["pidfd"]
        read, *wires = await self.keeper.get_held(f"{record.name}:{record.process}") or [-1]
        if read >= 0:
            self._loop.add_reader(read, self._read, record, read, bool(wires))
        if wires:
            # Its answers to the other hostd, and what it was asked by it, may lie in the wire still.
            record.wire = AsyncWire(socket.socket(fileno=wires[0]), on_event, first=time.monotonic_ns())
        self._know(record)

    async def end_stranger(self, row: Row) -> None:
        """Ends a process that another hostd started without telling of it, if it lives (`row`: the keeper's)."""
        ended = self._strangers[row["id"]] = self._loop.create_future()
        try:
            if row["status"] is None and row["id"] not in self._early:
                pidfd = (await self.keeper.get_process(row["id"]))["pidfd"]
                if pidfd is not None:
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    os.close(pidfd)
                    await ended
        finally:
            del self._strangers[row["id"]]
            self._early.pop(row["id"], None)
        await self.keeper.forget_process(row["id"])

    def _know(self, record: Record) -> None:
        self.by_process[record.process] = record
        if record.process in self._early:
            self._exited(record, self._early.pop(record.process))

    def ended_before(self, record: Record, status: dict[str, int]) -> None:
        """The process of `record` ended while there was no hostd."""
        self._exited(record, status)

    def hear(self, message: Message, fds: list[int]) -> None:
        """The keeper's events."""
        close_fds(fds)
        if message.get("event") != "exit":
            return
        record, stranger = self.by_process.get(message["process"]), self._strangers.get(message["process"])
        if stranger is not None:
            if not stranger.done():
                stranger.set_result(None)
        elif record is None:
            self._early[message["process"]] = message["status"]
        else:
            self._exited(record, message["status"])

    def lose_all(self) -> None:
        """The keeper has ended: the kernel kills what it had started, and nobody is left to tell of each."""
        for record in list(self.by_process.values()):
            self._exited(record, {"signalled": signal.SIGKILL})

    def signal(self, record: Record, number: signal.Signals) -> None:
        """By pidfd: a pid that lives again as somebody else is never hit (rule 28)."""
        if record.pidfd is not None:
            try:
                signal.pidfd_send_signal(record.pidfd, number)
            except ProcessLookupError:
                pass

    def _exited(self, record: Record, status: dict[str, int]) -> None:
        if record.exit_status is not None:
            return
        record.exit_status = status
        if record.pidfd is not None:
            os.close(record.pidfd)
            record.pidfd = None
        if record.wire is not None:
            record.wire.close()
        self.by_process.pop(record.process, None)
        self._on_exit(record)

    def _read(self, record: Record, descriptor: int, echo: bool) -> None:
        try:
            data = os.read(descriptor, READ_MAX)
        except BlockingIOError:
            return
        if not data:
            self._loop.remove_reader(descriptor)
            os.close(descriptor)
            return
        record.write_log(data)
        if echo:
            sys.stderr.write(data.decode(errors="replace"))
            sys.stderr.flush()

    async def forget(self, record: Record) -> None:
        """Drops what the keeper knows of a process that has ended."""
        await self.keeper.forget_process(record.process)
        await self.keeper.release(f"{record.name}:{record.process}")

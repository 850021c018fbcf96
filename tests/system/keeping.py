"""A keeper of the test's own, and processes below it with their output read."""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hostd import keeper
from hostd.keeper import Keeper
from hostd.wire import Message

PROGRAMS = Path(__file__).parent / "programs"  # what the started processes run
GUEST_UID = 231_072  # the first of the uids that the tests give to guests
DEADLINE = 20.0  # seconds for anything that should take milliseconds


@dataclass
class Running:
    """One started process: its start reply, and the pipe with what it prints."""

    reply: Message
    output: int
    _text: bytes = field(default=b"", repr=False)

    @property
    def pid(self) -> int:
        return self.reply["pid"]

    async def line(self) -> str:
        """The next line that it prints."""
        while b"\n" not in self._text:
            part = await self._read()
            if not part:
                raise EOFError(f"it ended after {self._text!r}")
            self._text += part
        line, _, self._text = self._text.partition(b"\n")
        return line.decode()

    async def rest(self) -> str:
        """All that it prints until everybody has closed the pipe."""
        while part := await self._read():
            self._text += part
        text, self._text = self._text.decode(), b""
        return text

    async def ended(self) -> None:
        await wait_readable(self.reply["pidfd"])

    async def _read(self) -> bytes:
        await wait_readable(self.output)
        return os.read(self.output, 65536)

    def close(self) -> None:
        os.close(self.output)
        os.close(self.reply["pidfd"])


async def wait_readable(descriptor: int) -> None:
    """Until `descriptor` is readable; the loop's own selector would keep closed ones."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(descriptor, lambda: ready.done() or ready.set_result(None))
    try:
        await asyncio.wait_for(ready, DEADLINE)
    finally:
        loop.remove_reader(descriptor)


def has_ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


@asynccontextmanager
async def keeper_in(runtime: Path, **arguments: Any) -> AsyncIterator[Keeper]:
    """A keeper, stopped at the end if the test has not done so."""
    client = await keeper.launch(runtime, **arguments)
    try:
        yield client
    finally:
        if client.error is None:
            await client.stop()
        elif client.process is not None:
            client.process.terminate()
            client.process.wait(DEADLINE)


async def start(client: Keeper, entry: str | Sequence[str], **spec: Any) -> Running:
    """Start a function of tests/system/programs, or a program given as its arguments; output goes to a pipe."""
    fds: dict[str, int] = spec.pop("fds", {})
    read, write = os.pipe()
    document = {"name": "probe", "type": "guest", "sandbox": "none", **spec}
    if isinstance(entry, str):
        document |= {"entry": entry, "directory": document.get("directory", str(PROGRAMS))}
    else:
        document["argv"] = list(entry)
    document["fds"] = ["stdout", "stderr", *fds]
    try:
        reply = await client.start(document, [write, write, *fds.values()])
    except BaseException:
        os.close(read)
        raise
    finally:
        os.close(write)
    return Running(reply, read)


async def run(client: Keeper, entry: str | Sequence[str], **spec: Any) -> tuple[str, dict[str, int]]:
    """Start and wait; returns what it printed and its status. The keeper forgets it."""
    running = await start(client, entry, **spec)
    try:
        text = await running.rest()
        await running.ended()
        while (status := (await client.get_process(running.reply["process"]))["status"]) is None:
            await asyncio.sleep(0)  # its end is known to the kernel, the keeper is about to read of it
        await client.forget_process(running.reply["process"])
        return text, status
    finally:
        running.close()


def guest(number: int = 0) -> dict[str, Any]:
    """The fields of a confined guest's specification."""
    return {"sandbox": "guest", "uid": GUEST_UID + number}

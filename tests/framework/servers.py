"""Control-plane servers as real processes under a real keeper, driven synchronously over their wires.

`Stage` owns the keeper; `Server` is one process that it started, with as many peers as a test wants. `kill` is
SIGKILL by pidfd and returns when the process is gone.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hostd import keeper
from hostd.runtime import SOCKET
from hostd.wire import Message, RemoteError, Wire, pair

MODULES = [f"partitions.{name}.main" for name in ("ultravisor", "command", "operations")] + ["tests.framework.faults"]
DEADLINE = 20.0  # seconds for anything that should take milliseconds


class Stage:
    """A keeper in `runtime` and the wire to it. Ends with everything that was started below it."""

    def __init__(self, runtime: Path) -> None:
        self.runtime = runtime
        self.process = asyncio.run(_launch(runtime))
        self.wire = Wire.connect(runtime / SOCKET)

    def start(
        self, name: str, entry: str, config: dict[str, Any], fds: dict[str, Wire] | None = None, peers: int = 1
    ) -> Server:
        """Starts `entry`; `fds` are wires that it is handed and that are closed here, `peers` how many ways to ask
        it there are: `control`, `peer1`, `peer2` ..."""
        ours, theirs = [], dict(fds or {})
        for number in range(peers):
            mine, its = pair()
            ours.append(Wire(mine))
            theirs["control" if number == 0 else f"peer{number}"] = Wire(its)
        log = tempfile.TemporaryFile(dir=self.runtime)  # noqa: SIM115  # lives as long as the server
        handed = {"stdout": log.fileno(), "stderr": log.fileno()}
        handed |= {key: wire.fileno() for key, wire in theirs.items()}
        spec = {"name": name, "type": name, "entry": entry, "sandbox": "role", "config": config, "fds": list(handed)}
        reply, received = self.wire.request({"op": "start", "spec": spec}, list(handed.values()))
        for wire in theirs.values():
            wire.close()
        return Server(self, reply, received[0], ours, log)

    def keeper_wire(self) -> Wire:
        """A connection to the keeper of its own, as the ultravisor has one."""
        return Wire.connect(self.runtime / SOCKET)

    def ultravisor(self, entry: str = "partitions.ultravisor.main:main", peers: int = 1, **config: Any) -> Server:
        config = {"database": str(self.runtime / "resources.db"), **config}
        return self.start("ultravisor", entry, config, {"keeper": self.keeper_wire()}, peers)

    def segments(self) -> dict[int, dict[str, Any]]:
        """What the keeper has, by id."""
        return {row["id"]: row for row in self.wire.request({"op": "list"})[0]["segments"]}

    def close(self) -> None:
        self.wire.request({"op": "stop"})
        self.wire.close()
        self.process.wait(DEADLINE)


async def _launch(runtime: Path) -> Any:
    client = await keeper.launch(runtime, MODULES)
    client.close()
    return client.process


class Server:
    """A running server. `ask` uses the first peer."""

    def __init__(self, stage: Stage, reply: Message, pidfd: int, wires: list[Wire], log: Any) -> None:
        self.pid = reply["pid"]
        self.start_time = reply["start_time"]
        self.wires = wires
        self._stage = stage
        self._process = reply["process"]
        self._pidfd = pidfd
        self._log = log

    def ask(self, op: str, peer: int = 0, **fields: Any) -> Message:
        return self.wires[peer].request({"op": op, **fields}, timeout=DEADLINE)[0]

    def transaction(self, *operations: dict[str, Any], **fields: Any) -> Message:
        return self.ask("transaction", operations=list(operations), **fields)

    def ended(self, timeout: float = 0.0) -> bool:
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(timeout * 1000))

    def shoot(self) -> None:
        """SIGKILL; nothing else, so that a thread can do it."""
        try:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def kill(self) -> None:
        """SIGKILL, and the end of the process."""
        self.shoot()
        self.wait()

    def stop(self) -> None:
        self.ask("stop")
        self.wait()

    def wait(self) -> dict[str, int]:
        """How it ended."""
        if not self.ended(DEADLINE):
            raise AssertionError(f"process {self.pid} has not ended: {self.log()}")
        status = None
        while status is None:  # the kernel knows of its end, the keeper is about to read of it
            status = self._stage.wire.request({"op": "process.get", "process": self._process})[0]["status"]
        self._stage.wire.request({"op": "process.forget", "process": self._process})
        for wire in self.wires:
            wire.close()
        os.close(self._pidfd)
        return status

    def log(self) -> str:
        """What it has printed."""
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode(errors="replace")


@contextmanager
def staged(runtime: Path) -> Iterator[Stage]:
    stage = Stage(runtime)
    try:
        yield stage
    finally:
        stage.close()


__all__ = ["RemoteError", "Server", "Stage", "staged"]

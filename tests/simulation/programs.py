"""The programs of the control plane: real handlers, which are synchronous, with their real files.

Each may die and stand still between two requests, as every process; and die inside one, before and after each commit,
each question to another program and each request to the keeper. Then its files are what SIGKILL leaves of them, and
what its code still does while it unwinds acts on nobody.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hostd.wire import Message, WireError, raise_error
from partitions.command.main import Command
from partitions.operations.main import Operations
from partitions.skeleton import Context
from partitions.store import Store
from partitions.ultravisor.main import Ultravisor
from tests.simulation.keeper import Pending, Segments
from tests.simulation.processes import Killed, Process
from tests.simulation.wires import Socket

INSIDE = 0.25  # of the probability of a death: there are many steps inside a request
LOGS = ("", "-wal")  # of a database file


class Question:
    """In the place of hostd.wire.Wire in a program of the control plane: the other one answers inside."""

    def __init__(self, sock: Socket) -> None:
        self._sock = sock

    @property
    def asker(self) -> Any:
        return self._sock.owner

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        pass  # the process has it until it dies

    def request(
        self, message: Message, _fds: Sequence[int] = (), timeout: float | None = None
    ) -> tuple[Message, list[int]]:
        self.asker.step()
        peer = self._sock.peer.owner
        if self._sock.closed or peer is None or not peer.alive:
            raise WireError("the peer has closed its end")
        if peer.still:
            raise TimeoutError(f"no message within {timeout} s")
        if peer.strike():
            raise EOFError("the peer has closed its end")
        reply, _ = peer.answer({**message, "seq": 1}, [], peer.name_of(self._sock.peer))
        if peer.strike():
            raise EOFError("the peer has closed its end")
        self.asker.step()
        raise_error(reply)
        return reply, []


class Program(Process):
    """`make(context)` gives the real one; its `attach` opens the file that its configuration names as FILE."""

    make: Callable[[Context], Any]
    FILE: str
    program: Any = None

    def begin(self) -> None:
        self.open()
        self.look()

    def open(self) -> None:
        config = {name: self.world.file(value) for name, value in self.spec["config"].items()}
        new = self.world.descriptors.new  # its own
        fds = {name: new(sock) for name, sock in self.sockets.items() if name != "control"}
        self.program = type(self).make(Context(self.name, self.spec["type"], config, fds))
        with self._acting():
            self.program.attach()

    @contextmanager
    def _acting(self) -> Iterator[None]:
        """Its code runs; until here, where it dies."""
        self.world.acting.append(self)
        try:
            yield
        except Killed:
            pass
        except SystemExit as error:  # partitions.store.Fault
            if self.alive:  # nobody else has its file, and no medium fails here
                self.world.faults.append(f"{self.name} ends by itself: {error}")
                self.kill({"exited": 1})
        finally:
            self.world.acting.pop()

    def step(self) -> None:
        """A moment inside a request at which chance may end it."""
        if self.alive and self.world.chance.kill(INSIDE):
            self.world.note(f"{self.name} is inside a request")
            self.kill()
        if not self.alive:
            raise Killed

    def died(self) -> None:
        """The next one finds its file as it is now; the connection of this one, to files without names, is never
        closed: that would finish what it had begun."""
        self.world.graves.append(self.program)
        path = self.world.file(self.spec["config"][self.FILE])
        for file in [Path(path + log) for log in LOGS]:
            if file.exists():
                data = file.read_bytes()
                file.unlink()
                file.write_bytes(data)

    @property
    def store(self) -> Store:
        raise NotImplementedError

    def shrink(self) -> None:
        """The log goes into the file, so that there is less to copy."""
        self.store.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def move(self) -> None:
        """Goes on with copies of its files. A fork has a copy of all that SQLite knows of them, but the descriptors are
        those of the originals: others take their place. Nobody but the forks ever uses these files again, and each only
        its copies, so locks that a fork does not inherit are of no use."""
        path = self.spec["config"][self.FILE]
        for name in os.listdir("/proc/self/fd"):
            with suppress(FileNotFoundError):  # the one that lists them
                log = os.readlink(f"/proc/self/fd/{name}").removeprefix(path)
                if log in LOGS:
                    copy = os.open(self.world.file(path) + log, os.O_RDWR | os.O_CLOEXEC)
                    os.dup2(copy, int(name), inheritable=False)
                    os.close(copy)

    def name_of(self, sock: Socket) -> str:
        return next((name for name, one in self.sockets.items() if one is sock), "control")

    def answer(self, message: Message, things: list[Any], peer: str) -> tuple[Message, list[Any]]:
        channels = getattr(self, f"channel_{message['op']}", None)
        if channels is not None:
            return channels(message, things), []
        self.program.peer = peer
        reply: Message = {}
        with self._acting():
            reply, _ = self.program._dispatch(message, [])
            self.program.tidy()
        return reply, []

    # Control channels after a load are wires here: what they carry is the same.

    def channel_channel(self, _message: Message, _things: list[Any]) -> Message:
        return {}

    def channel_channel_closed(self, message: Message, things: list[Any]) -> Message:
        if things:
            self.adopt(message["peer"], things[0])
        return {}

    def adopt(self, name: str, sock: Socket) -> None:
        sock.owner = self
        self.things[name] = self.sockets[name] = sock
        if sock.peer.owner is not None:
            self.world.soon(sock.peer.owner.look)


class Asked:
    """The keeper, as an ultravisor has it: `begin_create` is heard although the one who asked has died since."""

    def __init__(self, program: Program, segments: Segments) -> None:
        self._program, self._segments = program, segments

    def __getattr__(self, name: str) -> Any:
        act = getattr(self._segments, name)

        def asked(*arguments: Any) -> Any:
            self._program.step()
            answer = act(*arguments)
            self._program.step()
            return answer

        return asked

    def begin_create(self, requests: Any) -> Any:
        self._program.step()
        made = self._segments.begin_create(requests)
        made.finish()
        return Made(self._program, made)


class Made:
    """Segments that the keeper makes."""

    def __init__(self, program: Program, made: Pending) -> None:
        self._program, self._made = program, made
        self.ids, self.take, self.close = made.ids, made.take, made.close

    def finish(self) -> None:
        self._program.step()

    def abandon(self) -> None:
        self._program.step()
        self._made.abandon()


class SimulatedUltravisor(Program):
    make = Ultravisor
    FILE = "database"

    def answer(self, message: Message, things: list[Any], peer: str) -> tuple[Message, list[Any]]:
        reply, given = super().answer(message, things, peer)
        if self.alive and message["op"] == "transaction" and "version" in reply and message.get("key"):
            self.world.committed[message["key"]] = reply["version"]
        return reply, given

    @property
    def store(self) -> Store:
        return self.program._database


class SimulatedOperations(Program):
    make = Operations
    FILE = "policies"

    @property
    def store(self) -> Store:
        return self.program._policies


class SimulatedCommand(Program):
    make = Command
    FILE = "decisions"
    ALONE = ("ping", "boot_wire", "boot_wires", "call_ring", "channel_opened")  # it asks nobody for these

    @property
    def store(self) -> Store:
        return self.program._journal

    def _serve(self, name: str, sock: Socket) -> None:
        """It waits for those whom it asks while they stand still, or have not taken its wire yet."""
        self._busy = False
        others = [self.sockets[service].peer for service in ("ultravisor", "operations")]
        asks = sock.inbox and self.world.decoded(sock.inbox[0][0])["op"] not in self.ALONE
        if asks and any(one.owner is None and not one.closed for one in others):
            return  # whoever takes or drops it wakes this one
        until = max((one.owner.still_until for one in others if one.owner is not None and one.owner.alive), default=0.0)
        if asks and until >= self.world.loop.now:
            self._busy = True
            self.world.at(until + 1e-6, self._serve, name, sock)
        else:
            super()._serve(name, sock)

    def channel_call_ring(self, _message: Message, _things: list[Any]) -> Message:
        self.world.connect(self, ["operations", "ultravisor"])
        return {}

    def channel_channel_opened(self, _message: Message, _things: list[Any]) -> Message:
        return {}

    def channel_boot_wires(self, _message: Message, things: list[Any]) -> Message:
        return self._wired({"op": "boot_wires"}, ("ultravisor", "operations"), things)

    def channel_boot_wire(self, message: Message, things: list[Any]) -> Message:
        return self._wired(message, (message["service"],), things)

    def _wired(self, message: Message, names: Sequence[str], things: list[Any]) -> Message:
        for name, sock in zip(names, things, strict=True):
            self.adopt(name, sock)
        fds = [self.world.descriptors.new(sock) for sock in things]
        return self.program._dispatch(message, fds)[0]

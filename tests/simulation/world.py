"""The simulated host: clock, chance, descriptors, keeper and processes; and what of the real modules they stand for.

Everything of hostd, command, operations and ultravisor is the real code. Replaced are the clock, the sockets below
`AsyncWire`, the keeper, the programs of the data plane, mapped memory, and the signals to processes.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import secrets
import selectors
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hostd.async_wire
import hostd.boot
import hostd.checks
import hostd.children
import hostd.control_life
import hostd.daemon
import hostd.hotplug
import hostd.keeper
import hostd.loading
import hostd.pulse
import hostd.role_segments
import hostd.succession
import hostd.supervisor
import hostd.urgency
import hostd.views
import hostd.world_life
import partitions.skeleton
import partitions.ultravisor.main
import partitions.ultravisor.views
from hostd.records import Record
from hostd.wire import Message, Wire, decode
from partitions.store import Store
from tests.simulation import roles, wires
from tests.simulation.chance import Chance
from tests.simulation.clock import LIFE, Loop
from tests.simulation.keeper import Keeper
from tests.simulation.processes import Process
from tests.simulation.programs import (
    Asked,
    Program,
    Question,
    SimulatedCommand,
    SimulatedOperations,
    SimulatedUltravisor,
)

PROGRAMS: dict[str, type[Process]] = {
    "partitions.ultravisor.main:main": SimulatedUltravisor,
    "partitions.operations.main:main": SimulatedOperations,
    "partitions.command.main:main": SimulatedCommand,
    "partitions.monitor:main": roles.Monitor,
    "partitions.io:main": roles.IoPartition,
    "partitions.devices:nic": roles.Device,
    "partitions.devices:disk": roles.Device,
    "partitions.console:main": roles.Console,
    "partitions.guest:main": roles.Guest,
}


class World:
    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = self.files = folder  # what hostd names, and where the files are in truth
        self.loop = Loop()
        self.outside = contextvars.copy_context()
        self.loop.watched = lambda number: self.soon(self.ready, number)
        self.loop.set_exception_handler(self._failed)
        self.chance = Chance(seed)
        self.descriptors = wires.Descriptors()
        self.kernel: dict[str, Any] = {}  # what the kernel region keeps over the life of a monitor
        self.views: dict[int, dict[str, Any]] = {}  # what the ultravisor has published, by partition
        self.terms: list[tuple[int, int, int]] = []  # (office, epoch, seat), as they came into force
        self.refusals: list[str] = []  # what a role refused as no caller may ask it
        self.errors: list[str] = []  # of callbacks and tasks that nobody waits for
        self.story: list[str] = []
        self.keeper: Keeper | None = None
        self.kill_hostd: Callable[[], None] = lambda: None
        self.spared: dict[int, str] = {}  # pid -> name of guests that the next hostd has to leave alone
        self.faults: list[str] = []  # broken promises that were seen at once
        self.acting: list[Program] = []  # whose code runs now: the last one, whom the one before it has asked
        self.committed: dict[str, int] = {}  # key -> version of the changes that the ultravisor has answered
        self.graves: list[Any] = []  # of programs that died: what they had open is never closed
        self._calls = 0

    # ---- for the processes: nothing of theirs belongs to the hostd that caused it

    def soon(self, act: Callable[..., Any], *arguments: Any) -> None:
        self.loop.call_soon(act, *arguments, context=self.outside)

    def later(self, seconds: float, act: Callable[..., Any], *arguments: Any) -> None:
        self.loop.call_later(seconds, act, *arguments, context=self.outside)

    def at(self, when: float, act: Callable[..., Any], *arguments: Any) -> None:
        self.loop.call_at(when, act, *arguments, context=self.outside)

    def file(self, value: Any) -> Any:
        return value.replace(str(self.folder), str(self.files), 1) if isinstance(value, str) else value

    # ---- hostd's death

    def step(self) -> bool:
        """Between two steps of hostd that others can see. True: it is dead, and the next one is not done any more."""
        if LIFE.get() and not self.ghost() and self.chance.hostd_dies():
            self.kill_hostd()
        return self.ghost()

    def ghost(self) -> bool:
        """Does the rest of a dead hostd's last step ask? It would not run with a real one, and is not heard."""
        return LIFE.get() in self.loop.dead

    def ended(self, _keeper: Keeper) -> None:
        """A hostd has ended the host that it found, and makes another one."""
        if self.spared:
            self.faults.append(f"a host was ended in which {sorted(self.spared.values())} ran")
        self.note("the keeper is stopped")
        self.kernel, self.views = {}, {}

    def note(self, text: str) -> None:
        self.story.append(f"{self.loop.now:12.6f} {text}")

    def decoded(self, data: bytes) -> Message:
        return decode(data)

    def program(self, spec: dict[str, Any]) -> type[Process]:
        return PROGRAMS[spec["entry"]]

    def ready(self, number: int) -> None:
        """Is there something for the reader of a descriptor?"""
        sock = self.descriptors.open.get(number)
        if isinstance(sock, wires.Socket) and number in self.loop.readers and (sock.inbox or sock.ended):
            self.loop.readers[number]()
            if sock.inbox:
                self.loop.call_soon(self.ready, number)

    def handle(self, segment: int) -> int:
        return self.descriptors.new(("segment", segment))

    def monitor(self) -> roles.Monitor | None:
        return next(iter(self.processes(roles.Monitor)), None)

    def stir(self) -> None:
        """A process has died or stands still: the monitor's next look sees it."""
        monitor = self.monitor()
        if monitor is not None:
            monitor.stir()

    def term(self, office: int, epoch: int, seat: int) -> None:
        self.terms.append((office, epoch, seat))
        self.note(f"office {office:#x}: epoch {epoch}, seat {seat}")

    def connect(self, client: Process, services: list[str]) -> None:
        """System calls of a partition that wants services."""
        monitor = self.monitor()
        for service in services:
            self._calls += 1
            partition = next((key for key, view in self.views.items() if view.get("name") == client.name), None)
            if monitor is not None and partition is not None:
                monitor.tell({"event": "connect", "partition": partition, "call": self._calls, "service": service})

    def processes(self, kind: type[Process]) -> list[Any]:
        known = self.keeper.processes.values() if self.keeper is not None else ()
        return [one for one in known if isinstance(one, kind) and one.alive]

    def _failed(self, _loop: Any, context: dict[str, Any]) -> None:
        self.errors.append(f"{context.get('message')}: {context.get('exception')!r}")

    # ---- in the place of real ones

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """While it is open, what the modules under test call is this world."""
        kept: list[tuple[Any, str, Any]] = []
        try:
            for target, name, replacement in self._replacements():
                kept.append((target, name, target.__dict__[name]))
                setattr(target, name, replacement)
            yield
        finally:
            for target, name, real in reversed(kept):
                setattr(target, name, real)

    def _replacements(self) -> list[tuple[Any, str, Any]]:
        real_close, real_blocking, real_dup, real_commit = os.close, os.set_blocking, os.dup, Store._commit

        def close(number: int) -> None:
            if number < wires.FIRST:
                real_close(number)
            elif not self.ghost():
                self.descriptors.close(number)

        def dup(number: int) -> int:
            return self.descriptors.dup(number) if number >= wires.FIRST else real_dup(number)

        def set_blocking(number: int, flag: bool) -> None:
            if number < wires.FIRST:
                real_blocking(number, flag)

        def commit(store: Store) -> None:
            self.acting[-1].step()
            real_commit(store)
            self.acting[-1].step()

        def pair() -> tuple[wires.Socket, wires.Socket]:
            both = wires.pair(self)
            for sock in both:
                sock.fileno()  # they are open from now on
            return both

        replaced: list[tuple[Any, str, Any]] = [
            (os, "close", close),
            (os, "dup", dup),
            (os, "set_blocking", set_blocking),
            # Pids here are not the machine's, whose processes of these numbers nobody may look at or touch.
            (os, "sched_setscheduler", lambda *_: None),
            (hostd.world_life, "free", lambda _roots: None),
            (hostd.world_life, "threads_of", lambda _pid: set()),
            (hostd.urgency, "procfs", SimpleNamespace(start_time=lambda _pid: None)),
            (hostd.pulse, "_still", self._still),
            (os, "pipe2", lambda _flags: (self.descriptors.new("pipe"), self.descriptors.new("pipe"))),
            (time, "monotonic", self.loop.time),
            (time, "monotonic_ns", lambda: int(self.loop.now * 1e9)),
            (time, "time", self.loop.time),
            (secrets, "token_hex", lambda size=16: self.chance.random.randbytes(size).hex()),
            (signal, "pidfd_send_signal", self._signal),
            (selectors, "DefaultSelector", Selector),
            (hostd.async_wire, "prepare", lambda _sock: None),
            (hostd.async_wire, "send_packet", wires.send_packet),
            (hostd.async_wire, "receive_packet", wires.receive_packet),
            (hostd.supervisor, "receive_packet", wires.receive_packet),
            (hostd.supervisor, "register_membarrier", lambda: True),
            (hostd.hotplug, "send_packet", lambda sock, data, fds: wires.send_packet(sock, data, fds)),
            (hostd.role_segments, "initialize", lambda *_: None),
            (hostd.role_segments, "Reader", Statistics),
            (hostd.role_segments, "VectorReader", lambda _number: Mapped()),
            (hostd.children, "socket", SimpleNamespace(socket=self._socket)),
            (hostd.succession, "socket", SimpleNamespace(socket=self._socket)),
            (hostd.daemon, "is_locked", lambda _runtime: self.keeper is not None and self.keeper.alive),
            (hostd.keeper, "connect", self._connect),
            (hostd.keeper, "launch", self._launch),
            (hostd.views, "sealed", lambda *_: self.descriptors.new("sealed")),
            (hostd.loading, "mapped", lambda _pid: {}),
            (hostd.loading, "identity_of", lambda number: number),
            (partitions.ultravisor.main, "Keeper", lambda wire: Asked(wire.asker, self.keeper.segments)),
            (Store, "_commit", commit),
            (partitions.ultravisor.views, "ViewWriter", self._view_writer),
            (partitions.ultravisor.views, "MapWriter", lambda _number, pages: Mapped(pages)),
            (Wire, "from_fd", classmethod(lambda _cls, number: Question(self.descriptors.open[number]))),
            (Wire, "connect", classmethod(lambda _cls, _path: self._to_keeper())),
        ]
        makers = (hostd.children, hostd.boot, hostd.control_life, hostd.loading, hostd.supervisor)
        return [*replaced, *((module, "pair", pair) for module in makers)]

    def _to_keeper(self) -> Any:
        sock, _ = wires.pair(self)
        return SimpleNamespace(sock=sock, fileno=sock.fileno, close=lambda: None)

    async def _connect(self, _runtime: Any) -> hostd.keeper.Keeper:
        assert self.keeper is not None
        ours, theirs = wires.pair(self)
        ours.fileno()
        self.keeper.connect(theirs)
        return hostd.keeper.Keeper(ours)  # type: ignore[arg-type]

    async def _launch(self, runtime: Any, _modules: Any) -> hostd.keeper.Keeper:
        self.keeper = Keeper(self)
        return await self._connect(runtime)

    def _socket(self, fileno: int) -> wires.Socket:
        """Of a descriptor that came from the keeper: the same end that the last hostd had."""
        sock = self.descriptors.open[fileno]
        sock.number = fileno
        return sock

    def _signal(self, number: int, what: int) -> None:
        if self.step():
            return
        process = self.descriptors.open[number]
        if process.alive and process.pid in self.spared:
            self.faults.append(f"a hostd ended {process.name}, which it had to take over")
        if not process.alive:
            raise ProcessLookupError
        # SIGTERM is obeyed by what does not stand still; after a while, as a program that has something to put away.
        if what == signal.SIGKILL:
            process.kill()
        elif what == signal.SIGTERM and not process.still:
            self.later(self.chance.work(), process.kill, {"exited": 0})
        self.step()

    def _still(self, record: Record) -> bool:
        """In the place of /proc, for hostd.pulse."""
        return any(one.pid == record.pid and one.still for one in self.processes(Process))

    def _view_writer(self, number: int) -> Any:
        _, segment = self.descriptors.open[number]
        row = self.keeper.segments.segments[segment]

        name = str(row["label"]).split(":")[1]  # partitions.ultravisor.change.label_of

        def publish(view: dict[str, Any]) -> None:
            self.views[view["partition"]] = {"name": name, **view}

        return Mapped(publish=publish)


class Selector:
    """Of a program of the control plane, which is called here when there is something for it (`Program.answer`)."""

    def register(self, *_: Any) -> None:
        pass

    def unregister(self, _source: Any) -> None:
        pass


class Mapped:
    """In the place of what is mapped, and written to by a real ultravisor."""

    def __init__(self, pages: int = 0, publish: Any = None) -> None:
        self.pages, self.publish = pages, publish

    def assign(self, *_: Any, **__: Any) -> None:
        pass

    def clear(self, *_: Any) -> None:
        pass

    def detach(self) -> None:
        pass


class Statistics:
    """In the place of pyx.statistics.Reader."""

    def __init__(self, _number: int, _size: int, name: str = "") -> None:
        self.name, self.kind = name, "io"

    def detach(self) -> None:
        pass

    def rows(self) -> list[Any]:
        return []

    def charges(self) -> dict[int, int]:
        return {}

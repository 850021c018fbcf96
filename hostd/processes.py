"""The keeper's children: starting them through the loader, noticing their ends, leaving none behind.

A start has two messages on the way at once: the loader answers with pid and pidfd, and the new process itself says
on its start socket that it is confined, or why not. The keeper waits for neither; `Start.advance` puts the reply
together when both are there. Processes are named by pidfd and (slot, generation), never by pid alone (rule 28).
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from hostd.procfs import children, group, start_time
from hostd.startspec import SANDBOXES
from hostd.tables import SlotTable, TableError
from hostd.wire import Message, RemoteError, Wire, WireError, close_fds, pair, raise_error

HANDED_MAX = 4  # descriptors that a new process hands out before its entry
STARTS_MAX = 64  # starts under way: each holds a socket and a process that is not accounted for yet
PROCESSES_MAX = 4096
START_TIMEOUT = 30.0  # seconds from request to a confined process
GRACE = 2.0  # seconds between SIGTERM and SIGKILL at the end
LAST_WAIT = 10.0  # seconds for killed processes to vanish; the kernel may hold one in a device wait

Done = Callable[[Message, list[int]], object]  # nobody reads the result
Failed = Callable[[str, str], object]


@dataclass
class Process:
    """One partition's process. `status` is None while it runs."""

    pid: int
    pidfd: int
    name: str
    type: str
    start_time: int
    status: dict[str, int] | None = None
    hidden: bool = False  # its start failed: nobody was ever told of it


@dataclass
class Start:
    """A start under way."""

    name: str
    type: str
    wire: Wire
    deadline: float
    done: Done
    failed: Failed
    process: int = 0
    report: Message | None = None
    handed: list[int] = field(default_factory=list)  # descriptors that the process made for others
    ended: bool = False  # the process has closed its start socket


class Processes:
    """Owner of the loader, of all starts under way and of all processes."""

    def __init__(
        self, selector: selectors.BaseSelector, modules: list[str], on_exit: Callable[[int, Process], None]
    ) -> None:
        self._selector = selector
        self._modules = modules
        self._on_exit = on_exit
        self.table: SlotTable[Process] = SlotTable("process", PROCESSES_MAX)
        self._starts: dict[int, Start] = {}
        self._seq = 0
        self._loader: Wire | None = None
        self._loader_pid = 0
        self._loader_failure = "it ended"
        self._strays_wait = False  # until it is known which children are those of starts under way

    # ---- loader ----

    def start_loader(self) -> None:
        """Start the template process; its imports take a while, requests wait in its socket meanwhile."""
        ours, theirs = pair()
        arguments = ["-P", "-m", "hostd.loader", "--wire", "3", "--keeper", str(os.getpid()), *self._modules]
        self._loader_pid = os.posix_spawn(
            sys.executable,
            [sys.executable, *arguments],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), 3)],
            setsid=True,
        )
        theirs.close()
        self._loader = Wire(ours)
        self._loader_failure = "it ended"
        self._selector.register(self._loader, selectors.EVENT_READ, self._hear_loader)

    def _ask_loader(self, request: Message, start: socket.socket) -> None:
        """Send to the loader; to a new one if it has died and nobody has noticed yet."""
        if self._loader is not None:
            try:
                self._loader.send(request, [start.fileno()], timeout=0)
                return
            except WireError:
                self._lose_loader()
        self.start_loader()
        assert self._loader is not None
        self._loader.send(request, [start.fileno()], timeout=0)

    def _hear_loader(self) -> None:
        assert self._loader is not None
        try:
            message, fds = self._loader.receive(0)
        except TimeoutError:
            return
        except (EOFError, WireError):
            self._lose_loader()
            return
        if message.get("event") == "failed":
            self._loader_failure = str(message.get("message"))
            return
        start = self._starts.get(message.get("reply", 0))
        if start is None or "error" in message:
            close_fds(fds)
            if start is not None:
                error = message["error"]
                self._fail(message["reply"], error["code"], error["message"])
            return
        pid = message["pid"]
        process = Process(pid, fds[0], start.name, start.type, start_time(pid))
        start.process = self.table.add(process)
        self._selector.register(process.pidfd, selectors.EVENT_READ, lambda: self._exited(start.process))
        self._advance(message["reply"])
        if self._strays_wait:
            self.reap_strays()

    def _lose_loader(self) -> None:
        """Its death costs the starts that it had not answered; the next start gets a new one."""
        assert self._loader is not None
        self._selector.unregister(self._loader)
        self._loader.close()
        self._loader = None
        for seq, start in list(self._starts.items()):
            if not start.process:
                self._fail(seq, "unreachable", f"{start.name}: not started by the loader: {self._loader_failure}")
        self.reap_strays()  # a clone of which it had not told is one

    # ---- start ----

    def start(self, spec: dict[str, Any], fds: list[int], done: Done, failed: Failed) -> None:
        """Start one process; either `done(reply, [pidfd])` or `failed(code, message)` is called later, once."""
        name, kind, sandbox = (str(spec.get(key, ""))[:64] for key in ("name", "type", "sandbox"))
        if sandbox not in SANDBOXES:
            failed("invalid", f"spec.sandbox: {sandbox!r}; known: {', '.join(SANDBOXES)}")
            return
        if len(self._starts) == STARTS_MAX:
            failed("conflict", f"{STARTS_MAX} starts are under way already")
            return
        if len(self.table) + len(self._starts) >= PROCESSES_MAX:
            failed("conflict", f"{PROCESSES_MAX} processes are known; forget those that have ended")
            return
        self._seq += 1
        seq = self._seq
        ours, theirs = pair()
        wire = Wire(ours)
        try:
            wire.send({"spec": spec}, fds, timeout=0)
            request = {"op": "clone", "seq": seq, "sandbox": sandbox, "unsafe": spec.get("unsafe") is True}
            self._ask_loader(request, theirs)
        except WireError as error:
            wire.close()
            failed("internal", f"{name}: {error}")
            return
        finally:
            theirs.close()
        self._starts[seq] = Start(name, kind, wire, time.monotonic() + START_TIMEOUT, done, failed)
        self._selector.register(wire, selectors.EVENT_READ, lambda: self._hear_start(seq))

    def _hear_start(self, seq: int) -> None:
        start = self._starts[seq]
        try:
            message, fds = start.wire.receive(0)
        except TimeoutError:
            return
        except (EOFError, WireError):
            start.ended = True
            self._selector.unregister(start.wire)
        else:
            names = message.get("handed", [])
            twice = bool(start.handed and fds)
            if twice or len(fds) > HANDED_MAX or not isinstance(names, list) or len(names) != len(fds):
                close_fds(fds)
                self._fail(seq, "internal", f"{start.name}: handed out {len(fds)} descriptors that nobody expects")
                return
            start.handed += fds
            try:
                raise_error(message)
            except RemoteError as error:
                self._fail(seq, error.code, error.message)
                return
            start.report = message
        self._advance(seq)

    def _advance(self, seq: int) -> None:
        """Answer the start if everything is known. A program is started when exec has closed its start socket."""
        start = self._starts[seq]
        if not start.process:
            return
        process = self.table.get(start.process)
        if start.report is None and start.ended and process.status is not None:
            self._fail(seq, "internal", f"{start.name}: died before its entry: {process.status}")
        elif start.report is not None and (start.ended or not start.report.get("exec")):
            self._end(seq)
            reply = {"process": start.process, "pid": process.pid, "start_time": process.start_time}
            more = {"sandbox": start.report["sandbox"], "handed": start.report.get("handed", [])}
            start.done({**reply, **more}, [process.pidfd, *start.handed])
            close_fds(start.handed)
            start.handed = []

    def _fail(self, seq: int, code: str, message: str) -> None:
        start = self._end(seq)
        close_fds(start.handed)
        start.handed = []
        if start.process:
            process = self.table.get(start.process)
            process.hidden = True  # forgotten by _exited, which may be what has led here
            if process.status is None:
                signal.pidfd_send_signal(process.pidfd, signal.SIGKILL)
        start.failed(code, message)

    def _end(self, seq: int) -> Start:
        start = self._starts.pop(seq)
        if not start.ended:
            self._selector.unregister(start.wire)
        start.wire.close()
        return start

    def next_deadline(self) -> float | None:
        return min((start.deadline for start in self._starts.values()), default=None)

    def expire(self) -> None:
        now = time.monotonic()
        for seq, start in list(self._starts.items()):
            if start.deadline <= now:
                self._fail(seq, "timeout", f"{start.name}: not confined within {START_TIMEOUT} s")
                self.reap_strays()

    # ---- ends ----

    def _exited(self, identity: int) -> None:
        process = self.table.get(identity)
        with suppress(OSError):  # before the wait, while the pid cannot be anybody else's
            os.killpg(process.pid, signal.SIGKILL)
        process.status = _wait(process.pidfd)
        self._selector.unregister(process.pidfd)
        for seq, start in list(self._starts.items()):
            if start.process == identity:
                self._hear_rest(seq)  # it may have been started: the reply carries the pidfd
        os.close(process.pidfd)
        if process.hidden:
            self.forget(identity)
        else:
            self._on_exit(identity, process)
        self.reap_strays()

    def give_up_starts(self) -> None:
        """Who asked for them is gone."""
        for seq in list(self._starts):
            self._fail(seq, "state", "another daemon leads the host")
        self.reap_strays()

    def _hear_rest(self, seq: int) -> None:
        """What a dead process has said on its start socket, up to the end."""
        while seq in self._starts and not self._starts[seq].ended:
            self._hear_start(seq)

    def forget(self, identity: object) -> None:
        process = self.table.get(identity)
        if process.status is None:
            raise TableError("state", f"process {identity} ({process.name}) still runs")
        self.table.remove(identity)

    def reap_strays(self) -> None:
        """Wait for orphans that the kernel gave to this subreaper; kill those whose partition has ended."""
        self._strays_wait = any(not start.process for start in self._starts.values())
        if self._strays_wait:
            return  # a child that is not known yet may be one of these
        known = {process.pid for _, process in self.table if process.status is None}
        for pid in children():
            if pid in known or (pid == self._loader_pid and self._loader is not None):
                continue
            if group(pid) not in known:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)

    def stop_all(self) -> bool:
        """End every process: SIGTERM, a grace, SIGKILL, and everything that is left below this process.

        True when nothing is left.
        """
        for seq in list(self._starts):
            self._fail(seq, "state", "the keeper stops")
        if self._loader is not None:
            self._lose_loader()
        living = [process.pidfd for _, process in self.table if process.status is None]
        for pidfd in living:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        _await_ends(living, GRACE)
        deadline = time.monotonic() + LAST_WAIT
        while found := children():
            if time.monotonic() > deadline:
                return False
            _kill_and_wait(found, deadline - time.monotonic())
        return True


def _wait(pidfd: int) -> dict[str, int]:
    result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    assert result is not None
    return {"exited" if result.si_code == os.CLD_EXITED else "signalled": result.si_status}


def _await_ends(pidfds: list[int], seconds: float) -> None:
    """Return when all have ended or the time is over."""
    with selectors.DefaultSelector() as selector:
        for pidfd in pidfds:
            selector.register(pidfd, selectors.EVENT_READ)
        deadline = time.monotonic() + seconds
        while selector.get_map() and (rest := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(rest):
                selector.unregister(key.fd)


def _kill_and_wait(pids: list[int], seconds: float) -> None:
    """Kill children of this process and wait for them; their own children come to the subreaper meanwhile."""
    pidfds = [os.pidfd_open(pid) for pid in pids]
    for pidfd in pidfds:
        with suppress(ProcessLookupError):  # dead already
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    _await_ends(pidfds, seconds)
    for pid, pidfd in zip(pids, pidfds, strict=True):
        os.close(pidfd)
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)

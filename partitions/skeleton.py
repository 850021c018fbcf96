"""The one skeleton of all partition programs: attach, initialize, handle messages, stop.

An entry is `def main(context): return Program(context).run()`, with a subclass of `Partition`. What a program
needs is handed over in the context: a checked configuration and named descriptors, nothing from the environment.
The main thread runs the control loop; data paths run in threads of their own without the interpreter lock.

A message {"op": "name", ...} on a control wire calls `handle_name(message, fds)`. Its return value is the reply (a
dict, or a dict and descriptors); an exception with a `code` of hostd.errors.KINDS becomes that error reply, any
other one an `internal` error and a traceback in the log. {"op": "stop"} and SIGTERM end the loop. The end of a
control wire does not: hostd may die and come back for its end, which the keeper holds.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hostd.wire import Message, Wire, WireError, close_fds, error_reply
from pyx import process

SEND_TIMEOUT = 5.0  # seconds that hostd gets to take a reply before its wire is given up
CONTROL = "control"


@dataclass
class Context:
    """What a partition's process is handed: `fds` are its own from now on, named as in the start request."""

    name: str
    type: str
    config: dict[str, Any] = field(default_factory=dict)
    fds: dict[str, int] = field(default_factory=dict)

    def take(self, name: str) -> int:
        """The descriptor `name`, which the caller now owns. KeyError names what there is instead."""
        try:
            return self.fds.pop(name)
        except KeyError:
            there = ", ".join(sorted(self.fds)) or "none"
            raise KeyError(f"{self.name}: no descriptor {name!r} was handed over; there are: {there}") from None


Reply = Message | tuple[Message, list[int]] | None


class Partition:
    """Base class; a program overrides what it needs of attach, initialize, stop, and adds handle_<op> methods."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._selector = selectors.DefaultSelector()
        self._running = True

    # ---- for programs to override ----

    def attach(self) -> None:
        """Map the segments of the context and close their descriptors."""

    def initialize(self) -> None:
        """Build own state and start threads."""

    def stop(self) -> None:
        """Give back what outlives the process; called once, after the loop."""

    # ---- for programs to use ----

    def serve(self, wire: Wire) -> None:
        """Take requests from one more wire."""
        self._selector.register(wire, selectors.EVENT_READ, lambda: self._receive(wire))

    def watch(self, source: Any, callback: Callable[[], None]) -> None:
        """Call back in the control loop whenever `source` (a descriptor or an object with one) is readable."""
        self._selector.register(source, selectors.EVENT_READ, callback)

    def unwatch(self, source: Any) -> None:
        self._selector.unregister(source)

    def finish(self) -> None:
        """End the control loop after the present message."""
        self._running = False

    # ---- the story ----

    def run(self) -> int:
        """attach, initialize, loop, stop. Returns the exit status."""
        process.register_membarrier()
        read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            self._take_signals(read, write)
            try:
                self.attach()
                self.initialize()
            except (Exception, SystemExit) as error:
                self._tell(error)
                raise
            if CONTROL in self.context.fds:
                self.serve(Wire.from_fd(self.context.take(CONTROL)))
            while self._running:
                for key, _ in self._selector.select():
                    key.data()
            return 0
        finally:
            self.stop()
            signal.set_wakeup_fd(-1)
            self._selector.close()
            os.close(read)
            os.close(write)

    def handle_ping(self, _message: Message, _fds: list[int]) -> Message:
        return {"name": self.context.name, "type": self.context.type, "pid": os.getpid()}

    def handle_stop(self, _message: Message, _fds: list[int]) -> None:
        self.finish()

    def _tell(self, error: BaseException) -> None:
        """Why this program does not come to serve, to whoever waits for its first answer."""
        if CONTROL in self.context.fds:
            with contextlib.suppress(OSError, WireError):
                wire = Wire.from_fd(self.context.take(CONTROL))
                wire.send({"event": "failed", "message": str(error) or type(error).__name__}, timeout=0)

    def _take_signals(self, read: int, write: int) -> None:
        """Signals become readable bytes, so that the loop needs no time-out to notice them."""
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda *_: self.finish())
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.watch(read, lambda: _drain(read))

    def _receive(self, wire: Wire) -> None:
        fds: list[int] = []
        try:
            message, fds = wire.receive(0)
            reply, reply_fds = self._dispatch(message, fds)
            if "seq" in message:
                wire.send({**reply, "reply": message["seq"]}, reply_fds, SEND_TIMEOUT)
            close_fds(reply_fds)
        except TimeoutError:
            return
        except (EOFError, WireError, OSError) as error:
            self._selector.unregister(wire)
            wire.close()
            if not isinstance(error, EOFError):
                print(f"{self.context.name}: a control wire is given up: {error}", file=sys.stderr, flush=True)
        finally:
            close_fds(fds)  # those that the handler did not remove from the list

    def _dispatch(self, message: Message, fds: list[int]) -> tuple[Message, Sequence[int]]:
        op = message.get("op")
        handler = getattr(self, f"handle_{op}".replace(".", "_"), None) if isinstance(op, str) else None
        if handler is None:
            return error_reply(None, "unsupported", f"{self.context.name}: unknown operation {str(op)[:80]!r}"), ()
        try:
            reply = handler(message, fds)
        except Exception as error:
            code = getattr(error, "code", None)
            if not isinstance(code, str):
                traceback.print_exc()
                return error_reply(None, "internal", f"{self.context.name}: {type(error).__name__}: {error}"), ()
            details = getattr(error, "details", None)
            return error_reply(None, code, str(error), **(details if isinstance(details, dict) else {})), ()
        return reply if isinstance(reply, tuple) else (reply or {}, ())


def _drain(descriptor: int) -> None:
    try:
        while os.read(descriptor, 512):
            pass
    except BlockingIOError:
        pass

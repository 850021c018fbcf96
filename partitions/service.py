"""The loop of a server of the control plane: one thread, several wires, one request at a time.

Run by the ultravisor, the command and the operations partition. Peers are trusted for nothing but who they are
(each wire was handed over by hostd): whatever a message holds, it gets an answer and the server goes on. A peer
that does not read its answers is cut off, so that it blocks nobody for longer than ANSWER_TIMEOUT.
"""

from __future__ import annotations

import selectors
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from hostd.errors import HostError
from hostd.wire import RemoteError, WireError, close_fds, error_reply

ANSWER_TIMEOUT = 1.0  # seconds that a peer may take to make room for an answer
IDLE_AFTER = 0.05  # seconds without a request after which there is time for housekeeping

Handler = Callable[[dict[str, Any], str], dict[str, Any]]


class Transport(Protocol):
    """What a server needs of a wire; also a control channel in shared memory offers it."""

    def fileno(self) -> int: ...

    def send(self, message: dict[str, Any], fds: Sequence[int] = (), timeout: float | None = None) -> None: ...

    def receive(self, timeout: float | None = None) -> tuple[dict[str, Any], list[int]]: ...

    def close(self) -> None: ...


class Service:
    """Answers requests by a table of handlers. A handler takes the request's fields and the name of the peer,
    returns the fields of the answer, and refuses by raising HostError (or passes a RemoteError on)."""

    def __init__(self, name: str, handlers: dict[str, Handler], housekeeping: Callable[[], None] | None = None) -> None:
        self.name = name
        self._handlers = handlers
        self._housekeeping = housekeeping
        self._selector = selectors.DefaultSelector()

    def add(self, peer: str, transport: Transport) -> None:
        self._selector.register(transport, selectors.EVENT_READ, peer)

    def run(self) -> None:
        """Serves until the last peer has gone. Each ready peer gets one request per round."""
        untidy = self._housekeeping is not None
        with self._selector:
            while self._selector.get_map():
                ready = self._selector.select(IDLE_AFTER if untidy else None)
                if not ready:
                    untidy = False
                    assert self._housekeeping is not None
                    self._housekeeping()
                for key, _ in ready:
                    untidy = self._housekeeping is not None
                    self._serve_one(key.fileobj, key.data)

    def _serve_one(self, transport: Any, peer: str) -> None:
        try:
            message, descriptors = transport.receive(timeout=0)
            close_fds(descriptors)  # no request of these services carries any
            reply = self.answer(message, peer)
        except TimeoutError:
            return
        except EOFError:
            self._cut_off(transport)
            return
        except WireError as error:
            reply = error_reply(None, "usage", str(error))
        try:
            self._send(transport, reply)
        except WireError as error:
            print(f"{self.name}: {peer} is cut off: {error}", file=sys.stderr, flush=True)
            self._cut_off(transport)

    def _send(self, transport: Transport, reply: dict[str, Any]) -> None:
        try:
            transport.send(reply, timeout=ANSWER_TIMEOUT)
        except WireError:
            if "error" in reply:
                raise
            # An answer that is too long for a message is the request's fault; a closed wire fails here again.
            short = error_reply(reply["reply"], "invalid", "the answer is too long for one message; ask for fewer rows")
            transport.send(short, timeout=ANSWER_TIMEOUT)

    def _cut_off(self, transport: Transport) -> None:
        self._selector.unregister(transport)
        transport.close()

    def answer(self, message: dict[str, Any], peer: str) -> dict[str, Any]:
        """The reply to one message, whatever it holds."""
        fields = dict(message)
        seq, operation = fields.pop("seq", None), fields.pop("op", None)
        if type(seq) is not int:
            return error_reply(None, "usage", "a request needs an integer 'seq'")
        handler = self._handlers.get(operation) if isinstance(operation, str) else None
        if handler is None:
            known = ", ".join(sorted(self._handlers))
            return error_reply(seq, "usage", f"{self.name}: unknown operation {ascii(operation)[:80]}; known: {known}")
        try:
            return {"reply": seq, **handler(fields, peer)}
        except (HostError, RemoteError) as error:
            return error_reply(seq, error.code, error.message, **error.details)
        except Exception as error:  # our own fault: this request fails, the others go on
            if getattr(error, "fatal", False):
                raise
            traceback.print_exc()
            return error_reply(seq, "internal", f"{self.name}: fault while serving {operation}; its log has more")

"""The Unix socket under the API: who may connect, how long a request may take to arrive, no idle work.

uvicorn serves the ASGI application on the daemon's own event loop. Three things differ from its
defaults: signals stay with the daemon, nothing ticks while nobody calls (uvicorn wakes ten times a
second to keep a date header), and each connection is asked for its credentials before its first byte
is read.
"""

import asyncio
import json
import logging
import os
import socket
import struct
from typing import Any

import h11
from starlette.requests import Request
from uvicorn import Config, Server
from uvicorn.protocols.http.h11_impl import H11Protocol

from hostd.errors import HostError, error_document

CONNECTIONS_MAX = 128
HEADER_SECONDS_MAX = 10.0
HEADER_BYTES_MAX = 16 * 1024
KEEP_ALIVE_SECONDS = 30
SHUTDOWN_SECONDS = 1  # for answers under way; streams end by the end of the event log
BACKLOG = 256  # above CONNECTIONS_MAX, so that a refusal is an answer and not a full queue
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


def actor(request: Request) -> str:
    """Who asked, for the audit log; the socket's word, not the caller's."""
    peer = getattr(request.state, "peer", {})
    return f"uid {peer.get('uid', '?')} pid {peer.get('pid', '?')}"


class PeerProtocol(H11Protocol):
    """One connection. Its peer's uid must be the daemon's or root's (rule 31), whatever the socket's mode."""

    _header_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        raw = transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, gid = _CREDENTIALS.unpack(raw)
        # Copied into the state of every request of this connection.
        self.app_state = {**self.app_state, "peer": {"pid": pid, "uid": uid, "gid": gid}}
        if uid not in (0, os.geteuid()):
            self._refuse(403, error_document("denied", f"uid {uid} may not control this host"))
        elif len(self.connections) > CONNECTIONS_MAX:
            self._refuse(503, error_document("denied", f"more than {CONNECTIONS_MAX} connections; try again"))
        else:
            self._watch_header()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        self._watch_header()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch_header()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Broken HTTP gets the same error shape as everything else."""
        self._refuse(400, error_document("usage", msg))

    def _watch_header(self) -> None:
        """A request head may not trickle: the deadline runs from its first byte, or from the connect."""
        partial = self.conn.their_state is h11.IDLE and (self.cycle is None or bool(self.conn.trailing_data[0]))
        if not partial:
            self._unwatch_header()
        elif self._header_deadline is None:
            self._header_deadline = self.loop.call_later(HEADER_SECONDS_MAX, self._header_late)

    def _unwatch_header(self) -> None:
        if self._header_deadline is not None:
            self._header_deadline.cancel()
            self._header_deadline = None

    def _header_late(self) -> None:
        self._refuse(408, error_document("timeout", f"no request within {HEADER_SECONDS_MAX:g} s"))

    def _refuse(self, status: int, document: dict[str, Any]) -> None:
        content = json.dumps(document).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(content)).encode()),
            (b"connection", b"close"),
        ]
        try:
            self.transport.write(self.conn.send(h11.Response(status_code=status, headers=headers)) or b"")
            self.transport.write(self.conn.send(h11.Data(data=content)) or b"")
        except h11.LocalProtocolError:
            pass  # an answer is already half sent: the close says it all
        self.transport.close()


def listen(socket_path: str | os.PathLike[str]) -> socket.socket:
    """The listening socket, mode 0600. A dead one of a killed daemon is replaced, a living one respected."""
    path = os.fspath(socket_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except FileNotFoundError:
            pass
        except ConnectionRefusedError:
            os.unlink(path)
        else:
            raise HostError("conflict", f"{path}: another hostd answers here")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # The folder is 0700 already; the mode is the second lock. `fchmod` before `listen`: a umask
        # would change every other thread's files too.
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(path)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise HostError("internal", f"{path}: {error.strerror}") from error
    return listener


async def run(application: Any, listener: socket.socket, started: asyncio.Event | None = None) -> None:
    """Serve until cancelled; then finish answers under way for a moment and close."""
    config = Config(
        application,
        http=PeerProtocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        date_header=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        h11_max_incomplete_event_size=HEADER_BYTES_MAX,
    )
    config.load()
    # Broken requests are answered, not logged one by one: no caller may fill the disk (rule 39).
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    server = Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[listener])
    if started is not None:
        started.set()
    try:
        await asyncio.get_running_loop().create_future()  # for ever: uvicorn's own loop would tick
    finally:
        await server.shutdown(sockets=[listener])

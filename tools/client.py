"""The client of a host's API: HTTP over its Unix socket, with the standard library alone.

Every failure is a HostError with a code, so a verb has nothing to do but call. `unreachable` says
which of the three cases it is: no host, a daemon that died while its keeper lives on, or no right.
"""

import http.client
import json
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from hostd.errors import HostError, from_document
from hostd.paths import Paths

TIMEOUT_SECONDS = 60.0
KEEPER_TIMEOUT_SECONDS = 1.0
_CREDENTIALS = struct.Struct("3i")


class _UnixConnection(http.client.HTTPConnection):
    """HTTPConnection to a path instead of a host and port."""

    def __init__(self, path: Path, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        if self.timeout is not None:
            # Without this a non-blocking connect would fail at once where the daemon's queue is full.
            limit = struct.pack("ll", int(self.timeout), int(self.timeout % 1 * 1e6))
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        try:
            self.sock.connect(os.fspath(self._path))
        except BlockingIOError:
            raise TimeoutError("the daemon takes no connections") from None
        self.sock.settimeout(self.timeout)


class Client:
    """Calls to one host; each on a connection of its own."""

    def __init__(self, paths: Paths, timeout: float | None = TIMEOUT_SECONDS) -> None:
        self.paths = paths
        self.timeout = timeout

    def get(self, path: str, **query: Any) -> Any:
        return self.request("GET", path, query=query)

    def post(self, path: str, body: Any = None, timeout: float | None = None, **query: Any) -> Any:
        return self.request("POST", path, body, query=query, timeout=timeout)

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: dict[str, Any] | None = None,
        timeout: float | None = None,
        headers: dict[str, str] | None = None,
    ) -> Any:
        """The decoded JSON answer; HostError with the API's code for every other outcome."""
        connection, response = self._send(method, path, body, query, timeout, headers)
        try:
            return self._decode(response, response.read())
        except TimeoutError:
            raise HostError("timeout", f"{method} {path}: no answer in time") from None
        except (OSError, http.client.HTTPException) as error:
            raise HostError("unreachable", f"the daemon ended in the middle of its answer ({error})") from error
        finally:
            connection.close()

    def lines(self, path: str, **query: Any) -> Iterator[Any]:
        """The JSON documents of a stream of lines, until the daemon ends it."""
        connection, response = self._send("GET", path, None, query, None, None)
        try:
            if response.status != 200:
                self._decode(response, response.read())
            connection.sock.settimeout(None)  # an event may be long in coming
            while line := response.readline():
                yield json.loads(line)
        except (OSError, http.client.HTTPException) as error:
            raise HostError("unreachable", f"the daemon ended in the middle of the stream ({error})") from error
        finally:
            connection.close()

    def _send(
        self,
        method: str,
        path: str,
        body: Any,
        query: dict[str, Any] | None,
        timeout: float | None,
        headers: dict[str, str] | None,
    ) -> tuple[_UnixConnection, http.client.HTTPResponse]:
        fields = {key: _query_value(value) for key, value in (query or {}).items() if value is not None}
        target = f"{path}?{urlencode(fields)}" if fields else path
        content = None if body is None else json.dumps(body).encode()
        connection = _UnixConnection(self.paths.api_socket, self.timeout if timeout is None else timeout)
        try:
            all_headers = {**({"Content-Type": "application/json"} if content else {}), **(headers or {})}
            connection.request(method, target, content, all_headers)
            return connection, connection.getresponse()
        except TimeoutError:
            connection.close()
            raise HostError("timeout", f"{method} {path}: no answer in time; `hostctl doctor` may tell why") from None
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise unreachable(self.paths, error) from error

    @staticmethod
    def _decode(response: http.client.HTTPResponse, content: bytes) -> Any:
        try:
            document = json.loads(content) if content else None
        except ValueError:
            raise HostError("internal", f"the daemon's answer {response.status} is not JSON") from None
        if response.status >= 400:
            raise from_document(document, f"the daemon answered {response.status} {response.reason}")
        return document


def partition_path(name: str, action: str = "") -> str:
    """The path of a partition, whatever its name contains."""
    return f"/v1/partitions/{quote(name, safe='')}{action}"


def unreachable(paths: Paths, error: Exception) -> HostError:
    """Why the daemon does not answer, and what to do about it."""
    if isinstance(error, PermissionError):
        return HostError("unreachable", f"{paths.api_socket}: belongs to another user")
    keeper = peer_pid(paths.keeper_socket)
    if keeper is not None:
        return HostError(
            "unreachable",
            f"hostd does not answer in {paths.runtime}, but the keeper (pid {keeper}) and its partitions still run; "
            "`hostctl up` starts a daemon for them, `hostctl down` ends them",
            keeper=keeper,
        )
    return HostError(
        "unreachable", f"no host runs in {paths.runtime}; `hostctl up` starts one, --runtime-dir names another"
    )


def peer_pid(path: Path) -> int | None:
    """The process that listens on a Unix socket, by the kernel's word; None where nobody does."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
        with socket.socket(socket.AF_UNIX, kind) as probe:
            probe.settimeout(KEEPER_TIMEOUT_SECONDS)
            try:
                probe.connect(os.fspath(path))
            except OSError:
                continue
            raw = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            return int(_CREDENTIALS.unpack(raw)[0]) or None
    return None


def _query_value(value: Any) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)

"""Limits around every request of the API, before any route sees it (rule 31).

Body size, nesting of the JSON, time to deliver the body, and requests at work at the same time. All
are enforced here, so a route gets a small, complete, well-formed body or is never called. This is
plain ASGI; it imports nothing of the frameworks.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from hostd.errors import HTTP_TOO_LARGE, HTTP_TOO_MANY, HostError, error_document

BODY_BYTES_MAX = 1 << 20  # a manifest of 4096 partitions with one disk each is about 600 KiB
DEPTH_MAX = 32  # a manifest has 7 levels
BODY_SECONDS_MAX = 10.0
OUTSTANDING_MAX = 64

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class Refused(Exception):
    """A request that breaks a limit: HTTP status and error."""

    def __init__(self, status: int, error: HostError) -> None:
        super().__init__(error.message)
        self.status = status
        self.error = error


class Guard:
    """ASGI application around the real one."""

    def __init__(self, app: App, outstanding_max: int = OUTSTANDING_MAX) -> None:
        self._app = app
        self._outstanding = 0
        self._outstanding_max = outstanding_max

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._outstanding >= self._outstanding_max:
            message = f"more than {self._outstanding_max} requests are at work; try again"
            await answer(send, HTTP_TOO_MANY, error_document("denied", message))
            return
        self._outstanding += 1
        try:
            body = await read_body(scope, receive)
        except Refused as refused:
            await answer(send, refused.status, refused.error.document())
        else:
            await self._app(scope, _replayed(body, receive), send)
        finally:
            self._outstanding -= 1


async def read_body(scope: MutableMapping[str, Any], receive: Receive) -> bytes:
    """The whole body, or Refused: too large, too slow, too deep."""
    declared = dict(scope["headers"]).get(b"content-length", b"0")
    if declared.isdigit() and int(declared[:20]) > BODY_BYTES_MAX:
        raise _too_large()  # before a single byte of it is read
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS_MAX):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refused(400, HostError("usage", "the caller left in the middle of its request"))
                body += message.get("body", b"")
                if len(body) > BODY_BYTES_MAX:
                    raise _too_large()
                if not message.get("more_body", False):
                    break
    except TimeoutError:
        raise Refused(408, HostError("timeout", f"the body did not arrive within {BODY_SECONDS_MAX:g} s")) from None
    if depth(bytes(body)) > DEPTH_MAX:
        raise Refused(400, HostError("usage", f"the body is nested deeper than {DEPTH_MAX} levels"))
    return bytes(body)


def _too_large() -> Refused:
    return Refused(HTTP_TOO_LARGE, HostError("usage", f"the body is larger than {BODY_BYTES_MAX} bytes"))


_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)  # possessive: linear in any input
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def depth(body: bytes) -> int:
    """Nesting of a JSON text, at most DEPTH_MAX + 1; brackets in strings do not count.

    One pass over the brackets alone: the parser itself recurses, so it must not see a deep text.
    """
    level = deepest = 0
    for byte in _STRING.sub(b"", body).translate(None, _NO_BRACKETS):
        if byte in b"[{":
            level += 1
            deepest = max(deepest, level)
            if deepest > DEPTH_MAX:
                break
        else:
            level -= 1
    return deepest


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A receive callable that gives the body once and then listens for the end of the connection."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return replay


async def answer(send: Send, status: int, document: dict[str, Any]) -> None:
    """A whole JSON response; the connection closes, for an unread body may still be in it."""
    content = json.dumps(document).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})

"""Segments at the keeper: made, looked up and dropped over the ultravisor's own wire.

The keeper takes no decisions; which segments should exist is written in the database, and labels tell the
ultravisor's segments from hostd's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from hostd.wire import DESCRIPTORS_MAX, RemoteError, Wire, WireError, close_fds, raise_error
from partitions.messages import Refusal
from partitions.ultravisor.change import LABEL_PREFIX

TIMEOUT = 10.0  # seconds for an answer of a healthy keeper
BYTES_PER_SECOND = 100 << 20  # slowest rate at which the kernel is expected to hand out zeroed pages


class Keeper:
    """Synchronous: the ultravisor does one thing at a time."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._sequence = 1 << 32  # apart from the numbers that Wire.request gives out

    def begin_create(self, requests: Sequence[dict[str, Any]]) -> Pending:
        """Asks for segments without waiting: allocation takes 0.4 ms per MiB, and meanwhile a commit can sync."""
        return Pending(self, requests)

    def descriptors(self, segments: Sequence[int]) -> list[int]:
        """Descriptors of segments, in their order; the caller owns them."""
        found: list[int] = []
        try:
            for part in parts(segments, DESCRIPTORS_MAX):
                found += self._ask({"op": "segment.get", "segments": part})[1]
        except BaseException:
            close_fds(found)
            raise
        return found

    def drop(self, segments: Sequence[int]) -> None:
        """Drops segments; one that is gone already is no error, so that a drop can be repeated."""
        for part in parts(segments, DESCRIPTORS_MAX):
            try:
                self._ask({"op": "segment.drop", "segments": part})
            except Refusal as refusal:
                if refusal.code != "not_found":
                    raise
                present = self.own_segments()
                self._ask({"op": "segment.drop", "segments": [segment for segment in part if segment in present]})

    def own_segments(self) -> dict[int, dict[str, Any]]:
        """The ultravisor's segments at the keeper, by id."""
        return {row["id"]: row for row in self._list("segments") if row["label"].startswith(LABEL_PREFIX)}

    def living_processes(self) -> list[dict[str, Any]]:
        return [row for row in self._list("processes") if row["status"] is None]

    def _list(self, kind: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        first: int | None = 0
        while first is not None:
            answer, _ = self._ask({"op": "list", "from": first})
            rows += answer[kind]
            first = answer["next"]
        return rows

    # -- wire

    def _ask(self, message: dict[str, Any], timeout: float = TIMEOUT) -> tuple[dict[str, Any], list[int]]:
        return self.receive(self.send(message), timeout)

    def send(self, message: dict[str, Any]) -> int:
        self._sequence += 1
        try:
            self._wire.send({**message, "seq": self._sequence}, timeout=TIMEOUT)
        except WireError as error:
            raise Refusal("unreachable", f"keeper: {error}") from error
        return self._sequence

    def receive(self, sequence: int, timeout: float) -> tuple[dict[str, Any], list[int]]:
        """The answer with that number; answers to requests that were given up are passed over."""
        try:
            while True:
                reply, descriptors = self._wire.receive(timeout)
                if reply.get("reply") == sequence:
                    break
                close_fds(descriptors)
            raise_error(reply)
        except RemoteError as error:
            raise Refusal(error.code, f"keeper: {error.message}", **error.details) from error
        except TimeoutError as error:
            raise Refusal("timeout", f"keeper: no answer within {timeout:.0f} s") from error
        except (WireError, EOFError) as error:
            raise Refusal("unreachable", f"keeper: {error}") from error
        return reply, descriptors


class Pending:
    """Segments that were asked for. Ends with `finish` or `abandon`."""

    def __init__(self, keeper: Keeper, requests: Sequence[dict[str, Any]]) -> None:
        self._keeper = keeper
        self._waiting = list(parts(requests, DESCRIPTORS_MAX))
        self._sequence = self._send_next()
        self.ids: list[int] = []
        self.fds: list[int] = []

    def _send_next(self) -> int:
        self._size = sum(request["size"] for request in self._waiting[0])
        return self._keeper.send({"op": "segment.create_many", "segments": self._waiting[0]})

    def finish(self) -> None:
        """Waits for all of them: `ids` and `fds` are then complete, in the order of the requests."""
        try:
            while self._waiting:
                reply, descriptors = self._keeper.receive(self._sequence, TIMEOUT + self._size / BYTES_PER_SECOND)
                self.fds += descriptors
                self.ids += reply["segments"]
                del self._waiting[0]
                if self._waiting:
                    self._sequence = self._send_next()
        except BaseException:
            del self._waiting[:]
            self.abandon()
            raise

    def abandon(self) -> None:
        """Gives back whatever was made. What cannot be given back now, the next reconciliation drops."""
        try:
            if self._waiting:
                del self._waiting[1:]
                self.finish()
            self._keeper.drop(self.ids)
        except Refusal:
            pass
        finally:
            self.close()

    def close(self) -> None:
        """Closes the descriptors that nobody took with `take`."""
        close_fds(descriptor for descriptor in self.fds if descriptor >= 0)
        self.fds = []

    def take(self, number: int) -> int:
        """The descriptor of one request; the caller owns it from now on."""
        descriptor, self.fds[number] = self.fds[number], -1
        return descriptor


def parts(items: Iterable[Any], size: int) -> Iterable[list[Any]]:
    """`items` in lists of at most `size`."""
    rest = list(items)
    for first in range(0, len(rest), size):
        yield rest[first : first + size]

"""A partition that serves requests of the control plane: the skeleton, with answers to whatever arrives.

Base of the ultravisor, the command and the operations partition. Peers are trusted for nothing but who they are
(each wire was handed over by hostd): a message that is no message is answered too, an answer that is too long
becomes a short refusal, and a peer that does not read its answers is cut off, so that it blocks nobody for longer
than ANSWER_TIMEOUT.
"""

from __future__ import annotations

import selectors
import sys
from collections.abc import Sequence
from typing import Any, Protocol

from hostd.wire import Message, Wire, WireError, close_fds, error_reply
from partitions.control import ChannelWire
from partitions.messages import Refusal
from partitions.skeleton import CONTROL, Context, Partition

ANSWER_TIMEOUT = 1.0  # seconds that a peer may take to make room for an answer


class Transport(Protocol):
    """What a service needs of a wire; a control channel in shared memory offers it as well."""

    def fileno(self) -> int: ...

    def send(self, message: Message, fds: Sequence[int] = (), timeout: float | None = None) -> None: ...

    def receive(self, timeout: float | None = None) -> tuple[Message, list[int]]: ...

    def close(self) -> None: ...


class Service(Partition):
    """Each ready peer gets one request per round. `OWN` names descriptors that are not peers'; programs take them
    in `attach` and override `tidy` for what can wait until an answer is on its way."""

    OWN: tuple[str, ...] = ()

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._channels: dict[str, ChannelWire] = {}  # by peer

    peer = ""  # whose request is being served

    def initialize(self) -> None:
        for name in [name for name in self.context.fds if name != CONTROL and name not in self.OWN]:
            self.serve(Wire.from_fd(self.context.take(name)), name)

    def tidy(self) -> None:
        """Called after each answer."""

    def handle_channel(self, message: Message, fds: list[int]) -> Message:
        """hostd hands over the server's end of a control channel that `peer` asked for by a system call."""
        if self.peer != CONTROL or len(fds) != 1:
            raise Refusal("denied", f"{self.context.name}: only hostd hands channels over")
        peer = message["peer"]
        before = self._channels.pop(peer, None)  # its other end has died
        if before is not None:
            self._cut_off(before)
        self._channels[peer] = ChannelWire(fds.pop(), message["capacity"], True, message["symmetric"])
        self.serve(self._channels[peer], peer)
        return {}

    def handle_channel_closed(self, message: Message, fds: list[int]) -> Message:
        """The kernel is unloaded: the channel of `peer` goes. With a descriptor: a wire in its place, as at boot."""
        if self.peer != CONTROL:
            raise Refusal("denied", f"{self.context.name}: only hostd takes channels away")
        channel = self._channels.pop(message["peer"], None)
        if channel is not None:
            self._cut_off(channel)
        if fds:
            self.serve(Wire.from_fd(fds.pop()), message["peer"])
        return {}

    def serve(self, wire: Transport, peer: str = CONTROL) -> None:
        self._selector.register(wire, selectors.EVENT_READ, lambda: self._serve_one(wire, peer))

    def _serve_one(self, wire: Transport, peer: str) -> None:
        try:
            message, descriptors = wire.receive(0)
        except TimeoutError:
            return
        except EOFError:
            self._cut_off(wire)
            return
        except WireError as error:
            self._answer(wire, peer, error_reply(None, "usage", str(error)))
            return
        if peer != CONTROL:
            close_fds(descriptors)  # only hostd hands anything over
            descriptors = []
        self.peer = peer
        reply, _ = self._dispatch(message, descriptors)
        close_fds(descriptors)  # those that the handler did not remove from the list
        if "seq" in message:
            sequence = message["seq"]
            self._answer(wire, peer, {**reply, "reply": sequence if type(sequence) is int else None})
        self.tidy()

    def _answer(self, wire: Transport, peer: str, reply: dict[str, Any]) -> None:
        try:
            try:
                wire.send(reply, timeout=ANSWER_TIMEOUT)
            except WireError as error:
                # Too long, or not to be encoded. If the wire itself is broken, this fails as well.
                wire.send(error_reply(reply["reply"], "invalid", f"no answer: {error}"), timeout=ANSWER_TIMEOUT)
        except WireError as error:
            print(f"{self.context.name}: {peer} is cut off: {error}", file=sys.stderr, flush=True)
            self._cut_off(wire)

    def _cut_off(self, wire: Transport) -> None:
        self._channels = {peer: channel for peer, channel in self._channels.items() if channel is not wire}
        self._selector.unregister(wire)
        wire.close()

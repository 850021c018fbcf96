"""Simulated processes: one request at a time, in virtual time; each may die or stand still before and after each step.

`Role` stands for a program of the data plane: it keeps what it was told and refuses what the real one refuses, so that
hostd's mistakes are seen. Those of the control plane are in programs.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from hostd.wire import Message, encode, error_reply
from tests.simulation.wires import Socket, drop

if TYPE_CHECKING:
    from tests.simulation.world import World

KILLED = {"signalled": 9}


class Killed(BaseException):
    """Raised in a program of the control plane that has died inside a request: nothing of it acts any more."""


class Process:
    """`sockets`: its ends by name. What it hands back with an answer are things, not numbers."""

    mortal = True  # may be killed by chance

    def __init__(self, world: World, identity: int, spec: dict[str, Any], things: dict[str, Any]) -> None:
        self.world, self.identity, self.spec = world, identity, spec
        self.name: str = spec["name"]
        self.pid = 1000 + identity
        self.alive = True
        self.still_until = 0.0
        self._busy = False
        self.things = things
        self.sockets = {name: thing for name, thing in things.items() if isinstance(thing, Socket)}
        for sock in self.sockets.values():
            sock.owner = self
        world.soon(self.begin)

    def begin(self) -> None:
        """Its first instruction."""
        self.look()

    # ---- life

    def kill(self, status: dict[str, int] | None = None) -> None:
        if not self.alive:
            return
        self.alive = False
        self.world.note(f"{self.name} ({self.identity}) dies")
        drop(list(self.things.values()))
        self.died()
        self.world.stir()
        self.world.keeper.exited(self, status or KILLED)

    def died(self) -> None:
        pass

    def stand_still(self, seconds: float) -> None:
        self.world.note(f"{self.name} ({self.identity}) stands still for {seconds:g} s")
        self.still_until = self.world.loop.now + seconds
        self.world.later(seconds + 1e-6, self.look)  # behind the end, however that is rounded
        self.world.stir()

    @property
    def still(self) -> bool:
        return self.world.loop.now < self.still_until

    def strike(self) -> bool:
        """A moment at which chance may end it. True: it has."""
        if self.alive and self.mortal and self.world.chance.kill():
            self.kill()
        elif self.alive and self.mortal and (seconds := self.world.chance.hang()):
            self.stand_still(seconds)
        return not self.alive

    # ---- requests

    def look(self) -> None:
        if self._busy or not self.alive or self.still:
            return
        for name, sock in self.sockets.items():
            if sock.inbox:
                self._busy = True
                self.world.later(self.world.chance.work(), self._serve, name, sock)
                return

    def _serve(self, name: str, sock: Socket) -> None:
        self._busy = False
        if self.still:
            return
        if not self.alive or not sock.inbox or self.strike():
            return
        data, things = sock.inbox.popleft()
        message = self.world.decoded(data)
        reply, given = self.answer(message, things, name)
        if "seq" in message and not self.strike():
            self.send(sock, {**reply, "reply": message["seq"]}, given)
        self.look()

    def send(self, sock: Socket, message: Message, given: Sequence[Any] = ()) -> None:
        if not sock.closed and not sock.peer.closed:
            sock.send(encode(message), list(given))

    def answer(self, message: Message, things: list[Any], peer: str) -> tuple[Message, list[Any]]:
        raise NotImplementedError


class Refused(Exception):
    """What a real program raises for the same request: `internal` for what none of its callers may do."""


class Role(Process):
    """handle_<op>(message, things) -> the fields of the answer. What has no handler is taken as done."""

    TOLD: tuple[str, ...] = ("add_queues", "remove_queues", "attach", "detach", "open", "close")  # in the story

    def answer(self, message: Message, things: list[Any], peer: str) -> tuple[Message, list[Any]]:
        if message["op"] in self.TOLD:
            told = json.dumps(message).replace(str(self.world.folder), "")  # the same in every folder
            self.world.note(f"{self.name} ({self.identity}): {told[:160]}")
        handler: Callable[[Message, list[Any]], Message | None] | None = getattr(self, f"handle_{message['op']}", None)
        try:
            return (handler(message, things) or {}) if handler is not None else {}, []
        except Refused as error:
            self.world.note(f"{self.name} refuses {message['op']}: {error}")
            self.world.refusals.append(f"{self.name}: {message['op']}: {error}")
            return error_reply(None, "internal", f"{self.name}: {error}"), []

    def handle_stop(self, _message: Message, _things: list[Any]) -> None:
        self.world.soon(self.kill, {"exited": 0})

    def asked_again(self, text: str) -> None:
        """For what is done already. Real roles answer as if they had done it now, for who asks may not know the first
        answer; nobody has that excuse while no hostd and no such process has died."""
        if not self.world.loop.dead and not self.spec["config"].get("successor"):
            raise Refused(text)

    def tell(self, message: Message) -> None:
        """An event for hostd."""
        if self.alive:
            self.send(self.sockets["control"], message)

"""The keeper of the simulated host: holds segments and descriptors, starts processes, tells of their ends."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from hostd.wire import Message, error_reply
from tests.framework.control_plane import FakeKeeper, FakePending
from tests.simulation.processes import Process
from tests.simulation.wires import Socket, drop

if TYPE_CHECKING:
    from tests.simulation.world import World


class Segments(FakeKeeper):
    """As the ultravisor sees it. Nothing is mapped here: what it publishes goes to `World.views`."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def make(self, request: dict[str, Any]) -> int:
        segment = 1 << 16 | next(self._numbers)
        self.segments[segment] = {"id": segment, **request}
        self.memory[segment] = 0
        return segment

    def begin_create(self, requests: Any) -> FakePending:
        return Pending(self, requests)

    def descriptors(self, segments: Any) -> list[int]:
        return [self._world.handle(segment) for segment in segments]

    def drop(self, segments: Any) -> None:
        for segment in segments:
            self.segments.pop(segment, None)
            self.memory.pop(segment, None)

    def living_processes(self) -> list[dict[str, Any]]:
        return self._world.keeper.rows()


class Pending(FakePending):
    def finish(self) -> None:
        assert isinstance(self._keeper, Segments)
        for request in self._requests:
            self.ids.append(self._keeper.make(request))
        self.fds = self._keeper.descriptors(self.ids)


class Keeper(Process):
    mortal = False

    def __init__(self, world: World) -> None:
        self.processes: dict[int, Process] = {}
        self.ended: dict[int, dict[str, int]] = {}
        self.segments = Segments(world)
        self.held: dict[str, list[Any]] = {}
        self._identities = itertools.count(1)
        self._clients = itertools.count(1)
        self._watching: list[Socket] = []
        self._leading: list[Socket] = []
        super().__init__(world, 0, {"name": "keeper", "type": "keeper"}, {})

    def connect(self, sock: Socket) -> None:
        """Another client."""
        sock.owner = self
        self.sockets[f"client {next(self._clients)}"] = sock

    def rows(self, ended: bool = False) -> list[dict[str, Any]]:
        """Of those that live; `ended`: of the others, too."""
        return [
            {"id": one.identity, "pid": one.pid, "start_time": one.identity, "name": one.name,
             "type": one.spec["type"], "status": self.ended.get(one.identity)}
            for one in self.processes.values() if one.alive or ended
        ]  # fmt: skip

    def answer(self, message: Message, things: list[Any], peer: str) -> tuple[Message, list[Any]]:
        handler = getattr(self, "do_" + message["op"].replace(".", "_"))
        self._peer = self.sockets[peer]
        answer = handler(message, things)
        return answer if isinstance(answer, tuple) else (answer or {}, [])

    def exited(self, process: Process, status: dict[str, int]) -> None:
        self.ended[process.identity] = status
        event = {"event": "exit", "process": process.identity, "pid": process.pid, "name": process.name,
                 "status": status}  # fmt: skip
        for sock in self._watching:
            self.send(sock, event)

    def do_watch(self, _message: Message, _things: list[Any]) -> None:
        self._watching.append(self._peer)

    def do_lead(self, _message: Message, _things: list[Any]) -> None:
        """What the last one had asked for is done before the answer."""
        mine = self._peer
        for other in [one for one in self._leading if one is not mine]:
            name = next(name for name, one in self.sockets.items() if one is other)
            while other.inbox:
                data, things = other.inbox.popleft()
                self.answer(self.world.decoded(data), things, name)
            del self.sockets[name]
            other.drop()
        self._leading = [mine]

    def do_stop(self, _message: Message, _things: list[Any]) -> None:
        """Everything ends with it."""
        self.world.ended(self)
        for process in [one for one in self.processes.values() if one.alive]:
            process.kill()
        self.alive = False
        self.world.soon(self._peer.drop)  # behind the answer

    def do_segment_create_many(self, message: Message, _things: list[Any]) -> Any:
        if self._peer.peer.closed:
            return {}  # nothing is kept for an asker that is gone
        made = [self.segments.make(request) for request in message["segments"]]
        return {"segments": made}, [("segment", one) for one in made]

    def do_segment_get(self, message: Message, _things: list[Any]) -> Any:
        for one in message["segments"]:
            if one not in self.segments.segments:
                return error_reply(None, "not_found", f"no segment {one}"), []
        return {}, [("segment", one) for one in message["segments"]]

    def do_segment_drop(self, message: Message, _things: list[Any]) -> None:
        self.segments.drop(message["segments"])

    def do_start(self, message: Message, things: list[Any]) -> Any:
        spec, identity = message["spec"], next(self._identities)
        process = self.world.program(spec)(self.world, identity, spec, dict(zip(spec["fds"], things, strict=True)))
        self.processes[identity] = process
        answer = {"process": identity, "pid": process.pid, "start_time": identity, "sandbox": {}, "handed": []}
        return answer, [process]

    def do_process_get(self, message: Message, _things: list[Any]) -> Any:
        process = self.processes[message["process"]]
        return {"pid": process.pid, "status": self.ended.get(process.identity)}, [process] if process.alive else []

    def do_process_forget(self, message: Message, _things: list[Any]) -> Any:
        process = self.processes.get(message["process"])
        if process is None or process.alive:
            return error_reply(None, "state", f"process {message['process']} lives, or is unknown"), []
        del self.processes[message["process"]]
        return {}

    def do_list(self, _message: Message, _things: list[Any]) -> Any:
        return {"segments": list(self.segments.segments.values()), "processes": self.rows(True), "next": None}

    def do_hold(self, message: Message, things: list[Any]) -> None:
        before = self.held.get(message["key"], [])
        self.held[message["key"]] = things  # in its place in the order
        drop(before)

    def do_get_held(self, message: Message, _things: list[Any]) -> Any:
        if message["key"] not in self.held:
            return error_reply(None, "not_found", f"nothing is held as {message['key']}"), []
        return {}, self.held[message["key"]]

    def do_list_held(self, _message: Message, _things: list[Any]) -> Any:
        return {"keys": list(self.held), "next": None}

    def do_release(self, message: Message, _things: list[Any]) -> Any:
        if message["key"] not in self.held:
            return error_reply(None, "not_found", f"nothing is held as {message['key']}"), []
        drop(self.held.pop(message["key"]))
        return {}

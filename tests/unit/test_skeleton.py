"""The skeleton of partition programs: its story, its control loop, and what it answers to bad messages."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hostd.errors import HostError
from hostd.wire import RemoteError, Wire, close_fds, pair
from partitions.skeleton import Context, Partition


class Program(Partition):
    """Notes what happens to it."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.story: list[str] = []
        self.kept: list[int] = []
        self.work: Callable[[], None] | None = None

    def attach(self) -> None:
        self.story.append("attach")

    def initialize(self) -> None:
        self.story.append("initialize")
        if self.work is not None:
            self.work()

    def stop(self) -> None:
        self.story.append("stop")
        close_fds(self.kept)

    def handle_add(self, message: dict[str, Any], _fds: list[int]) -> dict[str, Any]:
        return {"sum": message["left"] + message["right"]}

    def handle_rows_get(self, _message: dict[str, Any], fds: list[int]) -> tuple[dict[str, Any], list[int]]:
        return {"given": len(fds)}, [os.open("/dev/null", os.O_RDONLY)]

    def handle_keep(self, _message: dict[str, Any], fds: list[int]) -> None:
        self.kept.append(fds.pop())

    def handle_refuse(self, _message: dict[str, Any], _fds: list[int]) -> None:
        raise HostError("conflict", "in use", row=3)


@pytest.fixture
def wires() -> Iterator[tuple[Wire, Context]]:
    """The host's end, and a context with the other one."""
    signals = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    before = len(os.listdir("/proc/self/fd"))
    ours, theirs = pair()
    with Wire(ours) as wire:
        yield wire, Context("disk0", "device", {}, {"control": theirs.detach(), "log": 9})
    for number, handler in signals.items():
        signal.signal(number, handler)
    assert len(os.listdir("/proc/self/fd")) == before


def perform(context: Context, talk: Callable[[], None]) -> Program:
    """Run a program in this thread while `talk` runs in another; its exception is the test's."""
    program = Program(context)
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            talk()
        except BaseException as error:
            failures.append(error)
            os.kill(os.getpid(), signal.SIGTERM)

    talker = threading.Thread(target=guarded)
    program.work = talker.start
    try:
        assert program.run() == 0
    finally:
        talker.join()
    if failures:
        raise failures[0]
    assert program.story == ["attach", "initialize", "stop"]
    return program


def test_requests_until_stop(wires: tuple[Wire, Context]) -> None:
    wire, context = wires

    def talk() -> None:
        assert wire.request({"op": "ping"})[0] == {"reply": 1, "name": "disk0", "type": "device", "pid": os.getpid()}
        assert wire.request({"op": "add", "left": 2, "right": 3})[0]["sum"] == 5
        reply, fds = wire.request({"op": "rows.get"}, [0, 1])
        assert reply["given"] == 2 and len(fds) == 1
        close_fds(fds)
        wire.request({"op": "keep"}, [0, 1])
        wire.send({"op": "add", "left": 1, "right": 1})  # without a number nobody wants the answer
        wire.request({"op": "stop"})

    assert len(perform(context, talk).kept) == 1


@pytest.mark.parametrize(
    ("message", "code", "text"),
    [
        ({"op": "nonsense"}, "unsupported", "disk0: unknown operation 'nonsense'"),
        ({"op": ["a"]}, "unsupported", "unknown operation"),
        ({}, "unsupported", "unknown operation"),
        ({"op": "refuse"}, "conflict", "in use"),
        ({"op": "add"}, "internal", "disk0: KeyError: 'left'"),
    ],
)
def test_bad_requests_have_an_answer(wires: tuple[Wire, Context], message: Any, code: str, text: str) -> None:
    wire, context = wires

    def talk() -> None:
        with pytest.raises(RemoteError, match=text) as caught:
            wire.request(message, [0])
        assert caught.value.code == code
        assert caught.value.details == ({"row": 3} if code == "conflict" else {})
        wire.request({"op": "stop"})

    perform(context, talk)


def test_signals_end_it(wires: tuple[Wire, Context]) -> None:
    wire, context = wires

    def talk() -> None:
        wire.request({"op": "ping"})
        os.kill(os.getpid(), signal.SIGINT)  # ignored: it belongs to hostd's terminal
        wire.request({"op": "ping"})
        os.kill(os.getpid(), signal.SIGTERM)

    perform(context, talk)


def test_the_end_of_the_control_wire_is_not_its_end(wires: tuple[Wire, Context]) -> None:
    wire, context = wires
    other, theirs = (Wire(sock) for sock in pair())

    def talk() -> None:
        wire.request({"op": "ping"})
        wire.close()
        other.request({"op": "ping"})
        other.request({"op": "stop"})

    program = Program(context)
    program.serve(theirs)
    talker = threading.Thread(target=talk)
    program.work = talker.start
    assert program.run() == 0
    talker.join()
    other.close()
    theirs.close()


def test_a_broken_packet_ends_only_that_wire(wires: tuple[Wire, Context], capsys: pytest.CaptureFixture[str]) -> None:
    wire, context = wires

    def talk() -> None:
        wire.sock.send(b"{")
        with pytest.raises(EOFError):
            wire.receive(5)
        os.kill(os.getpid(), signal.SIGTERM)

    perform(context, talk)
    assert "a control wire is given up: message is not JSON" in capsys.readouterr().err


def test_a_missing_descriptor_names_what_there_is() -> None:
    context = Context("disk0", "device", fds={"b": 1, "a": 2})
    assert context.take("a") == 2
    with pytest.raises(KeyError, match="no descriptor 'a' was handed over; there are: b"):
        context.take("a")

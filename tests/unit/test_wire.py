"""The wire: limits at the limit and one beyond it, broken messages as raw bytes, and no descriptor lost."""

from __future__ import annotations

import array
import asyncio
import fcntl
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from hostd.async_wire import QUEUE_MAX, AsyncWire
from hostd.wire import (
    DESCRIPTORS_MAX,
    MESSAGE_MAX,
    SO_SNDBUFFORCE,
    RemoteError,
    Wire,
    WireError,
    close_fds,
    encode,
    error_reply,
    pair,
)

FRAME = len(json.dumps({"text": ""}, separators=(",", ":")))


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def wires() -> Iterator[tuple[Wire, Wire]]:
    before = open_descriptors()
    left, right = (Wire(sock) for sock in pair())
    yield left, right
    left.close()
    right.close()
    assert open_descriptors() == before


def text_message(length: int) -> dict[str, str]:
    """A message of exactly `length` bytes."""
    return {"text": "x" * (length - FRAME)}


def test_message_and_descriptors_arrive_together(wires: tuple[Wire, Wire]) -> None:
    left, right = wires
    read, write = os.pipe()
    left.send({"op": "take", "snow": "☃"}, [write])
    os.close(write)
    message, received = right.receive(1)
    assert message == {"op": "take", "snow": "☃"}
    assert len(received) == 1 and fcntl.fcntl(received[0], fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    os.write(received[0], b"here")
    assert os.read(read, 10) == b"here"
    close_fds([read, *received])


@pytest.mark.parametrize("length", [MESSAGE_MAX - 1, MESSAGE_MAX])
def test_longest_message(wires: tuple[Wire, Wire], length: int) -> None:
    left, right = wires
    if os.geteuid() != 0 and left.sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) < MESSAGE_MAX:
        pytest.skip("net.core.wmem_max bounds messages here")
    left.send(text_message(length))
    message, _ = right.receive(1)
    assert message == text_message(length)


def test_too_long_message_is_not_sent(wires: tuple[Wire, Wire]) -> None:
    with pytest.raises(WireError, match=f"{MESSAGE_MAX + 1} bytes; at most {MESSAGE_MAX}"):
        wires[0].send(text_message(MESSAGE_MAX + 1))


def test_message_beyond_the_socket_buffer_names_the_setting(wires: tuple[Wire, Wire]) -> None:
    left, _ = wires
    left.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    with pytest.raises(WireError, match=r"net\.core\.wmem_max"):
        left.send(text_message(65536))


def test_most_descriptors(wires: tuple[Wire, Wire]) -> None:
    left, right = wires
    left.send({}, [0] * DESCRIPTORS_MAX)
    _, received = right.receive(1)
    assert len(received) == DESCRIPTORS_MAX
    close_fds(received)
    with pytest.raises(WireError, match=f"at most {DESCRIPTORS_MAX}"):
        left.send({}, [0] * (DESCRIPTORS_MAX + 1))


def test_too_many_descriptors_are_closed_by_the_receiver(wires: tuple[Wire, Wire]) -> None:
    left, right = wires
    rights = array.array("i", [0] * (DESCRIPTORS_MAX + 1))
    left.sock.sendmsg([b"{}"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    before = open_descriptors()
    with pytest.raises(WireError, match="descriptors"):
        right.receive(1)
    assert open_descriptors() == before
    left.send({"still": "usable"})
    assert right.receive(1)[0] == {"still": "usable"}


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[1]", "no JSON object but list"),
        (b"7", "no JSON object but int"),
        (b'{"a":' * 100000 + b"1" + b"}" * 100000, "not JSON"),
        (b'{"a":' + b"9" * 5000 + b"}", "not JSON"),
    ],
)
def test_broken_message_names_the_reason_and_closes_descriptors(
    wires: tuple[Wire, Wire], raw: bytes, reason: str
) -> None:
    left, right = wires
    left.sock.sendmsg([raw], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1]))])
    before = open_descriptors()
    with pytest.raises(WireError, match=reason):
        right.receive(1)
    assert open_descriptors() == before


def test_too_long_raw_message(wires: tuple[Wire, Wire]) -> None:
    left, right = wires
    try:
        left.sock.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 8 << 20)
    except PermissionError:
        pytest.skip("needs a larger socket buffer than an ordinary user gets")
    left.sock.send(b" " * (MESSAGE_MAX + 1))
    with pytest.raises(WireError, match="longer than"):
        right.receive(1)


@pytest.mark.parametrize("message", [{"a": float("nan")}, {"a": object()}, {"a": "\ud800"}, {"a": b"bytes"}])
def test_unsendable_values(message: dict[str, Any]) -> None:
    with pytest.raises(WireError, match="cannot be sent as JSON"):
        encode(message)


def test_receive_ends_by_time_and_by_the_end(wires: tuple[Wire, Wire]) -> None:
    left, right = wires
    with pytest.raises(TimeoutError):
        right.receive(0.01)
    left.close()
    with pytest.raises(EOFError):
        right.receive(1)
    with pytest.raises(WireError, match="closed"):
        right.send({})


def test_last_words_of_a_peer_that_did_not_read_everything(wires: tuple[Wire, Wire]) -> None:
    left, right = wires
    right.send({"op": "unread"})
    left.send({"event": "last"})
    left.close()
    assert right.receive(1)[0] == {"event": "last"}
    with pytest.raises(EOFError):
        right.receive(1)


def test_send_to_a_peer_that_does_not_read(wires: tuple[Wire, Wire]) -> None:
    left, _ = wires
    with pytest.raises(WireError, match="did not take a message within 0.02 s"):
        for _ in range(100_000):
            left.send(text_message(65536), timeout=0.02)


def test_request_skips_events_and_late_replies(wires: tuple[Wire, Wire]) -> None:
    left, right = wires
    right.send({"event": "exit"}, [0])
    right.send({"reply": 99}, [0])
    right.send({"reply": 1, "value": 5}, [0])
    reply, received = left.request({"op": "get"}, timeout=1)
    assert reply == {"reply": 1, "value": 5}
    assert right.receive(1)[0] == {"op": "get", "seq": 1}
    close_fds(received)


def test_error_reply_becomes_remote_error(wires: tuple[Wire, Wire]) -> None:
    left, right = wires
    right.send(error_reply(1, "conflict", "in use", rows=[3]), [0])
    with pytest.raises(RemoteError, match="in use") as caught:
        left.request({"op": "take"}, timeout=1)
    assert (caught.value.code, caught.value.details) == ("conflict", {"rows": [3]})
    right.send({"reply": 2, "error": "nonsense"})
    with pytest.raises(RemoteError, match="malformed") as caught:
        left.request({"op": "take"}, timeout=1)
    assert caught.value.code == "internal"


def test_only_packet_sockets_are_taken() -> None:
    left, right = socket.socketpair()
    with left, right, pytest.raises(WireError, match="SOCK_SEQPACKET"):
        Wire(left)


def test_the_wire_alone_does_not_load_asyncio() -> None:
    """The keeper must stay small."""
    code = "import sys, hostd.wire; sys.exit('asyncio' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


# ---- asyncio ----

Story = Callable[[AsyncWire, Wire], Coroutine[Any, Any, None]]


def play(story: Story, **arguments: Any) -> None:
    """Run `story` with an AsyncWire and its synchronous peer; afterwards no descriptor is left."""

    async def run() -> None:
        ours, theirs = pair()
        wire, peer = AsyncWire(ours, **arguments), Wire(theirs)
        try:
            await story(wire, peer)
        finally:
            wire.close()
            peer.close()

    before = open_descriptors()
    asyncio.run(run())
    assert open_descriptors() == before


def test_several_requests_answered_in_another_order() -> None:
    async def story(wire: AsyncWire, peer: Wire) -> None:
        tasks = [asyncio.create_task(wire.request({"op": name})) for name in "abc"]
        await asyncio.sleep(0)
        requests = [peer.receive(1)[0] for _ in tasks]
        for request in reversed(requests):
            peer.send({"reply": request["seq"], "op": request["op"]})
        assert [(await task)[0]["op"] for task in tasks] == ["a", "b", "c"]

    play(story)


def test_unasked_messages_go_to_the_callback() -> None:
    events: list[Any] = []

    async def story(wire: AsyncWire, peer: Wire) -> None:
        peer.send({"event": "exit", "process": 4})
        peer.send({"op": "ask", "seq": 1})
        peer.send({"reply": 1})
        await wire.request({"op": "get"})
        assert events == [({"event": "exit", "process": 4}, []), ({"op": "ask", "seq": 1}, [])]

    play(story, on_event=lambda message, fds: events.append((message, fds)))


def test_without_callback_they_wait_for_receive() -> None:
    async def story(wire: AsyncWire, peer: Wire) -> None:
        reader = asyncio.create_task(wire.receive())
        await asyncio.sleep(0)
        peer.send({"event": 1}, [0])
        peer.send({"event": 2})
        message, fds = await reader
        assert message == {"event": 1}
        close_fds(fds)
        assert await wire.receive(1) == ({"event": 2}, [])
        with pytest.raises(TimeoutError):
            await wire.receive(0.01)
        peer.close()
        with pytest.raises(EOFError):
            await wire.receive(1)

    play(story)


def test_a_peer_that_floods_is_cut_off() -> None:
    async def story(wire: AsyncWire, peer: Wire) -> None:
        for number in range(QUEUE_MAX + 1):
            while True:
                try:
                    peer.send({"event": number}, timeout=0)
                    break
                except WireError:
                    await asyncio.sleep(0)
        await asyncio.wait_for(wire.closed, 5)
        assert isinstance(wire.error, WireError)
        assert (await wire.receive())[0] == {"event": 0}

    play(story)


def test_end_fails_open_requests_and_is_told_once() -> None:
    ends: list[int] = []

    async def story(wire: AsyncWire, peer: Wire) -> None:
        task = asyncio.create_task(wire.request({"op": "a"}))
        await asyncio.sleep(0)
        peer.receive(1)
        peer.close()
        with pytest.raises(EOFError):
            await task
        with pytest.raises(EOFError):
            await wire.request({"op": "b"})
        assert ends == [1]

    play(story, on_close=lambda: ends.append(1))


def test_late_reply_is_dropped_with_its_descriptors() -> None:
    async def story(wire: AsyncWire, peer: Wire) -> None:
        with pytest.raises(TimeoutError, match="no reply to 'slow' within 0.01 s"):
            await wire.request({"op": "slow"}, timeout=0.01)
        peer.receive(1)
        peer.send({"reply": 1}, [0, 1, 2])
        peer.send({"reply": 2})
        await wire.request({"op": "next"}, timeout=1)

    play(story)


def test_a_late_reply_to_a_process_before_is_not_taken() -> None:
    """The wire was another hostd's, which died with open requests: the answers to its first ones come now."""

    async def scene() -> None:
        ours, theirs = pair()
        peer = Wire(theirs)
        wire = AsyncWire(ours, first=1 << 40)
        for seq in (1, 2):
            peer.send({"reply": seq, "of": "the dead one"}, [0])
        task = asyncio.create_task(wire.request({"op": "ask"}, timeout=5))
        await asyncio.sleep(0)
        request, _ = peer.receive(5)
        peer.send({"reply": request["seq"], "of": "this one"})
        assert (await task)[0]["of"] == "this one"
        wire.close()
        peer.close()

    asyncio.run(scene())


def test_reply_in_the_turn_of_the_cancellation_leaks_nothing() -> None:
    async def story(wire: AsyncWire, peer: Wire) -> None:
        task = asyncio.create_task(wire.request({"op": "a"}))
        await asyncio.sleep(0)
        peer.receive(1)
        peer.send({"reply": 1}, [0, 1])
        wire._readable()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    play(story)


def test_error_reply_async() -> None:
    async def story(wire: AsyncWire, peer: Wire) -> None:
        peer.send(error_reply(1, "state", "not now"), [0])
        with pytest.raises(RemoteError, match="not now"):
            await wire.request({"op": "a"}, timeout=1)

    play(story)


def test_send_waits_for_a_slow_reader() -> None:
    async def story(wire: AsyncWire, peer: Wire) -> None:
        async def flood() -> None:
            for number in range(256):
                await wire.send({"number": number, **text_message(100_000)})

        task = asyncio.create_task(flood())
        await asyncio.sleep(0)  # it runs until the buffer is full
        assert not task.done()
        numbers = []
        for _ in range(256):
            while True:
                try:
                    numbers.append(peer.receive(0)[0]["number"])
                    break
                except TimeoutError:
                    await asyncio.sleep(0)
        await task
        assert numbers == list(range(256))

    play(story)

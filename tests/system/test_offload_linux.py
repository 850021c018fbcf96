"""The Linux network stack as judge: it takes what offload.h finishes, cuts and merges, and gives what offload.h takes.

Two TAPs with virtio-net headers, each in a network namespace of its own; between them nothing but this test, which
passes the frames of a TCP connection on: as they are, cut, or cut and merged again. A wrong sum, length or sequence
number would end in data that is missing or different.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import select
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from pyx import offload
from pyx.abi import NET_HEADER

pytestmark = pytest.mark.root
SIZE = 3 << 20
TUNSETIFF, TUNSETOFFLOAD, TUNSETVNETHDRSZ = 0x400454CA, 0x400454D0, 0x400454D8
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
CHECKSUM, TSO4, TSO6, TSO_ECN = 1, 2, 4, 8
CLONE_NEWNET = 0x40000000
FRAME_MOST = 70_000
DEADLINE = 30.0
PLAIN = bytes(NET_HEADER)


class Namespace:
    """A thread in a network namespace of its own, with one TAP."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.fd = -1
        self._run: Callable[[], Any] | None = None
        self._result: Any = None
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        threading.Thread(target=self._serve, daemon=True).start()
        self.call(self._enter)

    def _serve(self) -> None:
        while True:
            self._go.acquire()
            if self._run is None:
                return
            try:
                self._result = self._run()
            except BaseException as error:
                self._result = error
            self._done.release()

    def begin(self, function: Callable[[], Any]) -> None:
        self._run = function
        self._go.release()

    def result(self) -> Any:
        assert self._done.acquire(timeout=DEADLINE), "no answer"
        if isinstance(self._result, BaseException):
            raise self._result
        return self._result

    def call(self, function: Callable[[], Any]) -> Any:
        self.begin(function)
        return self.result()

    def close(self) -> None:
        self._run = None
        self._go.release()
        os.close(self.fd)

    def _enter(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        self.fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(self.fd, TUNSETIFF, struct.pack("16sH22x", b"tap0", IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
        fcntl.ioctl(self.fd, TUNSETVNETHDRSZ, struct.pack("i", NET_HEADER))
        fcntl.ioctl(self.fd, TUNSETOFFLOAD, CHECKSUM | TSO4 | TSO6 | TSO_ECN)
        other = 3 - self.number
        for line in (
            f"link set tap0 address 02:00:00:00:00:0{self.number} mtu 1500 up",
            f"addr add 10.1.2.{self.number}/24 dev tap0", f"-6 addr add fd00::{self.number}/64 dev tap0 nodad",
            f"neigh add 10.1.2.{other} lladdr 02:00:00:00:00:0{other} dev tap0 nud permanent",
            f"-6 neigh add fd00::{other} lladdr 02:00:00:00:00:0{other} dev tap0 nud permanent",
        ):  # fmt: skip
            subprocess.run(["ip", *line.split()], check=True, capture_output=True, timeout=10)


@pytest.fixture
def ends() -> Iterator[tuple[Namespace, Namespace]]:
    if not os.path.exists("/dev/net/tun"):
        pytest.skip("no /dev/net/tun: the kernel's module tun is not there")
    with ExitStack() as stack:
        both = []
        for number in (1, 2):
            both.append(Namespace(number))
            stack.callback(both[-1].close)
        yield both[0], both[1]


def as_it_is(frames: list[bytes]) -> list[bytes]:
    return frames


def cut(frames: list[bytes]) -> list[bytes]:
    return [PLAIN + piece for frame in frames for piece in offload.Judged(frame).frames()]


def merged(frames: list[bytes]) -> list[bytes]:
    return offload.merge([frame[NET_HEADER:] for frame in cut(frames)])


def passed(source: int, to: int, change: Callable[[list[bytes]], list[bytes]], seen: list[int]) -> None:
    """Everything that can be read, changed, to the other side."""
    frames = []
    while True:
        try:
            frames.append(os.read(source, FRAME_MOST))
        except BlockingIOError:
            break
    seen.extend(map(len, frames))
    for frame in change(frames):
        seen[0] = max(seen[0], len(frame))
        os.write(to, frame)


@pytest.mark.parametrize("host", ["10.1.2.2", "fd00::2"], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("change", [as_it_is, cut, merged], ids=["as it is", "cut", "merged"])
def test_a_connection_over_frames_that_were_worked_on(
    ends: tuple[Namespace, Namespace], host: str, change: Callable[[list[bytes]], list[bytes]]
) -> None:
    client, server = ends
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = server.call(lambda: socket.create_server((host, 5001), family=family))
    content = os.urandom(SIZE)

    def receive() -> str:
        digest = hashlib.sha256()
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(DEADLINE)
            while data := connection.recv(1 << 16):
                digest.update(data)
        return digest.hexdigest()

    def send() -> None:
        with socket.create_connection((host, 5001), timeout=DEADLINE) as connection:
            connection.sendall(content)

    with listener:
        listener.settimeout(DEADLINE)
        server.begin(receive)
        client.begin(send)
        sent, answered = [0], [0]
        while not server._done.acquire(blocking=False):
            ready, _, _ = select.select([client.fd, server.fd], [], [], 0.05)
            if client.fd in ready:
                passed(client.fd, server.fd, change, sent)
            if server.fd in ready:
                passed(server.fd, client.fd, change, answered)
        server._done.release()
        assert server.result() == hashlib.sha256(content).hexdigest()
        client.result()
    assert max(sent[1:]) > 10_000  # Linux left the cutting to us
    assert sent[0] <= NET_HEADER + 1514 if change is cut else sent[0] > 2 * 1514

"""Requests about connections that wait when their queue pair goes: none of them touches memory then (A5)."""

from __future__ import annotations

import ipaddress
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from hostd import tap, tcp_networks
from pyx import process
from pyx.abi import OPERATIONS, REASONS, STATUSES
from tests.framework.near import Near, near
from tests.framework.switch import running

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
ADDRESS, WIRE = "10.78.0.2", 200
RECEIVE, SEND = OPERATIONS["tcp_receive"], OPERATIONS["tcp_send"]
CHUNK = 65536
UNTOUCHED = 0xEE


def inside(space: int) -> socket.socket:
    """A socket that listens in a namespace; threads are in one each."""
    made: list[socket.socket] = []

    def make() -> None:
        process.setns(space, process.CLONE_NEWNET)
        made.append(socket.create_server((ADDRESS, 80)))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    made[0].settimeout(5)
    return made[0]


@contextmanager
def connected() -> Iterator[tuple[Near, socket.socket, int]]:
    """A guest with a connection, its peer, and the number of that connection."""
    try:
        interface = tap.Interface("eth0", b"", 1500, (ipaddress.ip_interface(f"{ADDRESS}/24"),), True)
        space, wire = tcp_networks.make(interface)
    except (OSError, tap.TapError) as error:
        pytest.skip(f"no network of its own here: {error}")
    with running() as switch, inside(space) as listener, near(switch) as guest:
        switch.nic.add_wire(WIRE, "tap", wire)
        switch.nic.engage(0, space, WIRE, 16, [])
        for descriptor in (space, wire):
            os.close(descriptor)
        try:
            connection = guest.nic.tcp.connect(ADDRESS, 80, 5.0)
            peer, _ = listener.accept()
            with peer:
                peer.settimeout(5)
                yield guest, peer, connection.number
        finally:
            switch.nic.remove_wire(WIRE)


@pytest.mark.parametrize("closed", [False, True])
def test_a_receive_that_waited_looks_at_its_queue_pair_again(closed: bool) -> None:
    with connected() as (guest, peer, connection):
        room = guest.memory.allocate(4096)
        room[:] = bytes([UNTOUCHED]) * 4096
        queue = guest.nic.transmit
        waiting = queue.submit(RECEIVE, room, connection)
        guest.nic.tcp.connect(ADDRESS, 80, 5.0)  # taken after it: by now it waits
        if closed:
            guest.close_pair()
        peer.sendall(b"for nobody")
        ((slot, status, reason, count),) = queue.wait(5.0)
        assert slot == waiting
        if closed:
            assert (status, reason, count) == (STATUSES["refused"], REASONS["path_closed"], 0)
            assert bytes(room) == bytes([UNTOUCHED]) * 4096
        else:
            assert (bytes(room[:10]), count) == (b"for nobody", 10)


@pytest.mark.parametrize("closed", [False, True])
def test_a_send_that_waited_looks_at_its_queue_pair_again(closed: bool) -> None:
    """What a full socket has not taken yet is not read any more: the peer gets none of it."""
    with connected() as (guest, peer, connection):
        room = guest.memory.allocate(CHUNK)
        room[:] = bytes([UNTOUCHED]) * CHUNK
        queue = guest.nic.transmit
        taken, ended = 0, [(0, 0, 0, 0)]
        while ended:
            waiting = queue.submit(SEND, room, connection)
            queue.kick()
            ended = queue.wait(0.3)
            taken += sum(count for *_, count in ended)
        if closed:
            guest.close_pair()
        room[:] = bytes(CHUNK)  # who reads it from now on shows it
        got = bytearray()
        peer.settimeout(0.1)
        while True:
            ended += queue.poll()
            try:
                got += peer.recv(CHUNK)
            except TimeoutError:
                if ended:
                    break
        ((slot, status, reason, count),) = ended
        assert slot == waiting
        if closed:
            assert (status, reason) == (STATUSES["refused"], REASONS["path_closed"])
            assert len(got) == taken + count and got.count(0) == 0
        else:
            assert (status, count) == (STATUSES["ok"], CHUNK)
            assert len(got) == taken + CHUNK and got.count(0) > 0

"""Probe frames of an unmodified program's NIC: they wait for a buffer, and what was lost is tried again (A2; what the
device's process that lies is found by: tests/system/test_capabilities.py)."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from partitions.guest_nic import SEND
from partitions.guest_probe import UDP, probe_frame
from partitions.program_probe import PROVABLE, Prover
from pyx import abi
from pyx.peer import grant, shown
from pyx.tap_link import Link
from pyx.tap_pump import TapPump
from tests.framework.near import MAC, PORT, Near, near
from tests.framework.packets import frame
from tests.framework.switch import Switch, until

BUFFERS, STRIDE = 8, (abi.HEADED_MAX + 63) // 64 * 64
STATION = "02:00:00:00:0a:01"
SOURCE = bytes.fromhex(MAC.replace(":", ""))
SOME = abi.OFFLOADS["checksum"] | abi.OFFLOADS["send_tcp4"]


@pytest.mark.parametrize("headed", [False, True])
@pytest.mark.parametrize("to", [abi.PROBE_WIRE, abi.PROBE_RECEIVER])
def test_a_probe_waits_for_a_buffer_of_its_sender(switch: Switch, to: int, headed: bool) -> None:
    """Its other traffic may have used them all; a probe that was lost shows nothing."""
    with near(switch) as guest:
        content = probe_frame(to.to_bytes(8, "little")[:6], SOURCE, 4, UDP, 0)
        room = guest.memory.allocate(abi.NET_HEADER + len(content))
        room[:] = bytes(abi.NET_HEADER) + content
        switch.nic.recall(PORT, "redirect")  # as while it changes its path: what waits has all the time that it needs
        transmit = guest.queues[0][0]
        whole = room if headed else room[abi.NET_HEADER :]
        transmit.submit(abi.OPERATIONS["send_headed"] if headed else SEND, whole)
        transmit.kick()
        time.sleep(0.05)  # in which it would be dropped
        assert transmit.wait(0.0) == []
        guest.nic.open(BUFFERS, 2048)
        found: list[bytes] = []
        until(lambda: bool(found.extend(map(bytes, guest.nic.arrived())) or found))
        assert found == [content]
        until(lambda: transmit.wait(0.0) != [])
        switch.nic.settle(PORT)


Asked = Callable[[TapPump, Link, int], int]


@contextmanager
def pumping(switch: Switch, guest: Near, prover: Callable[[Link], Asked]) -> Iterator[None]:
    """The process above a program, whose NIC is granted all that can be shown."""
    cable = switch.cable()
    ours, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    room = guest.memory.allocate
    link = Link(*guest.queues[0], [ours.fileno()], 0, room(2 * STRIDE), room(BUFFERS * STRIDE), STRIDE, STRIDE, True,
                PROVABLE)  # fmt: skip
    grant(guest.partition.events, 0, abi.OFFLOADS_FRAMES)
    pump = TapPump(guest.partition.waiter, [link], None, prover(link))
    thread = threading.Thread(target=pump.run)
    thread.start()
    try:
        yield
    finally:
        pump.stop()
        switch.send(cable, bytes(frame(b"", source=STATION, to="ff:ff:ff:ff:ff:ff")))  # wakes it
        thread.join()
        ours.close()
        far.close()


def test_all_is_proved(switch: Switch) -> None:
    with near(switch) as guest, pumping(switch, guest, lambda link: Prover(guest.memory, {link: SOURCE})):
        until(lambda: shown(guest.partition.events, 0) == (PROVABLE, 0))


def test_what_was_lost_is_tried_again(switch: Switch) -> None:
    """And what was shown is not."""
    asked: list[int] = []

    def prover(_pump: TapPump, _link: Link, wanted: int) -> int:
        asked.append(wanted)
        return wanted & SOME if len(asked) == 1 else 0 if len(asked) == 2 else wanted

    with near(switch) as guest, pumping(switch, guest, lambda _link: prover):
        until(lambda: len(asked) == 3)
    assert asked == [PROVABLE, PROVABLE & ~SOME, PROVABLE & ~SOME]

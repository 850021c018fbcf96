"""The switch of a NIC device in this process, with cables whose other ends the test holds: wires over socket pairs.

    with running() as switch:
        a, b = switch.cable(), switch.cable(vlan=5)
        got = switch.send(a, frame)   # by cable, what has come of it; nothing is under way any more
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pyx import abi
from pyx.nic import Nic
from pyx.statistics import initialize

TUNNEL = bytes((8, 0, 0, 0, 0, 0, 0, 0))  # RFC 7348: a valid network identifier, 0
ROWS = 8
DEADLINE = 5.0
PATIENCE = 10.0  # of `until`


class Cable:
    def __init__(self, switch: Switch, number: int) -> None:
        self.switch, self.number = switch, number
        self.near, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        switch.nic.add_wire(number, "vxlan", self.far.fileno(), self.far.fileno())

    def frames(self) -> list[bytes]:
        """What has arrived since the last time."""
        found = []
        while True:
            try:
                found.append(self.near.recv(70000)[len(TUNNEL) :])
            except BlockingIOError:
                return found

    @property
    def state(self) -> dict[str, Any]:
        return self.switch.nic.wire_state(self.number)

    def taken(self) -> int:
        state = self.state
        return int(state["frames_in"]) + sum(state["drops"].values())


class Switch:
    def __init__(self) -> None:
        counters, histograms = abi.STATISTICS_SHAPES["nic"]
        sizes = {
            "bell": abi.bell_size(), "statistics": abi.statistics_size(ROWS, counters, histograms),
            "translations": abi.translations_size(), "vectors": abi.vectors_size(),
        }  # fmt: skip
        self._fds = {name: os.memfd_create(name) for name in sizes}
        for name, size in sizes.items():
            os.ftruncate(self._fds[name], size)
        initialize(self._fds["statistics"], "nic", ROWS)
        self.nic = Nic(
            self._fds["bell"], self._fds["statistics"], sizes["statistics"],
            translations_fd=self._fds["translations"], vectors_fd=self._fds["vectors"],
            window_first=abi.FIRST_FRAME * abi.PAGE, window_size=1 << 20,
        )  # fmt: skip
        self.cables: list[Cable] = []
        self._threads = [threading.Thread(target=self.nic.run), threading.Thread(target=self.nic.wake)]
        for thread in self._threads:
            thread.start()

    def fd(self, name: str) -> int:
        """Of one of its segments: bell, statistics, translations, vectors."""
        return self._fds[name]

    def cable(self, vlan: int = 0, trunk: tuple[int, ...] = (), watches: bool = False, mtu: int = 0) -> Cable:
        number = 255 - len(self.cables)
        self.nic.set_rules(number, vlan, trunk, mtu)
        cable = Cable(self, number)
        self.nic.set_watches(cable.number, watches)
        self.cables.append(cable)
        return cable

    def send(self, cable: Cable, frame: bytes) -> dict[Cable, list[bytes]]:
        before = cable.taken()
        cable.near.send(TUNNEL + frame)
        end = time.monotonic() + DEADLINE
        while cable.taken() == before:
            assert time.monotonic() < end, "the switch did not take a frame"
            time.sleep(0.0002)
        return {one: found for one in self.cables if (found := one.frames())}

    def close(self) -> None:
        self.nic.stop()
        self.nic.end_wake()
        for thread in self._threads:
            thread.join()
        for cable in self.cables:
            self.nic.remove_wire(cable.number)
            cable.near.close()
            cable.far.close()
        for fd in self._fds.values():
            os.close(fd)


@contextmanager
def running() -> Iterator[Switch]:
    switch = Switch()
    try:
        yield switch
    finally:
        switch.close()


def until(condition: Callable[[], bool]) -> None:
    """Of what the switch, or whoever is at it, does by itself."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.0005)

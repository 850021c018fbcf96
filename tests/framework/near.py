"""A guest on the direct path in this process, at the switch of tests/framework/switch.py: its driver, and its
translation entries in the hand of the test.

    with running() as switch, near(switch) as guest:
        guest.nic.send(...)
        guest.close_pair()     # the entry is another one now: what the device still has of the old one is out of date
    with running() as switch, near(switch, 4) as guest:     # a NIC with four queue pairs, all of them in use
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from partitions.guest_nic import Nic
from partitions.guest_queues import QueuedNic
from partitions.ultravisor.types import QUEUES
from pyx import abi
from pyx.endpoint import ClientEndpoint
from pyx.entries import Entries
from pyx.memory import Memory
from pyx.queue import ClientQueue
from pyx.vectors import Routes
from tests.framework.driver import Partition, segment
from tests.framework.switch import Switch

PARTITION, PORT, GENERATION, CAPACITY = abi.make_id(7, 1), 0, 3, 64
MAC = "02:00:00:00:00:07"
SIZE = 1 << 20
GPA, HPA = 0, abi.FIRST_FRAME * abi.PAGE


def _wait(_nics: Sequence[Nic], seconds: float) -> None:
    time.sleep(min(seconds, 0.001))


class Near:
    """`ends`: its queue pairs, each as a NIC of its own; `queues`: (transmit, receive) of each."""

    def __init__(self, switch: Switch, pairs: int, attached: int) -> None:
        self.partition = Partition()
        content = segment(SIZE)
        self.memory = Memory(SIZE)
        self.memory.attach(content, GPA, SIZE)
        switch.nic.attach_memory(content, HPA, SIZE)
        os.close(content)
        self._switch, self._pairs = switch, pairs
        self._entries = Entries(switch.fd("translations"))
        self.queues: list[tuple[ClientQueue, ClientQueue]] = []
        self.ends: list[Nic] = []
        for _ in range(attached):
            self.attach()
        self.nic = self.ends[0] if pairs == 1 else QueuedNic(self.ends, _wait)

    def attach(self) -> None:
        """The next queue pair."""
        number = len(self.ends)
        queues, port = len(QUEUES["nic"]), PORT + number
        routes = Routes(self._switch.fd("vectors"))
        for queue in range(queues):
            routes.route(port, queue, PARTITION)
        routes.detach()
        key = self._open(number)
        pair = segment(abi.pair_size(queues, CAPACITY))
        events = self.partition.events
        mac = bytes.fromhex(MAC.replace(":", ""))
        self._switch.nic.attach_port(
            port, GENERATION, PARTITION, number, mac, (events, pair, CAPACITY), lead=PORT if number else -1,
            queues=1 if number else self._pairs,
        )  # fmt: skip
        end = ClientEndpoint(self.partition.calls, number, GENERATION, pair, queues, CAPACITY, key)
        os.close(pair)
        transmit, receive = (
            ClientQueue(self.partition.waiter, -1, events, CAPACITY, end, queue) for queue in range(queues)
        )
        self.queues.append((transmit, receive))
        self.ends.append(Nic(self.memory, {"name": "eth0", "mac": MAC}, (transmit, receive), path=end))

    def _open(self, number: int) -> int:
        endpoint = {
            "index": number, "name": "eth0", "generation": GENERATION, "kind": abi.ENDPOINT_KINDS["nic"], "device": 0,
            "port": PORT + number, "operations": 0xFFFF, "max_transfer": abi.HEADED_MAX, "mac": MAC,
        }  # fmt: skip
        descriptor = {
            "partition": PARTITION, "type": abi.PARTITION_TYPES["console"], "state": 0, "memory_pages": 0,
            "endpoints": [endpoint],
        }  # fmt: skip
        return self._entries.open(descriptor, number, [(GPA, HPA, SIZE)])

    def close_pair(self) -> None:
        """As the monitor does when a queue pair goes: no request with the driver's key is good any more."""
        self._open(0)

    def close(self) -> None:
        self._entries.detach()
        for number in reversed(range(len(self.ends))):
            self._switch.nic.detach_port(PORT + number)
        self._switch.nic.detach_memory(HPA)
        self.partition.close()


@contextmanager
def near(switch: Switch, pairs: int = 1, attached: int | None = None) -> Iterator[Near]:
    """`attached`: how many of its `pairs` are there yet; `Near.attach` brings the next one."""
    guest = Near(switch, pairs, pairs if attached is None else attached)
    try:
        yield guest
    finally:
        guest.close()

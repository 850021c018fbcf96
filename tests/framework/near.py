"""A guest on the direct path in this process, at the switch of tests/framework/switch.py: its driver, and its
translation entry in the hand of the test.

    with running() as switch, near(switch) as guest:
        guest.nic.send(...)
        guest.close_pair()     # the entry is another one now: what the device still has of the old one is out of date
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from partitions.guest_nic import Nic
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


class Near:
    def __init__(self, switch: Switch) -> None:
        self._partition = Partition()
        content = segment(SIZE)
        self.memory = Memory(SIZE)
        self.memory.attach(content, GPA, SIZE)
        switch.nic.attach_memory(content, HPA, SIZE)
        os.close(content)
        self._switch = switch
        self._entries = Entries(switch.fd("translations"))
        routes = Routes(switch.fd("vectors"))
        queues = len(QUEUES["nic"])
        for queue in range(queues):
            routes.route(PORT, queue, PARTITION)
        routes.detach()
        key = self._open()
        pair = segment(abi.pair_size(queues, CAPACITY))
        events = self._partition.events
        mac = bytes.fromhex(MAC.replace(":", ""))
        switch.nic.attach_port(PORT, GENERATION, PARTITION, 0, mac, (events, pair, CAPACITY))
        end = ClientEndpoint(self._partition.calls, 0, GENERATION, pair, queues, CAPACITY, key)
        os.close(pair)
        both = [ClientQueue(self._partition.waiter, -1, events, CAPACITY, end, queue) for queue in range(queues)]
        self.nic = Nic(self.memory, {"name": "eth0", "mac": MAC}, both, path=end)

    def _open(self) -> int:
        endpoint = {
            "index": 0, "name": "eth0", "generation": GENERATION, "kind": abi.ENDPOINT_KINDS["nic"], "device": 0,
            "port": PORT, "operations": 0xFFFF, "max_transfer": 65536, "mac": MAC,
        }  # fmt: skip
        descriptor = {
            "partition": PARTITION, "type": abi.PARTITION_TYPES["console"], "state": 0, "memory_pages": 0,
            "endpoints": [endpoint],
        }  # fmt: skip
        return self._entries.open(descriptor, 0, [(GPA, HPA, SIZE)])

    def close_pair(self) -> None:
        """As the monitor does when a queue pair goes: no request with the driver's key is good any more."""
        self._open()

    def close(self) -> None:
        self._entries.detach()
        self._switch.nic.detach_port(PORT)
        self._switch.nic.detach_memory(HPA)
        self._partition.close()


@contextmanager
def near(switch: Switch) -> Iterator[Near]:
    guest = Near(switch)
    try:
        yield guest
    finally:
        guest.close()

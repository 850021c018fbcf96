"""A guest's driver in this process, and whoever it talks to played by the test: server, device, monitor.

Everything happens in one thread, step by step: `step` lets the driver look once at whatever arrived.
"""

import os
from typing import NamedTuple

from pyx.abi import CALLS, OPERATIONS, PATHS, STATUSES, channel_size, events_size, pair_size
from pyx.calls import CallRing
from pyx.endpoint import ClientEndpoint
from pyx.peer import Peer, want
from pyx.queue import ClientQueue
from pyx.waiter import Waiter

CALLS_CAPACITY = 16
OK = STATUSES["ok"]
PATH = OPERATIONS["path"]


def segment(size: int) -> int:
    fd = os.memfd_create("driver")
    os.ftruncate(fd, (size + 4095) // 4096 * 4096)
    return fd


class Request(NamedTuple):
    """As `Peer.take` gives it."""

    id: int
    operation: int
    length: int
    offset: int
    key: int


class Partition:
    """What the endpoints of one guest share: where it sleeps, and its call ring with the monitor's end of it."""

    def __init__(self) -> None:
        self.events, calls = segment(events_size()), segment(channel_size(CALLS_CAPACITY))
        self.waiter = Waiter(self.events)
        self.calls = CallRing(self.waiter, calls, self.events, CALLS_CAPACITY)
        self.monitor = Peer(calls, CALLS_CAPACITY)
        os.close(calls)

    def close(self) -> None:
        os.close(self.events)


class Driver:
    """One endpoint with `queues` queues of `capacity` slots: `queue` is the driver's first one, `server` and `device`
    the other ends of its channel and of its queue pair. Two queues: its requests travel in packs on the pair."""

    def __init__(self, partition: Partition, index: int = 0, capacity: int = 8, queues: int = 1) -> None:
        channels = [segment(channel_size(capacity)) for _ in range(queues)]
        pair = segment(pair_size(queues, capacity))
        self.partition, self.index = partition, index
        self.end = ClientEndpoint(partition.calls, index, 7, pair, queues, capacity)
        self.queues = [ClientQueue(partition.waiter, channel, partition.events, capacity, self.end, number)
                       for number, channel in enumerate(channels)]
        self.queue, self.asks = self.queues[0], 0
        self.server = Peer(channels[0], capacity)
        self.device = Peer(pair, capacity, queues, 0)
        for fd in (*channels, pair):
            os.close(fd)

    @property
    def completed(self) -> int:
        """Requests of the test that completed: the driver counts its own ones for a path as well."""
        return self.queue.completed - self.asks

    def step(self) -> list[tuple[int, int, int, int]]:
        return self.queue.wait(0.0)

    def requests(self, peer: Peer) -> list[Request]:
        return [Request(*fields) for fields in peer.take()]

    def want(self, path: str) -> None:
        want(self.partition.events, self.index, PATHS[path])

    def asked(self, path: str) -> int:
        """Steps until the driver asks the server for `path`; the id of that request."""
        self.step()
        (request,) = self.requests(self.server)
        assert (request.operation, request.length, request.key) == (PATH, PATHS[path], 0)
        self.asks += 1
        return request.id

    def go(self, path: str, key: int = 0) -> None:
        """A change of path, with nothing in flight, to which everybody says yes. `key`: of the queue pair."""
        self.want(path)
        self.server.complete(self.asked(path), OK, bytes=PATHS[path])
        self.step()
        if path == "direct":
            ((call, number, endpoint),) = self.partition.monitor.take_calls()
            assert (number, endpoint) == (CALLS["key"], self.index)
            self.partition.monitor.complete(call, OK, pickup_time=key)
            self.step()
        assert self.end.path == path

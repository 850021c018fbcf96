"""The virtual driver of a NIC with several queue pairs: one NIC for its user, an endpoint for each pair (W7).

A frame is sent on the pair that its flow's hash says, and each pair sends in order. Frames are received from all pairs;
those of one flow come by one pair, and by another one only after all that came before were taken, so taking each pair's
frames as a whole keeps their order.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from partitions.guest_esp import Associations
from partitions.guest_nic import SEND, SEND_HEADED, Nic
from pyx import abi, offload
from pyx.memory import Buffer

SLICE = 1.0  # seconds between two looks for signals


class QueuedNic:
    """What `Nic` is, over its `pairs`. `wait`: one round of waiting for frames of any of them, of so many seconds."""

    def __init__(self, pairs: Sequence[Nic], wait: Callable[[Sequence[Nic], float], None]) -> None:
        self.pairs = list(pairs)
        self.name, self.mac = pairs[0].name, pairs[0].mac
        self._wait = wait
        self._arrived: deque[Buffer] = deque()
        self._owners: dict[int, Nic] = {}  # by address: where the buffer of a frame that its user has belongs

    @property
    def dropped(self) -> dict[str, int]:
        """Frames of ours that the switch dropped, by reason."""
        total: dict[str, int] = {}
        for pair in self.pairs:
            for reason, count in pair.dropped.items():
                total[reason] = total.get(reason, 0) + count
        return total

    @property
    def associations(self) -> Associations:
        """Those of the NIC: the device keeps one set, whichever pair a frame comes by."""
        return self.pairs[0].associations

    def open(self, buffers: int = 256, frame_size: int = 2048, headed: bool = False) -> None:
        """Number and size of the receive buffers of each pair; before the first receive only."""
        for pair in self.pairs:
            pair.open(buffers, frame_size, headed)

    def capabilities(self) -> dict[str, dict[str, Any]]:
        return self.pairs[0].capabilities()

    def prove(self) -> None:
        for pair in self.pairs:
            pair.prove()

    def room(self, size: int) -> Buffer:
        return self.pairs[0].room(size)

    def send(self, frame: Buffer) -> None:
        self.send_many([frame])

    def send_many(self, frames: Sequence[Buffer], operation: int = SEND) -> None:
        """Sends frames, those of one flow in order; returns when the device has taken all."""
        for pair, mine in self._by_pair(frames, abi.NET_HEADER if operation == SEND_HEADED else 0):
            pair.send_many(mine, operation)

    def send_headed(self, frames: Sequence[Buffer]) -> None:
        self.send_many(frames, SEND_HEADED)

    def send_large(self, frames: Iterable[Buffer], segment: int) -> None:
        for pair, mine in self._by_pair(list(frames), abi.NET_HEADER):
            pair.send_large(mine, segment)

    def _by_pair(self, frames: Sequence[Buffer], skip: int) -> list[tuple[Nic, list[Buffer]]]:
        parts: list[tuple[Nic, list[Buffer]]] = [(pair, []) for pair in self.pairs]
        for frame in frames:
            parts[offload.queue_of(offload.flow_of(frame[skip:]), len(parts))][1].append(frame)
        return [(pair, mine) for pair, mine in parts if mine]

    def receive(self, timeout: float | None = None) -> Buffer | None:
        """The next frame, in the buffer that it arrived in; None after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._arrived:
            # All that a pair has before the next one is looked at: a flow that goes over to another pair does so only
            # when everything was taken.
            for pair in self.pairs:
                for frame in pair.arrived():
                    self._owners[frame.gpa] = pair
                    self._arrived.append(frame)
            left = SLICE if deadline is None else deadline - time.monotonic()
            if not self._arrived:
                if left <= 0:
                    return None
                self._wait(self.pairs, min(left, SLICE))
        return self._arrived.popleft()

    def release(self, *frames: Buffer) -> None:
        """Posts the buffers of received frames again."""
        for frame in frames:
            self._owners.pop(frame.gpa).release(frame)

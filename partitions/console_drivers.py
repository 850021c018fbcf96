"""The console's drivers: endpoints at devices that are its own, and a stream over them that verifies itself (W1).

The console drives host-managed devices over queue pairs alone, so nothing here asks a monitor or an I/O partition, and
load and unload of the kernel leave it as it is. One thread has the waiter, the call ring and the queues: connect calls
are made between two rounds of the stream and nobody waits for their answers.

    disk: write blocks of the round's own, read them back, compare
    NIC:  frames from its first endpoint to its second; number, order and contents are compared
"""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

from partitions.guest_devices import READ, WRITE, Disk, Nic
from partitions.skeleton import Context
from partitions.ultravisor.types import QUEUES
from pyx.calls import CallRing, RequestError
from pyx.endpoint import ClientEndpoint
from pyx.memory import Buffer, Memory
from pyx.queue import ClientQueue
from pyx.waiter import Waiter

BLOCK = 4096  # bytes of one disk transfer
DEPTH_MAX = 32  # disk requests at once
FRAMES = 8  # of one round and NIC
FRAME = 128  # bytes of one of them
FRAME_TYPE = b"\x88\xb5"  # for experiments, IEEE 802
BUFFERS = 32  # receive buffers of one endpoint
FRAME_TIMEOUT = 2.0  # seconds for a frame between two endpoints of one device
PAUSE = 0.001  # seconds between two rounds: the console shares its processor with the data plane
ANSWER_PAUSE = 0.001  # seconds between two looks for the answer to a connect call


def attach(
    context: Context, plan: dict[str, Any], memory: Memory, calls: CallRing, waiter: Waiter, keys: dict[int, int],
    events: int,
) -> tuple[dict[str, Disk], dict[str, Nic]]:  # fmt: skip
    """Disks and NICs by the name of the endpoint. `keys`: of their queue pairs, by index of the endpoint."""
    disks: dict[str, Disk] = {}
    nics: dict[str, Nic] = {}
    for endpoint in plan["endpoints"]:
        index, kind, capacity = endpoint["index"], endpoint["kind"], endpoint["pair"]["capacity"]
        pair, count = context.take(f"pair{index}"), len(QUEUES[kind])
        end = ClientEndpoint(calls, index, endpoint["generation"], pair, count, capacity, keys[index])
        os.close(pair)
        queues = [ClientQueue(waiter, -1, events, capacity, end, number) for number in range(count)]
        if kind == "disk":
            disks[endpoint["name"]] = Disk(memory, endpoint, queues)
        else:
            nics[endpoint["name"]] = Nic(memory, endpoint, queues, BUFFERS, 2048)
    return disks, nics


class Drivers(threading.Thread):
    """Runs until `finish`. `pairs_of_nics`: (sender, receiver), two endpoints of one NIC each."""

    def __init__(
        self, memory: Memory, calls: CallRing, disks: list[Disk], pairs_of_nics: list[tuple[Nic, Nic]]
    ) -> None:
        super().__init__(name="drivers", daemon=True)
        self._calls = calls
        self._disks = disks
        self._nics = pairs_of_nics
        self._written: list[Buffer] = [memory.allocate(BLOCK) for _ in range(DEPTH_MAX)]
        self._read: list[Buffer] = [memory.allocate(BLOCK) for _ in range(DEPTH_MAX)]
        self._depth = 1
        self._frames: list[Buffer] = [memory.allocate(FRAME) for _ in range(FRAMES)]
        self._wanted = threading.Event()  # there is something to do
        self._streaming = False
        self._finished = False
        self._connect: tuple[str, Callable[[int | RequestError], None]] | None = None
        self._asked: tuple[int, Callable[[int | RequestError], None]] | None = None
        self.counts = dict.fromkeys(("rounds", "disk_bytes", "frames", "errors"), 0)
        self.last_error = ""
        self._last_round = 0  # ns
        self._longest_gap = 0  # ns between the ends of two rounds, since the last `take_gap`

    # ---- from the control loop ----

    def stream(self, on: bool, depth: int) -> None:
        """The verified stream, on or off, with `depth` disk requests at once; its figures stay."""
        self._depth = min(depth, DEPTH_MAX)
        if on and not self._streaming:
            self._last_round = 0
        self._streaming = on
        self._wanted.set()

    def connect(self, service: str, answered: Callable[[int | RequestError], None]) -> None:
        """Makes the system call; `answered` is called from the driver's thread with its result."""
        self._connect = (service, answered)
        self._wanted.set()

    def figures(self) -> dict[str, Any]:
        """Counts since the start, and the longest time between two rounds since the last call of this."""
        gap, self._longest_gap = self._longest_gap, 0
        return {**self.counts, "streaming": self._streaming, "longest_gap": gap / 1e9, "last_error": self.last_error}

    def finish(self) -> None:
        self._finished = True
        self._wanted.set()
        if self.is_alive():
            self.join()

    # ---- the thread ----

    def run(self) -> None:
        while not self._finished:
            self._wanted.clear()
            self._serve_calls()
            if self._streaming:
                self._round()
            pause = PAUSE if self._streaming else ANSWER_PAUSE if self._asked else None
            self._wanted.wait(pause)

    def _serve_calls(self) -> None:
        if self._connect is not None:
            (service, callback), self._connect = self._connect, None
            self._asked = self._calls.begin_connect(service), callback
        if self._asked is not None:
            identity, callback = self._asked
            try:
                result: int | RequestError | None = self._calls.answered(identity)
            except RequestError as error:
                result = error
            if result is not None:
                self._asked = None
                callback(result)

    def _round(self) -> None:
        number = self.counts["rounds"] + 1
        try:
            for disk in self._disks:
                self._verify_disk(disk, number)
            for sender, receiver in self._nics:
                self._verify_nic(sender, receiver, number)
        except (OSError, ValueError) as error:  # RequestError is an OSError
            self.counts["errors"] += 1
            self.last_error = f"round {number}: {error}"
        self.counts["rounds"] = number
        now = time.monotonic_ns()
        if self._last_round:
            self._longest_gap = max(self._longest_gap, now - self._last_round)
        self._last_round = now

    def _verify_disk(self, disk: Disk, number: int) -> None:
        depth, blocks = self._depth, disk.capacity // BLOCK
        offsets = [(number * depth + position) % blocks * BLOCK for position in range(depth)]
        patterns = [struct.pack("<QQ", number, offset) * (BLOCK // 16) for offset in offsets]
        for position, pattern in enumerate(patterns):
            self._written[position][:] = pattern
            self._read[position][:] = bytes(BLOCK)
        disk.transfer_many(WRITE, zip(self._written[:depth], offsets, strict=True))
        disk.transfer_many(READ, zip(self._read[:depth], offsets, strict=True))
        for position, pattern in enumerate(patterns):
            if bytes(self._read[position]) != pattern:
                text = f"{disk.name}: block at {offsets[position]} reads back other bytes than were written"
                raise ValueError(text)
        self.counts["disk_bytes"] += 2 * BLOCK * depth

    def _verify_nic(self, sender: Nic, receiver: Nic, number: int) -> None:
        header = receiver.mac + sender.mac + FRAME_TYPE
        for position, frame in enumerate(self._frames):
            frame[:] = header + struct.pack("<QQ", number, position) * ((FRAME - len(header)) // 16) + b"\0\0"
        stray = receiver.receive(0)  # the first time this posts its buffers
        if stray is not None:
            receiver.release(stray)
            raise ValueError(f"{receiver.name}: a frame that nobody sent now, before round {number}")
        sender.send_many(self._frames)
        for position, frame in enumerate(self._frames):
            arrived = receiver.receive(FRAME_TIMEOUT)
            if arrived is None:
                raise ValueError(f"{receiver.name}: frame {position} of round {number} did not arrive")
            same = bytes(arrived) == bytes(frame)
            receiver.release(arrived)
            if not same:
                raise ValueError(f"{receiver.name}: another frame than number {position} of round {number}")
            self.counts["frames"] += 1

"""The virtual driver of a NIC: frames, frames with a header in front, and what of that the device may do (A1, A2).

What a header asks for is done by the device where the monitor grants it on the path in force and a probe frame has
shown that it is true; otherwise here, by the same code, before the frame is sent. So a change of path, or a weaker
device, moves checksums and the cutting of large frames into this driver and back; no receiver sees a difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from partitions import guest_probe
from partitions.guest_esp import BIT as ESP
from partitions.guest_esp import Associations
from partitions.guest_tcp import Tcp
from pyx import abi, offload
from pyx.calls import RequestError
from pyx.endpoint import ClientEndpoint
from pyx.memory import Buffer, Memory
from pyx.queue import ClientQueue

SEND, RECEIVE = abi.OPERATIONS["send"], abi.OPERATIONS["receive"]
SEND_HEADED, RECEIVE_HEADED = abi.OPERATIONS["send_headed"], abi.OPERATIONS["receive_headed"]
OK, REFUSED = abi.STATUSES["ok"], abi.STATUSES["refused"]
WITHHELD = abi.REASONS["offload_withheld"]
SOURCES = ("device", "path", "policy", "peer")


class Nic:
    """A virtual NIC with address `mac` (6 bytes). Frames begin with their Ethernet header.

    `buffers` receive buffers of `frame_size` bytes are posted at the first receive and again when their frame is
    released.
    """

    def __init__(
        self, memory: Memory, endpoint: dict[str, Any], queues: Sequence[ClientQueue], buffers: int = 256,
        frame_size: int = 2048, path: ClientEndpoint | None = None,
    ) -> None:  # fmt: skip
        self.name: str = endpoint["name"]
        self.mac = bytes.fromhex(endpoint["mac"].replace(":", ""))
        self.transmit, self.receive_queue = queues
        self.dropped: dict[str, int] = {}  # frames of ours that the switch dropped, by reason
        self._memory = memory
        self._path = path
        self.tcp = Tcp(memory, self.name, self.transmit, lambda: self._shown(abi.OFFLOADS["tcp"], 0))
        self._life = 0 if path is None else path.device_life
        self._proved = self._disproved = 0
        self._pieces: list[Buffer] = []  # room for frames that are finished here
        self._buffers = min(buffers, self.receive_queue.capacity)
        self._frame_size = frame_size
        self._headed = False
        self._posted: dict[int, Buffer] = {}
        self._arrived: list[Buffer] = []
        self.associations = Associations(self, memory)  # what the device seals and opens

    def open(self, buffers: int = 256, frame_size: int = 2048, headed: bool = False) -> None:
        """Chooses number and size of the receive buffers; before the first receive only. `headed`: each frame comes
        with a header of `abi.NET_HEADER` bytes in front (`pyx.offload.NetHeader`), which says whether its checksum is
        right or still missing, and whether it is a large frame; `frame_size` counts without it."""
        if self._posted:
            raise RuntimeError(f"{self.name}: receive buffers are posted already")
        self._buffers = min(buffers, self.receive_queue.capacity)
        self._frame_size = frame_size
        self._headed = headed
        size = frame_size + (abi.NET_HEADER if headed else 0)
        self._post([self._memory.allocate(size) for _ in range(self._buffers)])

    # ---- what the device may do ----

    @property
    def granted(self) -> int:
        """Bits of abi.OFFLOADS that the monitor grants on the path in force."""
        return abi.OFFLOADS_ALL if self._path is None else self._path.granted

    @property
    def usable(self) -> int:
        """Those that are granted and were shown to be true."""
        self._forget()
        return self.granted & self._proved

    def capabilities(self) -> dict[str, dict[str, Any]]:
        """By offload: {"granted", "withheld_by": some of device, path, policy, peer, "proved": True, False, None: not
        tried}. A driver that found the device lying does the work itself."""
        self._forget()
        told = {} if self._path is None else self._path.offloads
        return {
            name: {
                "granted": bool(self.granted & bit),
                "withheld_by": [source for source in SOURCES if told.get(source, 0) & bit],
                "proved": True if self._proved & bit else False if self._disproved & bit else None,
            }
            for name, bit in abi.OFFLOADS.items()
        }

    def prove(self) -> None:
        """Tries what is granted and was not tried yet, each by a probe frame that the wire gives back. Needs posted
        receive buffers; those that take no header prove nothing of what is received. What the device's earlier process
        showed is tried anew."""
        self._forget()
        wanted = self.granted & abi.OFFLOADS_FRAMES & ~(self._proved | self._disproved)
        if not self._headed:
            wanted &= guest_probe.SENT | ESP
        if wanted:
            proved, disproved, lost = guest_probe.prove(self, self._memory, wanted, self._headed)
            disproved |= lost
            if wanted & ESP:
                right = any(self.associations.shown(self._headed) for _ in range(guest_probe.TRIES))
                proved, disproved = (proved | ESP, disproved) if right else (proved, disproved | ESP)
            self._shown(proved, disproved)

    def _shown(self, proved: int, disproved: int) -> None:
        self._proved |= proved
        self._disproved |= disproved
        if self._path is not None:
            self._path.tell_proved(self._proved, self._disproved)

    def _forget(self) -> None:
        life = 0 if self._path is None else self._path.device_life
        if life != self._life:
            self._life = life
            self._proved = self._disproved = 0

    def room(self, size: int) -> Buffer:
        """A buffer for a frame of `size` bytes behind room for a header: the frame is `room[abi.NET_HEADER:]`."""
        return self._memory.allocate(abi.NET_HEADER + size)

    def have_buffers(self) -> None:
        """Posts receive buffers where there are none yet."""
        if not self._posted and not self._arrived:
            self.open(self._buffers, self._frame_size)

    def send_large(self, frames: Iterable[Buffer], segment: int) -> None:
        """Sends TCP or UDP frames of up to 64 KiB, in order; each buffer begins with room for a header. The device
        completes their checksums and cuts them into pieces of `segment` bytes of payload, as far as it may; the rest
        is done here."""
        self.have_buffers()
        self.prove()
        batch: list[Buffer] = []
        for frame in frames:
            offload.fill(frame, segment)
            if offload.Judged(frame).needs & ~self.usable == 0:
                batch.append(frame)
                continue
            self._send_batch(batch)
            batch = []
            self._finish_here(frame)
        self._send_batch(batch)

    def _send_batch(self, frames: Sequence[Buffer]) -> None:
        """What the device refuses because its path has changed meanwhile is finished here, in order."""
        refused: list[Buffer] = []
        if frames:
            self._send(frames, SEND_HEADED, refused)
        for frame in refused:
            self._finish_here(frame)

    def _finish_here(self, frame: Buffer) -> None:
        """The work of the device, in software: finished frames of the MTU, none of which needs anything."""
        judged = offload.Judged(frame)
        capacity = self.transmit.capacity
        if not self._pieces or len(self._pieces[0]) < judged.longest:
            self._pieces = [self._memory.allocate(judged.longest) for _ in range(min(capacity, 64))]
        for first in range(0, judged.pieces, len(self._pieces)):
            count = min(len(self._pieces), judged.pieces - first)
            rooms = [(first + index, self._pieces[index]) for index in range(count)]
            self._send([room[: judged.piece(index, room)] for index, room in rooms], SEND, None)

    # ---- frames ----

    def send(self, frame: Buffer) -> None:
        """Sends one frame from partition memory; returns when the device has taken it."""
        self.send_many([frame])

    def send_headed(self, frames: Sequence[Buffer]) -> None:
        """Sends frames with a header in front, in order, as `pyx.offload.fill` writes it: the device completes
        checksums and cuts large frames for receivers that do not take them as they are."""
        self.send_many(frames, SEND_HEADED)

    def send_many(self, frames: Sequence[Buffer], operation: int = SEND) -> None:
        """Sends frames in order; returns when the device has taken all. RequestError where one is refused."""
        self._send(frames, operation, None)

    def _send(self, frames: Sequence[Buffer], operation: int, refused: list[Buffer] | None) -> None:
        """`refused`: gathers frames that ask for what is withheld, in order, instead of an error."""
        under_way: dict[int, Buffer] = {}
        for frame in frames:
            if self.transmit.in_flight == self.transmit.capacity:
                self.transmit.kick()
                self._sent(under_way, refused)
            under_way[self.transmit.submit(operation, frame)] = frame
        self.transmit.kick()
        while under_way:
            self._sent(under_way, refused)

    def _sent(self, under_way: dict[int, Buffer], refused: list[Buffer] | None) -> None:
        for slot, status, reason, _bytes in self.transmit.wait():
            if slot not in under_way:  # one of a connection
                self.tcp.ended(slot, status, reason, _bytes)
                continue
            frame = under_way.pop(slot)
            if status == REFUSED and reason == WITHHELD and refused is not None:
                refused.append(frame)
            elif status != OK:
                raise RequestError(status, reason, f"{self.name}: send")
            elif reason:
                name = abi.REASON_NAMES[reason]
                self.dropped[name] = self.dropped.get(name, 0) + 1

    def receive(self, timeout: float | None = None) -> Buffer | None:
        """The next frame, in the buffer that it arrived in; None after `timeout` seconds. Give it back with
        `release`, or the NIC runs out of buffers."""
        self.have_buffers()
        if not self._arrived:
            self._arrived = self._received(self.receive_queue.wait(timeout))
            self._arrived.reverse()
        return self._arrived.pop() if self._arrived else None

    def arrived(self) -> list[Buffer]:
        """All frames that are there, in order; does not wait."""
        if not self._posted and not self._arrived:
            self.open(self._buffers, self._frame_size)
        before, self._arrived = self._arrived, []
        return [*reversed(before), *self._received(self.receive_queue.poll())]

    def _received(self, completions: Iterable[tuple[int, int, int, int]]) -> list[Buffer]:
        frames = []
        for slot, status, reason, length in completions:
            buffer = self._posted.pop(slot)
            if status != OK:
                raise RequestError(status, reason, f"{self.name}: receive")
            frames.append(buffer[:length])
        return frames

    def put_back(self, frames: Sequence[Buffer]) -> None:
        """Received frames that are to be received again, before all others."""
        self._arrived.extend(reversed(frames))

    def release(self, *frames: Buffer) -> None:
        """Posts the buffers of received frames again."""
        self._post([frame.whole for frame in frames])

    def _post(self, buffers: Sequence[Buffer]) -> None:
        operation = RECEIVE_HEADED if self._headed else RECEIVE
        for buffer in buffers:
            self._posted[self.receive_queue.submit(operation, buffer)] = buffer
        self.receive_queue.kick()

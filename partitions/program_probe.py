"""Probe frames of an unmodified program's NICs: the thread that moves its frames shows what was granted, while the
program's kernel uses it, and once more of each process that follows the device's (A2)."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from partitions import guest_probe
from partitions.guest_nic import SEND, SEND_HEADED
from pyx import abi
from pyx.memory import Buffer, Memory
from pyx.tap_link import Link
from pyx.tap_pump import TapPump

PROVABLE = sum(abi.OFFLOADS[name] for name in guest_probe.PROBES)


class Prover:
    """`macs`: addresses of the links."""

    def __init__(self, memory: Memory, macs: dict[Link, bytes]) -> None:
        self._memory = memory
        self._macs = macs

    def __call__(self, pump: TapPump, link: Link, wanted: int) -> int:
        """Bits that were shown, either way."""
        try:
            proved, disproved, _lost = guest_probe.prove(
                _Driver(pump, link, self._macs[link]), self._memory, wanted, True
            )
            link.tell(proved, disproved)
            return proved | disproved
        except MemoryError as error:  # what is not shown is not disproved
            print(f"offloads are not tried: {error}", file=sys.stderr, flush=True)
            return 0


class _Driver:
    """What guest_probe uses of a driver."""

    def __init__(self, pump: TapPump, link: Link, mac: bytes) -> None:
        self._pump = pump
        self._link = link
        self.mac = mac

    @property
    def granted(self) -> int:
        return self._link.grants

    def send_many(self, frames: Sequence[Buffer], operation: int = SEND) -> None:
        for frame in frames:
            self._pump.send(self._link, operation, bytes(frame), guest_probe.SECONDS)

    def send_headed(self, frames: Sequence[Buffer]) -> None:
        self.send_many(frames, SEND_HEADED)

    def receive(self, timeout: float) -> bytes | None:
        return self._pump.back(self._link, timeout)

    def release(self, *frames: bytes) -> None:
        """The buffers are posted again already."""

    def put_back(self, frames: Sequence[bytes]) -> None:
        """Frames to the other probe address, which nobody waits for any more."""

"""Frames whose payload both the guest and the test can make from a seed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from frames import frame
from puppet import Puppet


def open(puppet: Puppet, nic: str, buffers: int = 64, size: int = 2048) -> str:
    """Posts receive buffers; the NIC's address."""
    device = puppet.guest.nic(nic)
    device.open(buffers, size)
    return device.mac.hex()


def send(puppet: Puppet, nic: str, to: str, frames: Sequence[tuple[int, int]], source: str = "") -> dict[str, int]:
    """Sends frames of (size, seed) to the address `to`; what the switch dropped, by reason."""
    device = puppet.guest.nic(nic)
    sender = bytes.fromhex(source) if source else device.mac
    buffers = []
    for size, seed in frames:
        buffer = puppet.guest.memory.allocate(size)
        buffer[:] = frame(bytes.fromhex(to), sender, size, seed)
        buffers.append(buffer)
    before = dict(device.dropped)
    device.send_many(buffers)
    return {reason: count - before.get(reason, 0) for reason, count in device.dropped.items()
            if count != before.get(reason, 0)}


def receive(puppet: Puppet, nic: str, count: int, timeout: float = 5.0) -> list[str]:
    """SHA-256 of the next `count` frames; fewer where nothing comes for `timeout` seconds."""
    device = puppet.guest.nic(nic)
    digests = []
    while len(digests) < count and (found := device.receive(timeout)) is not None:
        digests.append(hashlib.sha256(found).hexdigest())
        device.release(found)
    return digests

"""Load without the interpreter lock, as benchmarks make it: deep queues, nothing compared."""

from __future__ import annotations

from typing import Any

from puppet import Puppet

from pyx import abi
from pyx.disk_load import DiskLoad
from pyx.frame_load import FrameSender


def disk(puppet: Puppet, disk: str, depth: int, seconds: float, operation: str = "read", block: int = 4096) -> Any:
    device = puppet.guest.disk(disk)
    buffer = puppet.guest.memory.allocate(depth * block)
    return DiskLoad(device.queue, buffer, device.capacity).run(abi.OPERATIONS[operation], block, depth, seconds)


def send(puppet: Puppet, nic: str, to: str, seconds: float, size: int = 64, depth: int = 128) -> Any:
    device = puppet.guest.nic(nic)
    buffer = puppet.guest.memory.allocate(depth * ((size + 63) // 64 * 64))
    header = bytes.fromhex(to) + device.mac + b"\x88\xb5"
    return FrameSender(device.transmit, buffer, header).run(size, depth, 32, seconds)

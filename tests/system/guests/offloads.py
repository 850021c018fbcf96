"""Frames with a header in front, as the test made them."""

from __future__ import annotations

from collections.abc import Sequence

from puppet import Puppet

from pyx import abi
from pyx.calls import RequestError


def open(puppet: Puppet, nic: str, buffers: int = 64, size: int = 2048, headed: bool = False) -> str:
    """Posts receive buffers; the NIC's address, with colons."""
    device = puppet.guest.nic(nic)
    device.open(buffers, size, headed)
    return device.mac.hex(":")


def send(puppet: Puppet, nic: str, frames: Sequence[str], headed: bool = True) -> dict[str, int]:
    """Sends frames as they are, header included; what the switch dropped so far, by reason."""
    device = puppet.guest.nic(nic)
    buffers = []
    for text in frames:
        content = bytes.fromhex(text)
        buffer = puppet.guest.memory.allocate(len(content))
        buffer[:] = content
        buffers.append(buffer)
    device.send_many(buffers, abi.OPERATIONS["send_headed" if headed else "send"])
    return device.dropped


def attempt(puppet: Puppet, nic: str, raw: str) -> str:
    """Sends a frame; the reason why it is refused, "" where it is not."""
    try:
        send(puppet, nic, [raw], headed=False)
    except RequestError as error:
        return error.reason
    return ""


def receive(puppet: Puppet, nic: str, count: int, timeout: float = 5.0) -> list[str]:
    """The next `count` frames, header included where they have one; fewer where nothing comes for `timeout` seconds."""
    device = puppet.guest.nic(nic)
    found = []
    while len(found) < count and (frame := device.receive(timeout)) is not None:
        found.append(bytes(frame).hex())
        device.release(frame)
    return found


def send_large(puppet: Puppet, nic: str, frames: Sequence[str], segment: int) -> dict[str, int]:
    """Sends frames through the driver, which finishes what the device may not; the header's room is the driver's."""
    device = puppet.guest.nic(nic)
    buffers = []
    for text in frames:
        content = bytes.fromhex(text)
        buffers.append(device.room(len(content)))
        buffers[-1][abi.NET_HEADER :] = content
    device.send_large(buffers, segment)
    return device.dropped


def prove(puppet: Puppet, nic: str) -> dict[str, dict]:
    """What the driver was granted, who withholds the rest, and what probe frames showed."""
    device = puppet.guest.nic(nic)
    device.prove()
    return device.capabilities()


def follow(puppet: Puppet, nic: str, path: str) -> None:
    """Serves an endpoint until it is on `path`."""
    while puppet.guest.paths[nic].path != path:
        puppet.guest.nic(nic).transmit.wait(0.01)
        puppet.guest.paths[nic].follow()

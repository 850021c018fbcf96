"""Load that checks itself: what a bystander does while the test does something to others."""

from __future__ import annotations

import random
import time
from typing import Any

from puppet import Puppet

BLOCK = 8192
FRAMES = 8
FRAME = 1514
_opened: set[str] = set()  # NICs with their buffers posted: this guest may be told to work again


def verified(puppet: Puppet, seed: int, most: int = 1 << 60, pause: float = 0.0) -> dict[str, Any]:
    """Random blocks to the disk and back, frames from one NIC to the other, each byte compared: `most` rounds, or
    until the test wants the end, with `pause` seconds between two. Needs disk `vda` and NICs `eth0` and `eth1`."""
    guest, generator = puppet.guest, random.Random(seed)
    disk, sender, receiver = guest.disk("vda"), guest.nic("eth0"), guest.nic("eth1")
    if receiver.name not in _opened:
        receiver.open(buffers=4 * FRAMES, frame_size=2048)
        _opened.add(receiver.name)
    out, back = guest.memory.allocate(BLOCK + 4096), guest.memory.allocate(BLOCK + 4096)
    frames = [guest.memory.allocate(FRAME) for _ in range(FRAMES)]
    rounds, longest = 0, 0.0
    while rounds < most and not puppet.wanted():
        begin = time.monotonic()
        shift, offset = generator.randrange(4096), 512 * generator.randrange((disk.capacity - BLOCK) // 512 + 1)
        data = generator.randbytes(BLOCK)
        out[shift : shift + BLOCK] = data
        disk.write_from(out[shift : shift + BLOCK], offset)
        disk.read_into(back[4095 - shift : 4095 - shift + BLOCK], offset)
        assert bytes(back[4095 - shift : 4095 - shift + BLOCK]) == data, f"round {rounds}: other bytes on the disk"
        contents = [receiver.mac + sender.mac + b"\x88\xb5" + generator.randbytes(FRAME - 14) for _ in frames]
        for frame, content in zip(frames, contents, strict=True):
            frame[:] = content
        sender.send_many(frames)
        for content in contents:
            arrived = receiver.receive(timeout=5.0)
            assert arrived is not None, f"round {rounds}: a frame was lost; dropped {sender.dropped}"
            assert bytes(arrived) == content, f"round {rounds}: another frame than was sent"
            receiver.release(arrived)
        rounds += 1
        longest = max(longest, time.monotonic() - begin)
        if pause:
            time.sleep(pause)
    return {"rounds": rounds, "longest": longest, "dropped": sender.dropped}


def blocks(puppet: Puppet, seed: int, disk: str = "vda") -> dict[str, Any]:
    """Random blocks to one disk and back, each byte compared, until the test wants the end."""
    target, generator = puppet.guest.disk(disk), random.Random(seed)
    out, back = puppet.guest.memory.allocate(BLOCK), puppet.guest.memory.allocate(BLOCK)
    rounds = 0
    while not puppet.wanted():
        offset, data = 512 * generator.randrange((target.capacity - BLOCK) // 512 + 1), generator.randbytes(BLOCK)
        out[:] = data
        target.write_from(out, offset)
        target.read_into(back, offset)
        assert bytes(back) == data, f"round {rounds}: other bytes on the disk"
        rounds += 1
    return {"rounds": rounds}

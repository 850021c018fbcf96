"""Flows of stamped frames between NICs with several queue pairs: each frame says which one of its flow it is."""

from __future__ import annotations

import random
import struct
import time
from typing import Any

from puppet import Puppet

STAMP = struct.Struct("<II")  # flow, number
FLOWS = 24
BATCH = 32
PORT = 5000  # the first flow's


def open(puppet: Puppet, nic: str, buffers: int = 64) -> str:
    """Posts receive buffers; the NIC's address."""
    device = puppet.guest.nic(nic)
    device.open(buffers, 256)
    return device.mac.hex()


def content(to: bytes, source: bytes, flow: int, number: int) -> bytes:
    """A UDP frame over IPv4 of a flow of its own; without a checksum, which UDP may lack."""
    payload = STAMP.pack(flow, number)
    udp = struct.pack(">HHHH", PORT + flow, PORT, 8 + len(payload), 0) + payload
    addresses = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, *addresses)
    return to + source + b"\x08\x00" + ip + udp


def send(puppet: Puppet, nic: str, peer: str, seed: int) -> dict[str, Any]:
    """Sends frames of all flows until the test wants the end: how many of each, and by each pair."""
    device, generator, to = puppet.guest.nic(nic), random.Random(seed), bytes.fromhex(peer)
    queues = [pair.transmit for pair in getattr(device, "pairs", [device])]
    begin = [queue.completed for queue in queues]
    buffers = [puppet.guest.memory.allocate(64) for _ in range(BATCH)]
    sent = [0] * FLOWS
    while not puppet.wanted():
        batch = []
        for buffer in buffers:
            flow = generator.randrange(FLOWS)
            frame = content(to, device.mac, flow, sent[flow])
            buffer[: len(frame)] = frame
            batch.append(buffer[: len(frame)])
            sent[flow] += 1
        device.send_many(batch)
    given = [queue.completed - before for queue, before in zip(queues, begin, strict=True)]
    return {"sent": sent, "given": given, "dropped": device.dropped}


def receive(puppet: Puppet, nic: str, seed: int) -> dict[str, Any]:
    """Takes frames until the test wants the end and none comes any more. Now and then it looks away, so that all pairs
    have frames when it looks again. `next`: of each flow; `disordered`: frames that were not the next of theirs."""
    device, generator = puppet.guest.nic(nic), random.Random(seed)
    pairs = getattr(device, "pairs", [device])
    following, disordered = [0] * FLOWS, 0
    begin = [pair.receive_queue.completed for pair in pairs]
    while True:
        if generator.random() < 0.01:
            time.sleep(generator.random() * 0.01)
        frame = device.receive(0.3 if puppet.wanted() else 0.05)
        if frame is None:
            if puppet.wanted():
                break
            continue
        flow, number = STAMP.unpack_from(frame, 42)
        disordered += number != following[flow]
        following[flow] = number + 1
        device.release(frame)
    taken = [pair.receive_queue.completed - before for pair, before in zip(pairs, begin, strict=True)]
    return {"next": following, "disordered": disordered, "taken": taken}


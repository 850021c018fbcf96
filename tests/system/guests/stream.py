"""The checked stream and the checked blocks (partitions/load_stream.py), as calls of a test."""

from __future__ import annotations

import time
from typing import Any

from puppet import Puppet

from partitions.load_stream import Store, Stream

_streams: dict[str, Stream] = {}


def open(puppet: Puppet, nic: str) -> str:
    """Posts the receive buffers; the NIC's address."""
    _streams[nic] = Stream(puppet.guest, nic)
    return _streams[nic].nic.mac.hex()


def run(puppet: Puppet, nic: str, peer: str, disk: str = "") -> dict[str, Any]:
    """Sends to and receives from `peer` until the test wants the end. With `disk`, a block goes to it and back every
    few batches. `slowest`: seconds of the longest of each step."""
    stream, store = _streams[nic], Store(puppet.guest, disk) if disk else None
    address = bytes.fromhex(peer)
    rounds = 0
    slowest = {"send": 0.0, "take": 0.0, "store": 0.0}
    stream.last = time.monotonic()

    def since(begin: float, step: str) -> float:
        now = time.monotonic()
        slowest[step] = max(slowest[step], now - begin)
        return now

    while not puppet.wanted():
        begin = time.monotonic()
        count = stream.send(address)
        begin = since(begin, "send")
        stream.take(0.0 if count else 0.002)
        begin = since(begin, "take")
        rounds += 1
        if store and rounds % 4 == 0:
            store.round_trip()
            since(begin, "store")
    return stream.result() | {"blocks": store.blocks if store else 0, "slowest": slowest}


def drain(_puppet: Puppet, nic: str, count: int, timeout: float = 5.0) -> dict[str, Any]:
    """Receives until `count` frames of the peer have come, which sends no more, or none for `timeout` seconds."""
    stream = _streams[nic]
    end = time.monotonic() + timeout
    while stream.received < count and time.monotonic() < end:
        before = stream.received
        stream.take(0.05)
        if stream.received != before:
            end = time.monotonic() + timeout
    stream.take(0.02)  # what should not be there
    return stream.result()


def blocks(puppet: Puppet, disk: str) -> int:
    """Blocks to a disk and back until the test wants the end; how many."""
    store = Store(puppet.guest, disk)
    while store.blocks == 0 or not puppet.wanted():
        store.round_trip()
    return store.blocks

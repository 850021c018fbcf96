"""Disk I/O with data that both the guest and the test can make from a seed."""

from __future__ import annotations

import hashlib
import random
import time
from typing import Any

from puppet import Puppet

GUARD = 4096  # bytes of pattern around a buffer, in which nothing may change
PATTERN = 0x5A


def write(puppet: Puppet, disk: str, length: int, seed: int, offset: int = 0, shift: int = 0) -> None:
    """Writes `length` bytes of `seed` from a buffer that begins `shift` bytes after a page border."""
    target = puppet.guest.disk(disk)
    whole = puppet.guest.memory.allocate(shift + length)
    data = whole[shift:]
    data[:] = random.Random(seed).randbytes(length)
    target.write_from(data, offset)
    target.flush()


def read(puppet: Puppet, disk: str, length: int, seed: int, offset: int = 0, shift: int = 0) -> None:
    """Reads into a buffer `shift` bytes after a page border; compares with `seed`, and the surroundings with what
    they were."""
    whole = puppet.guest.memory.allocate(GUARD + shift + length + GUARD)
    memoryview(whole)[:] = bytes([PATTERN]) * len(whole)
    first = GUARD + shift
    puppet.guest.disk(disk).read_into(whole[first : first + length], offset)
    found = bytes(whole)
    assert found[first : first + length] == random.Random(seed).randbytes(length), "read other bytes than were written"
    assert set(found[:first] + found[first + length :]) == {PATTERN}, "bytes beside the buffer have changed"


def poll(puppet: Puppet, disk: str, requests: int) -> int:
    """Reads with a deep queue and never sleeps; returns how many went well."""
    from partitions.guest_devices import OK, READ

    target = puppet.guest.disk(disk)
    buffer, well, asked = puppet.guest.memory.allocate(4096), 0, 0
    while asked < requests or target.queue.in_flight:
        while asked < requests and target.queue.in_flight < 64:
            target.queue.submit(READ, buffer, 0)
            asked += 1
        target.queue.kick()
        well += sum(status == OK for _, status, _, _ in target.queue.wait(0))
    return well


def facts(puppet: Puppet, disk: str) -> dict[str, Any]:
    """What the driver knows of the disk."""
    found = puppet.guest.disk(disk)
    return {"size": found.capacity, "read_only": found.read_only, "transfer_max": found.transfer_max}


def grown(puppet: Puppet, disk: str, timeout: float) -> int | None:
    """The capacity that the guest is told of, once it is another one."""
    return puppet.guest.disk(disk).grown(timeout)


def attempt(puppet: Puppet, disk: str, operation: str, offset: int, length: int) -> list[str]:
    """[status, reason] of one transfer, as the driver raises it; [] where it went well."""
    from partitions.guest import RequestError

    target = puppet.guest.disk(disk)
    buffer = puppet.guest.memory.allocate(length)
    try:
        (target.read_into if operation == "read" else target.write_from)(buffer, offset)
    except RequestError as error:
        return [error.status, error.reason]
    return []


def clear(puppet: Puppet, disk: str, operation: str, offset: int, length: int, **options: Any) -> list[str]:
    """[status, reason] of a discard or write zeroes, as the driver raises it; [] where it went well."""
    from partitions.guest import RequestError

    try:
        getattr(puppet.guest.disk(disk), operation)(offset, length, **options)
    except RequestError as error:
        return [error.status, error.reason]
    return []


def write_durable(puppet: Puppet, disk: str, length: int, seed: int, offset: int = 0) -> None:
    """Writes with forced unit access, and no flush."""
    data = puppet.guest.memory.allocate(length)
    data[:] = random.Random(seed).randbytes(length)
    puppet.guest.disk(disk).write_from(data, offset, fua=True)


def fill(puppet: Puppet, disk: str, length: int) -> None:
    """Writes that much and does not flush."""
    target, buffer = puppet.guest.disk(disk), puppet.guest.memory.allocate(1 << 20)
    memoryview(buffer)[:] = bytes([PATTERN]) * len(buffer)
    for offset in range(0, length, len(buffer)):
        target.write_from(buffer, offset)
    puppet.guest.memory.free(buffer.gpa, buffer.length)


def timed_flush(puppet: Puppet, disk: str) -> float:
    """Seconds of one flush."""
    begin = time.monotonic()
    puppet.guest.disk(disk).flush()
    return time.monotonic() - begin


def overtaken(puppet: Puppet, disk: str, block: int, byte: int) -> int:
    """Writes everything for the first time, `block` bytes at a time full of `byte`, and reads the ends of them without
    waiting for the writes: how many reads found anything else than `byte` and zeroes."""
    from partitions.guest_devices import READ, WRITE

    target = puppet.guest.disk(disk)
    data, found, others = puppet.guest.memory.allocate(block), puppet.guest.memory.allocate(GUARD), 0
    memoryview(data)[:] = bytes([byte]) * block
    for offset in range(0, target.capacity, block):
        target.queue.submit(WRITE, data, offset)
        target.queue.submit(READ, found, offset + block - GUARD)
        target.queue.kick()
        while target.queue.in_flight:
            target.queue.wait()
        others += not set(bytes(found)) <= {0, byte}
    return others


def longest_read(puppet: Puppet, disk: str) -> float:
    """Seconds of the slowest of many small reads, until the test wants the end."""
    target, buffer, longest = puppet.guest.disk(disk), puppet.guest.memory.allocate(4096), 0.0
    while not puppet.wanted():
        begin = time.monotonic()
        target.read_into(buffer, 0)
        longest = max(longest, time.monotonic() - begin)
    return longest


def round_trips(puppet: Puppet, disk: str, count: int) -> list[float]:
    """Seconds of so many small reads, one after the other."""
    target, buffer, times = puppet.guest.disk(disk), puppet.guest.memory.allocate(4096), []
    for _ in range(count):
        begin = time.monotonic()
        target.read_into(buffer, 0)
        times.append(time.monotonic() - begin)
    return times


def digest(puppet: Puppet, disk: str) -> str:
    """SHA-256 of all that is on the disk."""
    target, buffer, found = puppet.guest.disk(disk), puppet.guest.memory.allocate(1 << 20), hashlib.sha256()
    for offset in range(0, target.capacity, len(buffer)):
        target.read_into(buffer, offset)
        found.update(bytes(buffer))
    return found.hexdigest()


def flushed_rounds(puppet: Puppet, disk: str, block: int, seed: int) -> None:
    """Writes the disk from its beginning to its end, and flushes after each block."""
    target, buffer = puppet.guest.disk(disk), puppet.guest.memory.allocate(block)
    for number in range(target.capacity // block):
        buffer[:] = random.Random(f"{seed} {number}").randbytes(block)
        target.write_from(buffer, number * block)
        target.flush()

"""Guests of the benchmarks: load generators over the driver library that users' guests use.

Each takes one argument, a JSON object, and reports what it did and what it verified. `runs` repeats the
measurement with a line of silence between the runs, so that one start of a host serves several samples.
"""

from __future__ import annotations

import json
from typing import Any

from partitions.guest import Guest
from pyx import abi, load

BUFFER = 8 << 20  # bytes of partition memory for requests in flight


def settings(guest: Guest) -> dict[str, Any]:
    return json.loads(guest.arguments[0])


def disk(guest: Guest) -> None:
    """Closed loop of reads or writes; then lone requests one after the other."""
    given = settings(guest)
    vda = guest.disk("vda")
    buffer = guest.memory.allocate(max(given["depth"] * given["block"], given["block"]))
    operation = abi.OPERATIONS[given["op"]]
    for number in range(given["runs"]):
        result = load.disk_load(
            vda.queue, buffer, operation, given["block"], given["depth"], vda.size, given["seconds"], seed=number + 1
        )
        guest.report(role="disk", run=number, **result)
    if given["round_trips"]:
        times = sorted(load.round_trips(vda.queue, buffer, operation, given["block"], vda.size, given["round_trips"]))
        guest.report(role="round_trip", **quantiles(times))


def send(guest: Guest) -> None:
    """Sends frames to the receiver whose address is given, in `runs` bursts of `seconds`."""
    given = settings(guest)
    nic = guest.nic("eth0")
    buffer = guest.memory.allocate(nic.transmit.capacity * frame_stride(given["size"]))
    header = bytes.fromhex(given["to"].replace(":", "")) + nic.mac + b"\x88\xb5"
    sent = 0
    for number in range(given["runs"]):
        result = load.send_load(
            nic.transmit, buffer, header, given["size"], given["depth"], given["batch"], given["seconds"], sent
        )
        sent += result["frames"]
        guest.report(role="send", run=number, **result)


def send_alone(guest: Guest) -> None:
    """Lone frames, each sent when the one before has completed."""
    given = settings(guest)
    nic = guest.nic("eth0")
    buffer = guest.memory.allocate(frame_stride(given["size"]))
    buffer[:14] = bytes.fromhex(given["to"].replace(":", "")) + nic.mac + b"\x88\xb5"
    size = given["size"]
    times = load.round_trips(nic.transmit, buffer, abi.OPERATIONS["send"], size, 0, given["count"])
    guest.report(role="round_trip", **quantiles(sorted(times)))


def receive(guest: Guest) -> None:
    """Receives until nothing comes for `quiet` seconds; every frame's sequence and check words are verified."""
    given = settings(guest)
    nic = guest.nic("eth0")
    buffer = guest.memory.allocate(nic.receive_queue.capacity * frame_stride(given["size"]))
    result = load.receive_load(nic.receive_queue, buffer, given["size"], given["quiet"])
    guest.report(role="receive", **result)


def prepare(guest: Guest) -> None:
    """Fills the disk once, so that reads find data and the page cache holds it."""
    vda = guest.disk("vda")
    buffer = guest.memory.allocate(1 << 20)
    buffer[:] = bytes(range(256)) * 4096
    for offset in range(0, vda.size, len(buffer)):
        vda.write_from(buffer[: min(len(buffer), vda.size - offset)], offset)
    vda.flush()
    for offset in range(0, vda.size, len(buffer)):
        vda.read_into(buffer[: min(len(buffer), vda.size - offset)], offset)


def idle(guest: Guest) -> None:
    """Opens its endpoints, does one request on each, and then nothing."""
    vda = guest.disk("vda")
    buffer = guest.memory.allocate(4096)
    vda.read_into(buffer, 0)
    guest.nic("eth0").receive(0)
    guest.sleep()


def frame_stride(size: int) -> int:
    """Frames lie on cache lines of their own."""
    return (size + 63) // 64 * 64


def quantiles(times: list[float]) -> dict[str, float]:
    return {name: times[int(len(times) * share)] for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))}

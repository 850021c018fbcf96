"""Load on one configuration of endpoints: guests that stay, and windows of traffic through them.

A `Window` is what one window showed. Both kinds of load stop a benchmark whose work was wrong: a figure without the
work behind it is no result.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field
from typing import Any

import click

from partitions.load import ETHERTYPE, frame_stride
from tools.bench.crew import Command, Crew, together
from tools.measure import processor_time
from tools.measure.histogram import Histogram

MIB = 1 << 20
SETTLE = 0.25  # of a window: processor time is counted over what is left in its middle


@dataclass
class Window:
    """One window: `latency` counts from the intended time of each request (a frame's until it has arrived),
    `cpu` is in processor seconds per second by role, `behind` and `dropped` are of open loops."""

    requests: int
    bytes: int
    rate: float
    latency: Histogram | None = None
    completion: Histogram | None = None
    behind: int = 0
    dropped: int = 0
    burned: float = 0.0  # seconds of a planted slowdown, of all generators
    cpu: dict[str, float] = field(default_factory=dict)

    @property
    def throughput(self) -> float:
        """Bytes a second."""
        return self.rate * self.bytes / self.requests

    @property
    def cpu_per_byte(self) -> dict[str, float]:
        """Processor seconds per payload byte, by role."""
        return {role: share / self.throughput for role, share in self.cpu.items()}


class ProcessorTime:
    """Reads the processor time of a host's roles over the middle of a window."""

    def __init__(self, crew: Crew) -> None:
        self._processes = crew.host.processes()
        self.shares: dict[str, float] = {}

    def watch(self, start: float, seconds: float) -> None:
        """To be called while the window runs; returns before its end."""
        _sleep_until(start + seconds * SETTLE)
        begin, before = time.monotonic(), processor_time.by_role(self._processes)
        _sleep_until(start + seconds * (1 - SETTLE / 2))
        taken, after = time.monotonic() - begin, processor_time.by_role(self._processes)
        self.shares = {role: (after[role] - before[role]) / taken for role in after}


class DiskLoads:
    """`guests` guests with a disk each of `size` bytes; several share a `file`, and then only read."""

    numbers = itertools.count()

    def __init__(
        self, crew: Crew, path: str, size: int, in_flight: int, file: str | None = None, guests: int = 1
    ) -> None:
        self.crew = crew
        self.names = [f"load{next(self.numbers)}" for _ in range(guests)]
        self.guests = []
        for number, name in enumerate(self.names):
            disk = {"name": "vda", "size": size, **on_path(path), **({} if file is None else {"file": file})}
            disk["read_only"] = file is not None and guests > 1
            guest = crew.start(name, in_flight + MIB, disks=[disk])
            guest.call("open_disk", bytes_in_flight=in_flight, seed=number + 1)
            self.guests.append(guest)

    def window(
        self, seconds: float, *, cpu: bool = False, rate: float = 0, depth: int = 1, active: int = 0,
        timed: bool = False, **given: Any,
    ) -> Window:  # fmt: skip
        """`depth` and `rate` are those of each of the first `active` guests (0: all); `given`: op, block, slowdown."""
        guests = self.guests[: active or len(self.guests)]
        commands: list[Command] = [
            (guest, "disk", {**given, "depth": depth, "rate": rate, "timed": timed or rate > 0}) for guest in guests
        ]
        meter = ProcessorTime(self.crew) if cpu else None
        reports = together([], commands, seconds, meter.watch if meter else None)
        _refuse({name: sum(report[name] for report in reports) for name in ("errors", "unanswered")})
        requests = sum(report["requests"] for report in reports)
        latency = Histogram(report["latency"] for report in reports if "latency" in report)
        return Window(
            requests=requests,
            bytes=sum(report["bytes"] for report in reports),
            rate=sum(report["requests"] / report["seconds"] for report in reports),
            latency=latency if latency.count else None,
            behind=sum(report["behind"] for report in reports),
            burned=sum(report["burned"] for report in reports),
            cpu=meter.shares if meter else {},
        )

    def dismiss(self) -> None:
        self.crew.dismiss(*self.names)


class NetLoads:
    """Sending guests, and receiving ones: sender number n sends to receiver n modulo their number."""

    numbers = itertools.count()

    def __init__(
        self, crew: Crew, path: str, size: int, senders: int = 1, receivers: int = 1, behind: bytes = ETHERTYPE,
        receive: str = "",
    ) -> None:  # fmt: skip
        """For frames of at most `size` bytes; `behind`: what stands in them behind both addresses; `receive`: path of
        the receivers, where it is another one."""
        self.crew = crew
        memory = 512 * frame_stride(size) + 2 * MIB
        macs = []
        self.receivers, self.senders = [], []
        for _ in range(receivers):
            number = next(self.numbers)
            macs.append(f"02:50:56:01:{number >> 8:02x}:{number & 255:02x}")
            nic = {"name": "eth0", "mac": macs[-1], **on_path(receive or path)}
            self.receivers.append(crew.start(f"receiver{number}", memory, nics=[nic]))
            self.receivers[-1].call("open_receiver", size=size, header=12 + len(behind))
        for index in range(senders):
            guest = crew.start(f"sender{next(self.numbers)}", memory, nics=[{"name": "eth0", **on_path(path)}])
            guest.call("open_sender", size=size, to=macs[index % receivers], number=index, behind=behind.hex())
            self.senders.append(guest)

    def window(
        self, seconds: float, *, size: int, depth: int, batch: int, cpu: bool = False, rate: float = 0,
        active: int = 0, timed: bool = False, drops_allowed: bool = False, slowdown: float = -1,
    ) -> Window:  # fmt: skip
        """`depth` and `rate` are those of each of the first `active` senders (0: all). Frames that arrived."""
        senders = self.senders[: active or len(self.senders)]
        clients = [len(senders[index :: len(self.receivers)]) for index in range(len(self.receivers))]
        timed = timed or rate > 0
        waiting: list[Command] = [
            (guest, "receive", {"size": size, "senders": count, "timed": timed, "patience": seconds + 5})
            for guest, count in zip(self.receivers, clients, strict=True)
            if count
        ]
        given = {"size": size, "depth": depth, "batch": batch, "rate": rate, "timed": timed, "slowdown": slowdown}
        working: list[Command] = [(guest, "send", given) for guest in senders]
        meter = ProcessorTime(self.crew) if cpu else None
        reports = together(waiting, working, seconds, meter.watch if meter else None)
        received, sent = reports[: len(waiting)], reports[len(waiting) :]
        check(sent, received, drops_allowed)
        # What a planted slowdown burns is the time of the sender.
        counted = received if slowdown < 0 else sent
        frames = sum(report["frames"] for report in received)
        return Window(
            requests=frames,
            bytes=sum(report["bytes"] for report in received),
            rate=sum(report["frames"] / report["seconds"] for report in counted if report["frames"] > 1),
            latency=_merged(received),
            completion=_merged(sent),
            behind=sum(report["behind"] for report in sent),
            burned=sum(report["burned"] for report in sent),
            dropped=sum(report["dropped"] for report in sent),
            cpu=meter.shares if meter else {},
        )

    def dismiss(self) -> None:
        self.crew.dismiss(*(guest.name for guest in (*self.senders, *self.receivers)))


def on_path(path: str) -> dict[str, str]:
    """The part of an endpoint's specification that names its path."""
    return {"path": path}


def check(sent: list[dict[str, Any]], received: list[dict[str, Any]], drops_allowed: bool) -> None:
    """Every frame that its sender was told to have arrived did, once, in order, unharmed."""
    names = ("reordered", "corrupt", "errors", "unfinished")
    faults = {name: sum(report[name] for report in received) for name in names}
    faults["unanswered"] = sum(report["unanswered"] + (not report["finished"]) for report in sent)
    faults["refused"] = sum(report["errors"] for report in sent)
    dropped = sum(report["dropped"] for report in sent)
    missing = sum(report["frames"] for report in sent) - dropped - sum(report["frames"] for report in received)
    _refuse({**faults, "frames that did not arrive": missing})
    if dropped and not drops_allowed:
        raise click.ClickException(f"{dropped} frames were dropped: a receiver was held up for too long; run again")


def _refuse(faults: dict[str, int]) -> None:
    if any(faults.values()):
        found = ", ".join(f"{name} {count}" for name, count in faults.items() if count)
        raise click.ClickException(f"the work of the load was wrong: {found}")


def _merged(reports: list[dict[str, Any]]) -> Histogram | None:
    histogram = Histogram(report["latency"] for report in reports if "latency" in report)
    return histogram if histogram.count else None


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))

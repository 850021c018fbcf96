"""hostctl bench disk: a guest's disk through all processes, against the bare file and fio."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from tools.bench import fio, flags
from tools.bench.crew import Crew, crew
from tools.bench.host import MEDIA, WITH_FILES, BenchHost, bench_host, disk_files
from tools.bench.loads import MIB, DiskLoads, Window
from tools.bench.results import (
    LOAD,
    Kept,
    Shared,
    cpu_cases,
    host_cases,
    latency_cases,
    window_of,
)
from tools.measure.command import Run, benchmark
from tools.measure.turns import Case, Measure

SECONDS = 20.0
SIZE = 64 << 20  # of the disk: it stays in the page cache
FILE = "bench.img"
SETTLED = 1.0  # seconds of writes until data threads are of the class that hostd gives them then (hostd.kernel_work)
CAPACITY = 256  # of a disk's queue: what an open loop may have in flight


@benchmark(seconds=SECONDS)
@flags.path()
@flags.block()
@click.option("--depth", type=click.IntRange(1, CAPACITY), default=32, show_default=True, help="Requests in flight.")
@flags.op()
@click.option(
    "--access",
    type=click.Choice(["random", "sequential"]),
    default="random",
    show_default=True,
    help="Order of the blocks.",
)
@click.option(
    "--medium",
    type=click.Choice(MEDIA),
    default="file",
    show_default=True,
    help="A file of the state folder's file system in its page cache, one of a tmpfs, the file without the cache "
    "(O_DIRECT), a virtual disk of a volume, nothing at all, or memory of the device.",
)
@flags.rate()
def command(
    run: Run, path: str, block: int, depth: int, op: str, access: str, medium: str, rate: float | None
) -> None:  # fmt: skip
    """Measure requests of one guest: `iops` and `throughput` with `depth` in flight, `round_trip` of a lone one.

    `latency` is that of an open loop, counted from the intended time of each request; `cpu_per_byte` counts the
    processor time of all processes of the host and its guests; `notifications` are wake-ups for each request, at most.

    A volume is compared with a plain file of another host, through the same processes; `null` and `ram` with nothing.
    Otherwise the baseline is the better of fio's psync and io_uring with the same depth, where fio is installed, or one
    thread that reads or writes the bare file. All work on the same file, in turn.
    """
    parameters: dict[str, Any] = {
        "path": path,
        "block": block,
        "depth": depth,
        "op": op,
        "access": access,
        "medium": medium,
    }
    window = window_of(run)
    with ExitStack() as hosts:
        setup = set_up(hosts, parameters, window)
        host, guests, load, references, kind = setup.host, setup.guests, setup.load, setup.references, setup.kind
        run.describe(
            **host.describe(), size_bytes=SIZE, page_cache="none" if medium == "direct" else "warm", batch=depth,
            verified="status and length of every completion; content by the tests",
        )  # fmt: skip

        def saturated(seconds: float) -> Window:
            return load.window(seconds, cpu=True, depth=depth, **kind)

        asked = rate or round(LOAD * load.window(window, depth=depth, **kind).rate)
        closed = Shared(saturated)
        opened = Shared(lambda seconds: load.window(seconds, depth=CAPACITY, rate=asked, **kind))
        lone = Shared(lambda seconds: load.window(seconds, depth=1, timed=True, **kind))
        best = max(references, key=lambda name: references[name](window), default=None)
        base = Kept(references[best]) if best else None
        run.in_turn(
            [
                Case("iops", "requests/s", closed.first(lambda w: w.rate), parameters, best,
                     base.take if base else None, window),
                Case("throughput", "bytes/s", closed.then(lambda w: w.throughput), parameters, best,
                     base.times(block) if base else None),
                *cpu_cases(closed, "disk0", parameters),
                *host_cases(guests, load.guests, saturated, parameters, window),
                Case("round_trip", "seconds", lone.first(lambda w: w.latency.quantile(0.5) if w.latency else 0.0),
                     {**parameters, "depth": 1}, window=window),
                *latency_cases(opened, {**parameters, "depth": CAPACITY, "rate": asked}, window),
                *(Case("reference", "requests/s", measure, {**parameters, "program": name}, window=window)
                  for name, measure in references.items() if name != best),
            ]
        )  # fmt: skip


@dataclass
class Setup:
    """A host of its own with one guest's disk, and what its load is compared with."""

    host: BenchHost
    guests: Crew
    load: DiskLoads
    kind: dict[str, Any]  # of a window of the load
    references: dict[str, Measure]  # requests a second, by what has done them


def set_up(hosts: ExitStack, parameters: dict[str, Any], window: float) -> Setup:
    """`parameters`: path, block, depth, op, access, medium. A volume has all of its blocks at the return."""
    medium, path, depth, block = (parameters[name] for name in ("medium", "path", "depth", "block"))
    kind = {"op": parameters["op"], "block": block, "sequential": parameters["access"] == "sequential"}
    folder = hosts.enter_context(disk_files(medium))
    host = hosts.enter_context(bench_host(folder, medium))
    guests = hosts.enter_context(crew(host))
    if medium in WITH_FILES:
        fill(folder / FILE)
    in_flight = max(depth, CAPACITY) * block
    load = DiskLoads(guests, path, SIZE, in_flight, FILE if medium in WITH_FILES else None)
    references = peers(folder / FILE, parameters) if medium in WITH_FILES else {}
    if medium == "volume":
        write_all(load, window)
        references = {"plain file": plain_file(hosts, path, in_flight, {**kind, "depth": depth}, window)}
    if kind["op"] != "read":
        load.window(SETTLED, depth=depth, **kind)
    return Setup(host, guests, load, kind, references)


def write_all(load: DiskLoads, window: float) -> None:
    """Every block of the disk, by the guest: what lies behind it is allocated then, and in the page cache."""
    load.window(window, op="write", block=1 << 16, depth=8, sequential=True)


def plain_file(hosts: ExitStack, path: str, in_flight: int, given: dict[str, Any], window: float) -> Measure:
    """The same load on a file in the page cache, on a host of its own. It was written like the other disk: the page
    cache keeps what one write brought together, and finds a page the sooner the longer that was."""
    folder = hosts.enter_context(disk_files("file"))
    (folder / FILE).touch()
    os.truncate(folder / FILE, SIZE)
    guests = hosts.enter_context(crew(hosts.enter_context(bench_host(folder, "file"))))
    load = DiskLoads(guests, path, SIZE, in_flight, FILE)
    write_all(load, window)
    return lambda seconds: load.window(seconds, **given).rate


def peers(file: Path, parameters: dict[str, Any]) -> dict[str, Measure]:
    """What the bare file gives, and what fio reaches on it where it is installed; the best of fio is the baseline."""
    block, depth, op = parameters["block"], parameters["depth"], parameters["op"]
    direct = parameters["medium"] == "direct"
    sequential = parameters["access"] == "sequential"
    if not fio.installed():
        return {} if sequential else {"bare file": bare(file, op, block, direct)}
    return {
        f"fio {engine}": fio.rate(file, SIZE, engine, op, block, depth, direct, sequential) for engine in fio.ENGINES
    }


def bare(path: Path, op: str, block: int, direct: bool) -> Measure:
    from pyx.baseline import file_load

    def measure(seconds: float) -> float:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_DIRECT if direct else 0))
        try:
            requests, taken = file_load(file, op == "write", block, SIZE, seconds)
        finally:
            os.close(file)
        return requests / taken

    return measure


def fill(path: Path, size: int = SIZE) -> None:
    """Written once and synced: every block is allocated, clean and in the page cache, for all that read it."""
    with open(path, "wb") as file:
        for _ in range(size // MIB):
            file.write(bytes(range(256)) * (MIB // 256))
        file.flush()
        os.fsync(file.fileno())

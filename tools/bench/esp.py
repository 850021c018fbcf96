"""hostctl bench esp: packets that the NIC device seals for their sender and opens for their receiver."""

from __future__ import annotations

import secrets
from contextlib import ExitStack
from typing import Any

import click

from partitions.guest_probe import UDP, probe_frame
from pyx import esp
from tools.bench.crew import crew
from tools.bench.host import bench_host
from tools.bench.loads import NetLoads
from tools.bench.results import window_of
from tools.measure.command import Run, benchmark
from tools.measure.turns import Case

SECONDS = 15.0
DEPTH, BATCH = 256, 64
HEADERS = 14 + 20  # bytes of a frame that are not sealed
SPI = 0x1000
ENDS = ("192.0.2.1", "192.0.2.2")  # as probe_frame has them
VERIFIED = "sender, sequence and check words of every packet, after it was opened; lost, repeated, corrupt: 0"


@benchmark(seconds=SECONDS)
@click.option("--size", type=click.IntRange(64, 8900), default=1400, show_default=True,
              help="Bytes of a packet that are sealed.")  # fmt: skip
@click.option("--key", type=click.Choice(["128", "192", "256"]), default="128", show_default=True, help="Bits.")
def command(run: Run, size: int, key: str) -> None:
    """Measure `throughput` of bytes that were sealed, sent, opened and verified, in transport mode on the direct path.

    The baseline is AES-GCM of the bare library in one thread, which seals and unseals messages of that size in one
    buffer.
    """
    if esp.missing():
        raise click.ClickException(f"no ESP here: {esp.missing()}")
    length = int(key) // 8
    frame = probe_frame(bytes(6), bytes(6), 4, UDP, 0, bytes(size - 8))
    parameters: dict[str, Any] = {"path": "direct", "size": size, "key": int(key), "depth": DEPTH, "batch": BATCH}
    with ExitStack() as stack:
        host = stack.enter_context(bench_host())
        guests = stack.enter_context(crew(host))
        load = NetLoads(guests, "direct", len(frame), behind=frame[12 : HEADERS + 8])
        secret = secrets.token_hex(length + 4)
        load.senders[0].call("associate", way=["out", SPI, *ENDS], key=secret)
        load.receivers[0].call("associate", way=["in", SPI, *ENDS], key=secret)
        run.describe(**host.describe(), verified=VERIFIED)

        def through(seconds: float) -> float:
            return size * load.window(seconds, size=len(frame), depth=DEPTH, batch=BATCH).rate

        run.in_turn([
            Case("throughput", "bytes/s", through, parameters, "AES-GCM of the bare library",
                 lambda seconds: esp.rate(length, size, seconds, both=True), window_of(run)),
        ])  # fmt: skip

"""hostctl bench net: frames from guest to guest through the switch of the NIC."""

import click

from tools.bench.host import BenchHost, bench_host
from tools.measure.command import Run, benchmark
from tools.measure.turns import Case, Measure

SECONDS = 15.0
WINDOW = 0.5
QUIET = 0.25  # seconds without a frame after which the receiver is done
BATCH = 64
DEPTH = 512
ROUND_TRIPS = 2000
MAC = "02:50:56:00:01:{:02x}"


@benchmark(seconds=SECONDS)
@click.option(
    "--path", type=click.Choice(["redirect"]), default="redirect", show_default=True, help="Path of the data."
)
@click.option("--size", type=click.IntRange(40, 65536), default=64, show_default=True, help="Bytes of a frame.")
@click.option(
    "--guests",
    type=click.IntRange(2, 16),
    default=2,
    show_default=True,
    help="Half of them send, each to a receiver of its own.",
)
def command(run: Run, path: str, size: int, guests: int) -> None:
    """Measure `rate` and `throughput` of frames that arrived, and `round_trip` of a lone send until its completion.

    Every frame's sequence and check words are verified by its receiver; a lost, repeated or corrupt one ends the
    run with an error. The baseline of `throughput` is memcpy of the same blocks in one thread.
    """
    if guests % 2:
        raise click.BadParameter("an even number: senders and receivers in pairs", param_hint="--guests")
    parameters = {"path": path, "size": size, "guests": guests}
    with bench_host() as host:
        run.describe(
            **host.describe(),
            depth=DEPTH,
            batch=BATCH,
            verified="sequence and check words of every frame; lost, repeated, corrupt: 0",
        )
        pairs = Pairs(host, size, guests // 2)
        window = min(WINDOW, run.seconds / 20)
        run.in_turn(
            [
                Case("rate", "frames/s", pairs.rate(1), parameters, window=window),
                Case("throughput", "bytes/s", pairs.rate(size), parameters, "memcpy", copies(size), window),
                Case("round_trip", "seconds", pairs.round_trip, parameters, window=window),
            ]
        )


class Pairs:
    """Senders and receivers, new ones for each sample."""

    def __init__(self, host: BenchHost, size: int, count: int) -> None:
        self.host = host
        self.size = size
        self.count = count

    def _receivers(self) -> list[str]:
        names = [f"receiver{number}" for number in range(self.count)]
        for number, name in enumerate(names):
            given = {"size": self.size, "quiet": QUIET}
            self.host.spawn(name, "partitions.load:receive", given, nics=[{"name": "eth0", "mac": MAC.format(number)}])
        return names

    def rate(self, unit: int) -> Measure:
        def measure(seconds: float) -> float:
            receivers = self._receivers()
            senders = [f"sender{number}" for number in range(self.count)]
            for number, name in enumerate(senders):
                given = {
                    "size": self.size,
                    "depth": DEPTH,
                    "batch": BATCH,
                    "runs": 1,
                    "seconds": seconds,
                    "to": MAC.format(number),
                }
                self.host.spawn(name, "partitions.load:send", given, nics=[{"name": "eth0"}])
            for name in [*senders, *receivers]:
                self.host.finish(name, seconds + 60)
            self.host.remove(*senders, *receivers)
            sent = self.host.reports("send")[-self.count :]
            received = self.host.reports("receive")[-self.count :]
            check(sent, received)
            return sum(report["frames"] * unit / report["seconds"] for report in received)

        return measure

    def round_trip(self, seconds: float) -> float:
        """Median over lone frames: from the send to its completion, through all processes and into the receiver."""
        (receiver, *_) = self._receivers()
        given = {"size": self.size, "count": ROUND_TRIPS, "to": MAC.format(0)}
        self.host.spawn("sender", "partitions.load:send_alone", given, nics=[{"name": "eth0"}])
        self.host.finish("sender", 60)
        names = [f"receiver{number}" for number in range(self.count)]
        self.host.remove("sender", *names)
        return self.host.reports("round_trip")[-1]["p50"]


def check(sent: list[dict], received: list[dict]) -> None:
    """A benchmark whose work is wrong has no result."""
    frames = sum(report["frames"] - report["dropped"] for report in sent)
    arrived = sum(report["frames"] for report in received)
    faults = {name: sum(report[name] for report in received) for name in ("lost", "reordered", "corrupt", "errors")}
    faults["unanswered"] = sum(report["unanswered"] for report in sent)
    dropped = sum(report["dropped"] for report in sent)
    if frames != arrived or any(faults[name] for name in ("reordered", "corrupt", "errors", "unanswered")):
        raise click.ClickException(f"{frames} frames sent, {arrived} arrived, {faults}")
    if dropped:
        raise click.ClickException(f"{dropped} frames were dropped: a receiver was held up for too long; run again")


def copies(size: int) -> Measure:
    from pyx.load import memory_load

    def measure(seconds: float) -> float:
        done, taken = memory_load(size, DEPTH, seconds)
        return done * size / taken

    return measure

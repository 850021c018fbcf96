"""hostctl bench nbd: a partition's disk over NBD against nbdkit on the same file, driven by the same fio job."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from tools.bench import fio, flags
from tools.bench.disk import FILE, SIZE, fill
from tools.bench.host import BenchHost, bench_host, disk_files
from tools.measure.command import Run, benchmark
from tools.measure.turns import Case, Measure

SECONDS = 30.0
WINDOW = 1.5  # seconds of one fio run, or a twentieth of all: a new process each time, so that both sides get the same
SHORTEST = 0.2
START_SECONDS = 10.0
PEER = "nbdkit file"
EXPORTER = "partitions.nbd_export:main"


@benchmark(seconds=SECONDS)
@flags.path(default="direct")
@flags.block()
@click.option("--depth", type=click.IntRange(1, 256), default=32, show_default=True, help="Requests in flight.")
@flags.op()
@click.option("--medium", type=click.Choice(["file", "tmpfs"]), default="file", show_default=True)
def command(run: Run, path: str, block: int, depth: int, op: str, medium: str) -> None:
    """Measure random requests of fio over the NBD export of a partition: `iops` and `throughput`.

    The baseline is nbdkit with its file plugin on the same file, where it is installed. Both sockets are Unix sockets,
    the file lies in the page cache.
    """
    if not fio.installed():
        raise click.ClickException("fio is not installed (package fio): it is what drives both servers")
    parameters: dict[str, Any] = {"path": path, "block": block, "depth": depth, "op": op, "medium": medium}
    with disk_files(medium) as folder, bench_host(folder, medium) as host, peer(folder) as other:
        fill(folder / FILE)
        own = fio_over(export(host, path), op, block, depth)
        base = fio_over(other, op, block, depth) if other else None
        run.describe(**host.describe(), size_bytes=SIZE, page_cache="warm", batch=depth,
                     verified="status of every reply, by fio; content by the tests")  # fmt: skip
        window = min(WINDOW, max(SHORTEST, run.seconds / 20))
        run.in_turn([Case("iops", "requests/s", own, parameters, PEER if base else None, base, window)])


def export(host: BenchHost, path: str) -> str:
    disk = {"name": "vda", "size": SIZE, "file": FILE, "path": path}
    return str(host.spawn("export", EXPORTER, disks=[disk], export_nbd=True)["nbd"])


def fio_over(uri: str, op: str, block: int, depth: int) -> Measure:
    """Requests a second of one fio job over one connection."""

    def measure(seconds: float) -> float:
        command = [
            "fio", "--name=nbd", "--ioengine=nbd", f"--uri={uri}", f"--rw=rand{op}", f"--bs={block}", f"--size={SIZE}",
            f"--iodepth={depth}", "--norandommap", "--time_based", f"--runtime={seconds * 1000:.0f}ms", "--thread",
            "--eta=never", "--output-format=json",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + fio.START_SECONDS)
        if done.returncode:
            raise click.ClickException(f"fio ended with status {done.returncode}: {done.stderr.strip()[-500:]}")
        return float(fio.parse(done.stdout)["jobs"][0][op]["iops"])

    return measure


@contextmanager
def peer(folder: Path) -> Iterator[str | None]:
    """URI of nbdkit serving the same file; None where it is not installed."""
    if shutil.which("nbdkit") is None:
        yield None
        return
    socket, file = folder / "peer.nbd", folder / FILE
    file.touch()
    server = subprocess.Popen(["nbdkit", "--foreground", "--exit-with-parent", "-U", str(socket), "file", str(file)])
    try:
        deadline = time.monotonic() + START_SECONDS
        while not socket.exists():
            if server.poll() is not None or time.monotonic() > deadline:
                raise click.ClickException("nbdkit does not serve the file")
            time.sleep(0.01)
        yield f"nbd+unix:///?socket={socket}"
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()

"""DPDK as a peer: two dpdk-testpmd processes, one sending to the other over memif, on a processor each.

They poll without end, so they are stopped (SIGSTOP) except in their own windows. No hugepages, no files in common
folders; ended by pid, whatever happens.
"""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

PROGRAM = "dpdk-testpmd"
DRIVER = "librte_net_memif.so"
SIZES = range(64, 1519)  # bytes of a frame that fits one of its buffers
START_SECONDS = 20.0
PROMPT = b"testpmd> "
RINGS = "rsize=11,bsize=2048"  # log2 of the slots; bytes of a buffer


def installed() -> bool:
    if shutil.which(PROGRAM) is None:
        return False
    return any(Path("/usr").glob(f"lib*/**/dpdk/pmds-*/{DRIVER}")) or any(Path("/usr/local").glob(f"lib*/**/{DRIVER}"))


class Testpmd:
    """One process at its prompt. A terminal, because it buffers its words towards a pipe."""

    def __init__(self, folder: Path, processor: int, role: str, mode: str, extra: tuple[str, ...] = ()) -> None:
        device = f"net_memif0,role={role},id=0,socket={folder}/memif.sock,socket-abstract=no,{RINGS}"
        command = [
            PROGRAM, "--no-huge", "-m", "256", "--no-pci", "--no-telemetry", f"--file-prefix={role}",
            f"--lcores=0@{processor},1@{processor}", "-d", DRIVER, f"--vdev={device}",
            "--", "-i", f"--forward-mode={mode}", "--total-num-mbufs=8192", "--burst=64", *extra,
        ]  # fmt: skip
        self._terminal, other = pty.openpty()
        try:
            self.process = subprocess.Popen(
                command, stdin=other, stdout=other, stderr=other, start_new_session=True,
                env={**os.environ, "RUNTIME_DIRECTORY": str(folder)},  # its own files
            )  # fmt: skip
        finally:
            os.close(other)
        self._until_prompt()

    def say(self, line: str) -> str:
        """What it prints in answer."""
        os.write(self._terminal, line.encode() + b"\n")
        return self._until_prompt()

    def _until_prompt(self) -> str:
        heard = b""
        deadline = time.monotonic() + START_SECONDS
        while not heard.endswith(PROMPT):
            ready, _, _ = select.select([self._terminal], [], [], max(0.0, deadline - time.monotonic()))
            try:
                more = os.read(self._terminal, 65536) if ready else b""
            except OSError:  # it has ended
                more = b""
            if not more:
                raise click.ClickException(f"{PROGRAM} did not answer: {heard.decode(errors='replace')[-1000:]}")
            heard += more
        return heard.decode(errors="replace")

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._terminal)


class Pair:
    """Frames of `size` bytes from one to the other."""

    def __init__(self, folder: Path, processors: list[int], size: int) -> None:
        self._both: list[Testpmd] = []
        try:
            self._both.append(Testpmd(folder, processors[0], "server", "rxonly"))
            self._both.append(Testpmd(folder, processors[-1], "client", "txonly", (f"--txpkts={size}",)))
            for one in self._both:
                one.say("start")
        except BaseException:
            self.close()
            raise
        self._signal(signal.SIGSTOP)

    def rate(self, seconds: float) -> float:
        """Frames a second that arrive."""
        self._signal(signal.SIGCONT)
        try:
            time.sleep(min(0.02, seconds / 4))
            begin, before = self._received()
            time.sleep(seconds)
            end, after = self._received()
        finally:
            self._signal(signal.SIGSTOP)
        return (after - before) / (end - begin)

    def _received(self) -> tuple[float, int]:
        begin = time.monotonic()
        text = self._both[0].say("show port stats 0")
        found = re.search(r"RX-packets: (\d+)", text)
        if found is None:
            raise click.ClickException(f"{PROGRAM} shows no statistics: {text[-500:]}")
        return (begin + time.monotonic()) / 2, int(found[1])

    def _signal(self, number: int) -> None:
        for one in self._both:
            one.signal(number)

    def close(self) -> None:
        for one in self._both:
            one.close()


@contextmanager
def memif(size: int) -> Iterator[Pair]:
    """A pair on the first and the last processor."""
    with tempfile.TemporaryDirectory(prefix="partvisor-bench-") as folder:
        pair = Pair(Path(folder), sorted(os.sched_getaffinity(0)), size)
        try:
            yield pair
        finally:
            pair.close()

"""fio as a peer: what one worker of it reaches on the same file, in short runs between those of the host."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click

from tools.measure.turns import Measure

ENGINES = ("psync", "io_uring")
START_SECONDS = 30.0  # for everything but the time that it measures
SHORTEST = 0.05  # seconds; its clock ticks in milliseconds


def installed() -> bool:
    return shutil.which("fio") is not None


def rate(
    file: Path, size: int, engine: str, op: str, block: int, depth: int, direct: bool = False, sequential: bool = False
) -> Measure:
    """Requests a second of reads or writes, at random or in order, in a file that exists and is cached."""

    def measure(seconds: float) -> float:
        command = [
            "fio", "--name=baseline", f"--filename={file}", f"--size={size}",
            f"--rw={'' if sequential else 'rand'}{op}", f"--bs={block}",
            f"--ioengine={engine}", f"--iodepth={depth if engine == 'io_uring' else 1}", f"--direct={int(direct)}",
            "--invalidate=0", "--allow_file_create=0", "--norandommap", "--time_based", "--thread", "--eta=never",
            f"--runtime={max(seconds, SHORTEST) * 1000:.0f}ms", "--output-format=json",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + START_SECONDS)
        if done.returncode:
            raise click.ClickException(f"fio ended with status {done.returncode}: {done.stderr.strip()[-500:]}")
        return float(parse(done.stdout)["jobs"][0][op]["iops"])

    return measure


def parse(text: str) -> dict[str, Any]:
    """fio's document; it may print remarks before it."""
    return dict(json.loads(text[text.index("{") :]))

"""Runs a test program with a deadline, and leaves nothing of it behind."""

import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Outcome:
    """How a program ended: `status` as subprocess gives it (negative: the signal), or None past its deadline."""

    status: int | None
    output: str
    errors: str

    def values(self) -> dict[str, int]:
        """The program's report: lines `name=number`."""
        pairs = (line.split("=", 1) for line in self.output.splitlines() if "=" in line)
        return {name: int(number) for name, number in pairs}


def run(program: Path, *arguments: object, deadline: float, sanitizer_options: str = "") -> Outcome:
    """Runs `program` in a process group of its own for at most `deadline` seconds; then the whole group is killed.

    Address randomization is off: ThreadSanitizer knows only some of the layouts that new kernels choose.
    """
    environment = {**os.environ, "TSAN_OPTIONS": sanitizer_options, "ASAN_OPTIONS": "detect_leaks=0"}
    command: Sequence[str] = ["setarch", "-R", str(program), *map(str, arguments)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    try:
        output, errors = process.communicate(timeout=deadline)
        return Outcome(process.returncode, output, errors)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, errors = process.communicate()
        return Outcome(None, output, errors)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise

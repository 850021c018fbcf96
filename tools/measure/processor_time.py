"""Processor time of processes by the kernel's own count (schedstat), so nobody has to be asked while it is measured."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path


def used(pids: Iterable[int]) -> float:
    """Seconds of processor time of all threads of these processes. One that has ended counts nothing."""
    total = 0
    for pid in pids:
        try:
            for thread in os.listdir(f"/proc/{pid}/task"):
                total += int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total / 1e9


def by_role(processes: Mapping[str, Iterable[int]]) -> dict[str, float]:
    """The same for each role of a host (`BenchHost.processes`)."""
    return {role: used(pids) for role, pids in processes.items()}

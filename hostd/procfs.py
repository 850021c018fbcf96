"""What the keeper reads of processes in /proc: start time, session, own children."""

from __future__ import annotations

import os
from contextlib import suppress


def start_time(pid: int) -> int:
    """Start of a process in clock ticks since boot: with the pid it names a process for good."""
    return int(_stat(pid)[19])


def children() -> list[int]:
    """Processes whose parent is this one, dead ones that nobody waited for included."""
    with suppress(FileNotFoundError), open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        return [int(pid) for pid in file.read().split()]
    found = []  # a kernel without CONFIG_PROC_CHILDREN
    for entry in os.listdir("/proc"):
        with suppress(OSError, ValueError, IndexError):
            if int(_stat(int(entry))[1]) == os.getpid():
                found.append(int(entry))
    return found


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third (state) on; the name before them may hold spaces and brackets."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return file.read().rpartition(")")[2].split()


def group(pid: int) -> int:
    """Process group of a process; 0 if it is gone."""
    with suppress(OSError, IndexError):
        return int(_stat(pid)[2])
    return 0

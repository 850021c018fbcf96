"""What a test run left behind: processes, shared-memory objects, mounts, network namespaces, sockets, folders.

Used by guardian.py, which is the parent of the whole run. Other runs may go on at the same time on one machine:
an object whose name carries the pid of a living process that is not ours (partvisor-PID-..., partvisor-test-PID-...)
belongs to them.
"""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

SHARED_MEMORY = Path("/dev/shm")
NETWORK_NAMESPACES = Path("/run/netns")
#: where runtime folders, sockets and temporary folders of this project may lie
FOLDERS = [Path("/tmp"), Path("/run"), Path("/var/lib")]
PREFIX = "partvisor"


@dataclass(frozen=True)
class Snapshot:
    """Names that exist outside the run's own processes, by kind."""

    objects: frozenset[tuple[str, str]]

    @staticmethod
    def take() -> "Snapshot":
        return Snapshot(frozenset(_objects()))


def _names(folder: Path, prefix: str = "") -> Iterator[str]:
    try:
        yield from (entry.name for entry in os.scandir(folder) if entry.name.startswith(prefix))
    except FileNotFoundError:
        return


def _objects() -> Iterator[tuple[str, str]]:
    for name in _names(SHARED_MEMORY, PREFIX):
        yield "shared-memory object", name
    for name in _names(NETWORK_NAMESPACES):
        yield "network namespace", name
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if PREFIX in line:
            yield "mount", line.split()[4]
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        path = line.split(maxsplit=7)[7:]
        if path and PREFIX in path[0]:
            yield "socket", path[0]
    for folder in FOLDERS:
        for name in _names(folder, PREFIX):
            yield "file or folder", str(folder / name)


def _of_another_run(name: str, ours: set[int]) -> bool:
    numbers = (int(number) for number in re.findall(r"-(\d{1,7})-", name))
    return any(number not in ours and psutil.pid_exists(number) for number in numbers)


def descendants(pid: int) -> list[psutil.Process]:
    """Living processes below `pid`; what has ended and only waits to be reaped does not count."""
    children = psutil.Process(pid).children(recursive=True)
    return [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


def describe(process: psutil.Process) -> str:
    try:
        return f"process {process.pid} {process.name()}: {' '.join(process.cmdline())[:120]}"
    except psutil.NoSuchProcess:
        return f"process {process.pid}, ended meanwhile"


def leaks(before: Snapshot, ours: Iterable[int]) -> list[str]:
    """One line for each object that is new since `before` and not another run's."""
    mine = set(ours)
    new = Snapshot.take().objects - before.objects
    return sorted(f"{kind} {name}" for kind, name in new if not _of_another_run(name, mine))

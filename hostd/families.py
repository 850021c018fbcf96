"""Processes with their descendants, as /proc tells: what belongs to a world where nothing tells of new ones."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable


def families(roots: dict[int, int]) -> dict[int, list[int]]:
    """Each root process with its living descendants."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", encoding="ascii", errors="replace") as file:
                    parent = int(file.read().rpartition(")")[2].split()[1])
            except (OSError, ValueError, IndexError):
                continue
            children.setdefault(parent, []).append(int(name))
    found: dict[int, list[int]] = {}
    for partition, root in roots.items():
        found[partition] = [root]
        for process in found[partition]:  # grows while it is read
            found[partition] += children.get(process, [])
    return found


def threads_of(process: int) -> set[int]:
    """Nothing where it has ended."""
    try:
        return {int(name) for name in os.listdir(f"/proc/{process}/task")}
    except OSError:
        return set()


def free(roots: dict[int, int]) -> None:
    """Lets processes with their descendants go that a monitor may have left held when it died, each back into the
    scheduling class that it had: `roots` is process -> class."""
    for root, processes in families({root: root for root in roots}).items():
        for process in processes:
            with contextlib.suppress(OSError):
                send(process, signal.SIGCONT)
            for thread in threads_of(process):
                with contextlib.suppress(OSError):
                    os.sched_setscheduler(thread, roots[root], os.sched_param(0))


def send(process: int, number: int) -> None:
    """A signal, by a pidfd. OSError where it has ended, or is not ours."""
    descriptor = os.pidfd_open(process)
    try:
        signal.pidfd_send_signal(descriptor, number)
    finally:
        os.close(descriptor)


def end(children: Iterable[int]) -> None:
    """Kills children of this process, and takes their exit status."""
    for child in children:
        send(child, signal.SIGKILL)
        os.waitpid(child, 0)

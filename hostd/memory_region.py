"""Partition memory whose first touches trap: mapped and registered by the new process itself, before its filter (H8).

The memory lies where the guest runtime expects it (pyx/memory.pyx). The monitor gets the userfaultfd and answers each
first touch of a page; the guest has neither it nor a descriptor of its memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hostd.abilities import Refused
from hostd.wire import close_fds
from pyx import memory, trap_memory

HANDED = "memory"  # name of the userfaultfd among the descriptors that a new process hands out


def make(descriptors: dict[str, int], extents: Sequence[dict[str, int]]) -> tuple[dict[str, Any], dict[str, int]]:
    """(facts, descriptors for the monitor). Takes `memory0` and so on out of `descriptors` and closes them.

    Facts: "kernel": whether touches by system calls trap too, or fail with EFAULT; "children": whether processes that
    the guest forks have the memory. Refused where the kernel cannot do it: a partition that asked for it runs no other
    way.
    """
    ranges = [(extent["gpa"], extent["size"]) for extent in extents]
    opened = [descriptors.pop(f"memory{index}") for index in range(len(ranges))]
    try:
        for descriptor, (gpa, size) in zip(opened, ranges, strict=True):
            memory.map_fixed(descriptor, gpa, size)
        faults, kernel, children = trap_memory.trap(ranges)
    except OSError as error:
        raise Refused(f"trap_memory: {error.filename or 'userfaultfd'}: {error.strerror}") from error
    finally:
        close_fds(opened)
    return {"kernel": kernel, "children": children}, {HANDED: faults}

"""A new process's configuration region: made before its ids change and its filter is installed (H2, H8).

The region lies at one address in every guest. Its first touches go to a userfaultfd, which this hands out together with
the memory object behind the region: the monitor answers the touches and takes pages back; the guest has neither.
Where the kernel lacks userfaultfd hostd has the pages built in advance, and `show` maps them: nothing traps, nothing
is counted, and the view stays as it was at the start.
"""

from __future__ import annotations

import fcntl
import os
from typing import Any

from pyx import abi, userfault

ONES = 2 << 20  # bytes of ones that are mapped again and again behind a region that is built in advance
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def traps_work() -> bool:
    """Whether this kernel lets a process have its page faults answered by another."""
    try:
        faults, _, _ = userfault.open()
    except OSError:
        return False
    os.close(faults)
    return True


def make() -> tuple[dict[str, Any], dict[str, int]]:
    """(facts for the guest and for hostd, descriptors for the monitor: `userfault`, `region`).

    Facts: "address", "size"; "traps": whether touches trap; "kernel": whether those of system calls do; "features"; or
    "missing": why nothing traps. No descriptor is handed out then.
    """
    facts: dict[str, Any] = {"address": abi.CONFIG_ADDRESS, "size": abi.CONFIG_REGION, "traps": False}
    try:
        faults, kernel, features = userfault.open()
    except OSError as error:
        return {**facts, "missing": str(error)}, {}
    memory = -1
    try:
        # Sparse on purpose: pages come one by one from the monitor, which bounds their number.
        memory = os.memfd_create("configuration", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.fchmod(memory, 0o600)
        os.ftruncate(memory, abi.CONFIG_REGION)
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
        userfault.map_region(memory, abi.CONFIG_ADDRESS, abi.CONFIG_REGION)
        userfault.register(faults, abi.CONFIG_ADDRESS, abi.CONFIG_REGION, userfault.MISSING)
    except OSError as error:
        os.close(faults)
        if memory >= 0:
            os.close(memory)
        return {**facts, "missing": str(error)}, {}
    return {**facts, "traps": True, "kernel": kernel, "features": features}, {"userfault": faults, "region": memory}


def show(pages: int, numbers: list[int]) -> dict[str, Any]:
    """A region without traps. `pages`: an object with the pages `numbers`, one behind the other; else all is ones."""
    facts: dict[str, Any] = {"address": abi.CONFIG_ADDRESS, "size": abi.CONFIG_REGION, "traps": False}
    ones = sealed("ones", b"\xff" * ONES)
    try:
        for offset in range(0, abi.CONFIG_REGION, ONES):
            length = min(ONES, abi.CONFIG_REGION - offset)
            userfault.map_over(ones, abi.CONFIG_ADDRESS + offset, length, 0)
        for place, number in enumerate(numbers):
            userfault.map_over(pages, abi.CONFIG_ADDRESS + number * abi.PAGE, abi.PAGE, place * abi.PAGE)
    finally:
        os.close(ones)
    return {**facts, "built": True}


def sealed(name: str, content: bytes) -> int:
    """A memory object that nobody can change any more."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.fchmod(descriptor, 0o600)
        written = 0
        while written < len(content):
            written += os.write(descriptor, content[written:])
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS | fcntl.F_SEAL_WRITE)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor

"""A new process's configuration region: made before its ids change and its filter is installed (H2, H8).

The region lies at one address in every guest. Its first touches go to a userfaultfd, which this hands out together with
the memory object behind the region: the monitor answers the touches and takes pages back; the guest has neither.
Where the kernel lacks userfaultfd `make` says why, and the guest gets no region that could trap.
"""

from __future__ import annotations

import fcntl
import os
from typing import Any

from pyx import abi, userfault

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


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

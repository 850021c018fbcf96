"""Check of memory maps: what each process really maps, against what design.md section 2 lets it map (U4, U5, U9).

The truth is /proc/PID/maps; segments are recognised by device and inode, so names and sizes prove nothing here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

Identity = tuple[int, int]  # device, inode
Rights = dict[Identity, str]  # "r" or "rw"


def mapped(pid: int) -> Rights:
    """Shared-memory objects that a process maps, with the widest rights of any mapping of each.

    FileNotFoundError or ProcessLookupError where the process is gone."""
    found: Rights = {}
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            fields = line.split(maxsplit=5)
            path = fields[5] if len(fields) > 5 else ""
            if not path.startswith(("/memfd:partvisor-", "/dev/shm/partvisor-")):
                continue
            major, minor = (int(part, 16) for part in fields[3].split(":"))
            identity = (os.makedev(major, minor), int(fields[4]))
            rights = "rw" if "w" in fields[1] else "r"
            if found.get(identity) != "rw":
                found[identity] = rights
    return found


def identity_of(descriptor: int) -> Identity:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def compare(name: str, expected: dict[int, str], actual: Rights, identities: dict[int, Identity]) -> dict[str, Any]:
    """One check row. `expected`: segment id -> "r", "rw", or with "?" where it need not be mapped; a mapping too many,
    too few or with other rights fails it."""
    wanted = {identities[segment]: (segment, rights) for segment, rights in expected.items() if segment in identities}
    problems = [f"segment {segment:#x} is unknown to the keeper" for segment in expected if segment not in identities]
    for identity, (segment, rights) in wanted.items():
        if identity not in actual and rights.endswith("?"):
            continue  # it may map the segment, and need not
        if identity not in actual:
            problems.append(f"segment {segment:#x} is not mapped")
        elif actual[identity] != rights.rstrip("?"):
            problems.append(f"segment {segment:#x} is mapped {actual[identity]}, not {rights}")
    problems += [f"inode {identity[1]} is mapped but not granted" for identity in actual if identity not in wanted]
    detail = "; ".join(problems) if problems else f"{len(wanted)} segments mapped as granted"
    return {"name": f"memory map of {name}", "ok": not problems, "detail": detail}


def add(expected: dict[int, str], rights: str, segments: Iterable[int | None]) -> None:
    for segment in segments:
        if segment is not None:
            expected[segment] = rights

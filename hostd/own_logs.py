"""What the two processes write that are no partitions: hostd and its keeper, whose logs are files."""

from __future__ import annotations

import os
from pathlib import Path

from hostd.errors import HostError
from hostd.paths import Paths
from hostd.records import LOG_MAX
from hostd.runtime import LOG

NAMES = ("hostd", "keeper")


def read(name: str, paths: Paths) -> str:
    """The end of what hostd or the keeper of this host wrote, whole lines. Code `state` where hostd's standard error is
    no file of the host: then whoever started it has what it writes."""
    path = paths.log if name == "hostd" else paths.runtime / LOG
    if name == "hostd" and not _same(path):
        text = "was not started by `hostctl up`; what it writes goes to the standard error it was given"
        raise HostError("state", f"hostd {text}")
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - LOG_MAX))
        found = file.read(LOG_MAX)
    if size > LOG_MAX:
        found = found.partition(b"\n")[2]
    return found.decode(errors="replace")


def _same(path: Path) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(2))
    except OSError:
        return False

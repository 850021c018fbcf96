"""A look at a guest's memory from outside of all processes of the host: by the keeper's descriptor of its segment."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.framework.host import Host

PATTERN = b"\xc5canary\x3a"  # repeated: no data of these tests has it


@contextmanager
def memory_of(host: Host, name: str) -> Iterator[int]:
    """A descriptor of the only segment of a guest's partition memory, which holds it from gpa 0 on."""
    inode = inode_of(host.pids()[name])
    fd = next(
        os.open(link, os.O_RDWR)
        for link in Path(f"/proc/{host.pids()['keeper']}/fd").iterdir()
        if os.stat(link).st_ino == inode
    )
    try:
        yield fd
    finally:
        os.close(fd)


def inode_of(pid: int) -> int:
    found = re.findall(r"^210000000000-\S+ rw-s \S+ \S+ (\d+) +/memfd:", Path(f"/proc/{pid}/maps").read_text(), re.M)
    assert len(found) == 1, f"partition memory of {pid} is not one segment: {found}"
    return int(found[0])


def put(fd: int, offset: int, size: int) -> None:
    os.pwrite(fd, PATTERN * (size // len(PATTERN)), offset)


def stands(fd: int, offset: int, size: int) -> bool:
    """Is it all as `put` left it?"""
    return os.pread(fd, size, offset) == PATTERN * (size // len(PATTERN))

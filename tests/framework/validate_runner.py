"""Runs the C programs that take a partition by inherited descriptors, and speaks their binary formats."""

import os
import subprocess
from array import array
from collections.abc import Iterable
from pathlib import Path

from tests.framework.oracle import Answer, Partition
from tests.framework.requests import segments


def encode(answers: Iterable[Answer]) -> bytes:
    """(reason, extents) as words of eight bytes: reason, count, then hpa and length of each."""
    words = array("Q")
    for reason, extents in answers:
        words.extend((reason, len(extents)))
        for extent in extents:
            words.extend(extent)
    return words.tobytes()


def run_with_partitions(
    program: Path, partitions: list[Partition], *arguments: object, stdin: bytes, deadline: float
) -> subprocess.CompletedProcess[bytes]:
    """Runs `program (VIEW MAP PAGES)... ARGUMENTS...`; the partitions are successive generations of one slot."""
    fds: list[int] = []
    words: list[object] = [program]
    try:
        for generation, partition in enumerate(partitions, 1):
            fds += segments(partition, generation)
            words += [*fds[-2:], partition.memory_pages]
        command = [str(word) for word in (*words, *arguments)]
        return subprocess.run(command, input=stdin, capture_output=True, timeout=deadline, pass_fds=fds)
    finally:
        for fd in fds:
            os.close(fd)

"""The logs of hostd and keeper, as `hostctl logs` shows them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hostd import own_logs
from hostd.errors import HostError
from hostd.paths import Paths
from hostd.records import LOG_MAX


@contextmanager
def writing(tmp_path: Path) -> Iterator[Paths]:
    """Of a host whose hostd, which is this process, writes to its log."""
    known = Paths(tmp_path, tmp_path)
    before = os.dup(2)
    with open(known.log, "wb") as log:
        os.dup2(log.fileno(), 2)
    try:
        yield known
    finally:
        os.dup2(before, 2)
        os.close(before)


def test_the_end_of_a_log_in_whole_lines(tmp_path: Path) -> None:
    with writing(tmp_path) as paths:
        os.write(2, b"one\ntwo\n")
        assert own_logs.read("hostd", paths) == "one\ntwo\n"
        line = b"x" * 99 + b"\n"
        os.write(2, line * (2 * LOG_MAX // 100))
        lines = own_logs.read("hostd", paths).splitlines(keepends=True)
        assert set(lines) == {line.decode()} and LOG_MAX - 100 < 100 * len(lines) <= LOG_MAX
        (paths.runtime / "keeper.log").write_bytes(b"complaint \xff\n")
        assert own_logs.read("keeper", paths) == "complaint \ufffd\n"


def test_a_hostd_that_writes_elsewhere_says_so(tmp_path: Path) -> None:
    """A log of an earlier one may lie there: it is not this one's."""
    with writing(tmp_path) as paths:
        os.rename(paths.log, paths.log.with_suffix(".old"))
        with pytest.raises(HostError, match="standard error"):
            own_logs.read("hostd", paths)
        paths.log.write_text("of an earlier one\n")
        with pytest.raises(HostError) as caught:
            own_logs.read("hostd", paths)
        assert caught.value.code == "state"

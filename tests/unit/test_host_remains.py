"""What a host of the tests is blamed for when it is down, and what was left by somebody else."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.framework import host as framework


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[framework.Host]:
    """A host that never ran, where shared memory is an ordinary folder with something of a dead run in it."""
    monkeypatch.setattr(framework, "SHARED_MEMORY", tmp_path)
    _name(tmp_path, "older").touch()
    own = framework.Host()
    own.paths.runtime.mkdir(parents=True)
    yield own
    own.close()


def _name(folder: Path, label: str) -> Path:
    ended = next(pid for pid in itertools.count(2) if not psutil.pid_exists(pid))
    return folder / f"partvisor-{ended}-{label}"


def test_what_was_there_before_is_not_its_own(host: framework.Host) -> None:
    assert host.remains() == []


def test_a_name_of_a_dead_keeper_is_its_own(host: framework.Host, tmp_path: Path) -> None:
    _name(tmp_path, "channel").touch()
    assert host.remains() == [str(_name(tmp_path, "channel"))]


def test_a_folder_is_no_segment(host: framework.Host, tmp_path: Path) -> None:
    _name(tmp_path, "simulation").mkdir()
    assert host.remains() == []


def test_a_file_in_its_own_folder_is_its_own(host: framework.Host) -> None:
    (host.paths.runtime / "forgotten").touch()
    assert host.remains() == [str(host.paths.runtime / "forgotten")]

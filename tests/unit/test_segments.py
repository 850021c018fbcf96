"""Segments: what the creator promises and what the receiver refuses (rules 1 and 3)."""

from __future__ import annotations

import fcntl
import mmap
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import posix_ipc
import pytest

from hostd import segments
from hostd.runtime import is_locked, lock, sweep_stale
from hostd.segments import SegmentError
from pyx import process

PAGE = segments.PAGE
MEMORY = segments.MEMORY


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = open_descriptors()
    yield
    assert open_descriptors() == before
    assert not segments.names_of(os.getpid())


@pytest.mark.parametrize("kind", sorted(segments.KINDS))
@pytest.mark.parametrize("size", [1, PAGE, PAGE + 1, segments.ALLOCATION_STEP * 2 + 5])
def test_promises(kind: str, size: int) -> None:
    descriptor = segments.create(kind, size, "promise")
    try:
        segments.check(descriptor, kind, size)
        status = os.fstat(descriptor)
        assert (status.st_size, stat.S_IMODE(status.st_mode), status.st_nlink) == (size, 0o600, 0)
        assert status.st_blocks * 512 >= size, "fully allocated"
        assert fcntl.fcntl(descriptor, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
        assert not any(os.pread(descriptor, size, 0)), "zeroed"
        assert process.filesystem_type(descriptor) == process.TMPFS_MAGIC
    finally:
        os.close(descriptor)


def test_memory_has_its_size_for_ever() -> None:
    descriptor = segments.create(MEMORY, PAGE, "sealed")
    try:
        for size in (0, PAGE - 1, PAGE + 1):
            with pytest.raises(PermissionError):
                os.ftruncate(descriptor, size)
        with pytest.raises(PermissionError):
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
        assert "partvisor-sealed" in os.readlink(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("kind", [MEMORY, "view"])
def test_read_only_descriptor(kind: str) -> None:
    """It shows the same bytes and can neither be written through nor truncated (U3)."""
    descriptor = segments.create(kind, PAGE, "view")
    reader = segments.reopen_read_only(descriptor)
    try:
        segments.check(reader, kind, PAGE)
        os.pwrite(descriptor, b"now", 10)
        assert os.pread(reader, 3, 10) == b"now"
        with pytest.raises(OSError):
            os.pwrite(reader, b"x", 0)
        with pytest.raises(OSError):
            os.ftruncate(reader, 0)
        with pytest.raises(PermissionError):
            mmap.mmap(reader, PAGE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
    finally:
        os.close(descriptor)
        os.close(reader)


@pytest.mark.parametrize(
    ("kind", "size", "reason"),
    [
        ("nonsense", PAGE, "unknown kind of segment 'nonsense'"),
        (None, PAGE, "unknown kind"),
        ("view", 0, "not a size"),
        ("view", -1, "not a size"),
        ("view", True, "not a size"),
        ("view", 4096.0, "not a size"),
        ("view", segments.SIZE_MAX + 1, "not a size"),
        (MEMORY, segments.SIZE_MAX, "bytes of memory are available"),
    ],
)
def test_refused_creations(kind: str, size: int, reason: str) -> None:
    with pytest.raises(SegmentError, match=reason):
        segments.create(kind, size, "refused")


def test_large_segments_are_built_in_steps_and_can_be_given_up() -> None:
    builder = segments.build(MEMORY, 4 * segments.ALLOCATION_STEP, "steps")
    assert sum(1 for _ in zip(range(3), builder, strict=False)) == 3
    builder.close()  # the fixture sees that its descriptor is gone


def refused(descriptor: int, kind: str, size: int, reason: str) -> None:
    try:
        with pytest.raises(SegmentError, match=reason):
            segments.check(descriptor, kind, size)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("seals", [0, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW])
def test_memory_that_is_not_sealed_is_refused(seals: int) -> None:
    descriptor = os.memfd_create("guest", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.fchmod(descriptor, 0o600)
    os.posix_fallocate(descriptor, 0, PAGE)
    if seals:
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    refused(descriptor, MEMORY, PAGE, "size is not fixed")


@pytest.mark.parametrize("size", [PAGE - 1, PAGE + 1, 2 * PAGE, 0])
def test_another_size_is_refused(size: int) -> None:
    refused(segments.create(MEMORY, PAGE, "size"), MEMORY, size, f"segment of {PAGE} bytes where {size}")


def test_sparse_memory_is_refused() -> None:
    descriptor = os.memfd_create("sparse", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, 4 * PAGE)
    os.fchmod(descriptor, 0o600)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, segments.SEALS)
    refused(descriptor, MEMORY, 4 * PAGE, f"only 0 of {4 * PAGE} bytes are allocated")


def test_other_descriptors_are_refused(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(write)
    refused(read, "channel", PAGE, "no memory object")
    with pytest.raises(SegmentError, match="Bad file descriptor"):
        segments.check(read, "channel", PAGE)
    file = tmp_path / "file"
    file.write_bytes(bytes(PAGE))
    file.chmod(0o600)
    descriptor = os.open(file, os.O_RDWR)
    file.unlink()
    refused(descriptor, "channel", PAGE, "outside shared memory|is allocated|are allocated")


def test_shared_memory_with_a_name_or_for_others_is_refused() -> None:
    name = f"/partvisor-{os.getpid()}-named"
    descriptor = posix_ipc.SharedMemory(name, posix_ipc.O_CREX, size=PAGE, mode=0o600).fd
    os.posix_fallocate(descriptor, 0, PAGE)
    copy = os.dup(descriptor)
    refused(descriptor, "channel", PAGE, "still has a name")
    posix_ipc.unlink_shared_memory(name)
    os.fchmod(copy, 0o644)
    refused(copy, "channel", PAGE, "mode 0644")


# ---- the runtime folder ----


def test_one_keeper_per_folder(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    held = lock(tmp_path)
    assert is_locked(tmp_path)
    with pytest.raises(OSError, match="another keeper"):
        lock(tmp_path)
    os.close(held)
    assert not is_locked(tmp_path)


def test_the_sweep_leaves_a_living_keeper_alone(tmp_path: Path) -> None:
    held = lock(tmp_path)
    (tmp_path / "keeper.sock").touch()
    sweep_stale(tmp_path)  # others' shared memory may be swept here too, so the result is not compared
    assert sorted(os.listdir(tmp_path)) == ["keeper.lock", "keeper.sock"]
    os.close(held)
    assert {str(tmp_path / "keeper.sock"), str(tmp_path / "keeper.lock")} <= set(sweep_stale(tmp_path))
    assert os.listdir(tmp_path) == []


def test_the_sweep_takes_shared_memory_of_dead_keepers_only(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    dead, foreign = f"partvisor-{pid}-dead", "partvisor-other-thing"
    folder, link = segments.FOLDER / f"partvisor-{pid}-folder", segments.FOLDER / f"partvisor-{pid}-link"
    try:
        for name in (dead, foreign):
            (segments.FOLDER / name).touch()
        folder.mkdir()
        link.symlink_to(segments.FOLDER / foreign)
        assert str(segments.FOLDER / dead) in sweep_stale(tmp_path)
        assert not (segments.FOLDER / dead).exists()
        assert folder.is_dir() and link.is_symlink(), "shared memory is neither"
    finally:
        (segments.FOLDER / foreign).unlink()
        link.unlink()
        folder.rmdir()

"""The small read-only root that a guest sees: interpreter, libraries, a few devices, and nothing of its host's users.

It is built once, by the loader, in a mount namespace that holds nothing else; each guest copies that namespace,
which costs a fraction of copying the host's mounts and pivoting. The interpreter appears at its own path even if
that lies below a home folder of mode 0700: the folders above it are made anew here, readable, and empty otherwise.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import stat
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from pyx import process

PACKAGES = ("pyx", "hostd", "partitions")  # what a guest's runtime imports
PROGRAM = "/program"
PARTITION = "/run/partition"  # what a program is told of its partition (hostd.hardware_files)
PARTITION_SIZE = "1m"  # 32 functions of a page each, and the table
PARTITION_FILES = 128
ROOT_SIZE = "8m"  # the root holds copies of a few small files only
SCRATCH_SIZE = "64m"  # /tmp of one guest: host memory, so it is bounded
SCRATCH_FILES = 4096
STAGE = "/tmp"  # the folder on which the root is mounted before it becomes the root; never visible to others

_LINKS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_ETC = ("ld.so.cache", "ld.so.conf", "localtime", "services", "protocols", "mime.types")
_FILES = {
    "/etc/passwd": "root:x:0:0:root:/:/usr/sbin/nologin\nguest:x:65534:65534:guest:/tmp:/bin/sh\n",
    "/etc/group": "root:x:0:\nguest:x:65534:\n",
    "/etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}
_DEVICES = ("null", "zero", "full", "random", "urandom")
_DEVICE_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
_LOCKED = process.MS_NOSUID | process.MS_NODEV


def sources() -> list[str]:
    """Folders of the host that appear in the root at their own path; none lies in another."""
    folders = {"/usr", sys.base_prefix, sys.base_exec_prefix, sys.prefix, sys.exec_prefix}
    folders.update(path for path in _LINKS if os.path.isdir(path) and not os.path.islink(path))
    for package in PACKAGES:
        spec = find_spec(package)
        if spec is not None and spec.submodule_search_locations:
            folders.update(spec.submodule_search_locations)
    real = sorted({os.path.realpath(folder) for folder in folders if os.path.isdir(folder)})
    inner = {folder for folder in real for other in real if Path(other) in Path(folder).parents}
    return [folder for folder in real if folder not in inner]


@functools.cache
def scratch() -> str:
    """The writable folder of each guest: /tmp, unless interpreter or checkout lie below it and would be hidden."""
    return "/scratch" if any(Path("/tmp") in Path(folder).parents for folder in sources()) else "/tmp"


def make_template() -> int:
    """Descriptor of a mount namespace whose whole content is the guest root. Needs CAP_SYS_ADMIN; OSError without.

    A helper process builds it, so that the caller's own namespace stays as it is.
    """
    scratch()  # looked up here once: the guests that are forked from this process inherit the answer
    ready, ready_write = os.pipe()
    done, done_write = os.pipe()
    pid, pidfd = process.clone(process.CLONE_NEWNS)
    if pid == 0:
        _build_in_helper(ready_write, done, (ready, done_write))
    os.close(pidfd)
    os.close(ready_write)
    os.close(done)
    try:
        with open(ready, encoding="utf-8", errors="replace") as pipe:
            failure = pipe.read()  # ends when the helper closes its end, or dies
        if failure != "ok":
            raise OSError(f"guest root: {failure or 'its builder died'}")
        return os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(done_write)
        os.waitpid(pid, 0)


def _build_in_helper(ready: int, done: int, foreign: tuple[int, int]) -> None:
    """Never returns. Says "ok" or what failed, then stays until its namespace has been opened."""
    try:
        for descriptor in foreign:
            os.close(descriptor)
        process.set_death_signal(signal.SIGKILL)
        try:
            build()
            os.write(ready, b"ok")
        except OSError as error:
            os.write(ready, f"{error.filename or ''} {error.strerror or error}".strip().encode())
        os.close(ready)
        os.read(done, 1)
    finally:
        os._exit(0)


def build(processes: bool = False) -> None:
    """Make the guest root the root of the calling process, which must be alone in its mount namespace.

    With `processes`, /proc is mounted too: an ordinary user may do so only while the host's is still in sight.
    """
    process.mount("", "/", "", process.MS_PRIVATE | process.MS_REC, "")
    # Everything of the host is taken hold of first: it may lie below the folder that the stage hides.
    trees = [(path, _open_tree(path)) for path in sources()]
    devices = [(name, process.open_tree(f"/dev/{name}", False)) for name in _DEVICES]
    copies = {path: content for name in _ETC if (content := _content(path := f"/etc/{name}")) is not None}
    alternatives = _links("/etc/alternatives")
    links = {path: os.readlink(path) for path in _LINKS if os.path.islink(path)}
    process.mount("guest-root", STAGE, "tmpfs", process.MS_NOSUID, f"size={ROOT_SIZE},nr_inodes=8192,mode=755")
    umask = os.umask(0o022)
    for folder in ("/proc", "/dev", "/etc", "/tmp", scratch(), PROGRAM, PARTITION):
        os.makedirs(STAGE + folder, exist_ok=True)
    for path, content in copies.items():
        _write(STAGE + path, content)
    for path, text in _FILES.items():
        _write(STAGE + path, text.encode())
    for path, target in (links | alternatives).items():
        os.makedirs(os.path.dirname(STAGE + path), exist_ok=True)
        os.symlink(target, STAGE + path)
    for name, target in {**_DEVICE_LINKS, "shm": scratch()}.items():
        os.symlink(target, f"{STAGE}/dev/{name}")
    for name, tree in devices:
        _device(f"{STAGE}/dev/{name}", tree, os.stat(f"/dev/{name}"))
    for path, tree in trees:
        os.makedirs(STAGE + path, exist_ok=True)
        process.move_mount(tree, STAGE + path)
        os.close(tree)
    os.umask(umask)
    if processes:
        mount_processes(STAGE + "/proc")
    os.chdir(STAGE)
    process.pivot_root(".", ".")  # the old root now lies on top of the new one
    process.umount(".", process.MNT_DETACH)
    os.chdir("/")
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    process.mount_setattr(root, process.ATTRIBUTE_RDONLY, False)
    os.close(root)


def mount_processes(target: str) -> None:
    """/proc of the own pid namespace, without what describes the machine instead of processes (H1)."""
    process.mount("proc", target, "proc", _LOCKED | process.MS_NOEXEC, "subset=pid")


def complete(uid: int, gid: int, program: int | None, files: Mapping[str, bytes]) -> None:
    """The other parts that each guest has for itself: its scratch folder, its program folder, and `files` by their path
    below PARTITION, which nobody can change."""
    options = f"size={SCRATCH_SIZE},nr_inodes={SCRATCH_FILES},mode=700,uid={uid},gid={gid}"
    process.mount("scratch", scratch(), "tmpfs", _LOCKED, options)
    if program is not None:
        process.move_mount(program, PROGRAM)
        os.close(program)
    if files:
        size = f"size={PARTITION_SIZE},nr_inodes={PARTITION_FILES},mode=755"
        process.mount("partition", PARTITION, "tmpfs", _LOCKED | process.MS_NOEXEC, size)
        umask = os.umask(0o022)
        for path, content in files.items():
            _write(f"{PARTITION}/{path}", content)
        os.umask(umask)
        folder = os.open(PARTITION, os.O_PATH | os.O_CLOEXEC)
        process.mount_setattr(folder, process.ATTRIBUTE_RDONLY, False)
        os.close(folder)


def open_program(directory: str) -> int:
    """The user's program folder as a detached read-only mount; its parents need not be readable for the guest."""
    if not os.path.isdir(directory):
        os.listdir(directory)  # raises what is wrong with it
    return _open_tree(directory)


def _open_tree(path: str) -> int:
    tree = process.open_tree(path)
    process.mount_setattr(tree, process.ATTRIBUTE_RDONLY | process.ATTRIBUTE_NOSUID | process.ATTRIBUTE_NODEV)
    return tree


def _device(path: str, tree: int, status: os.stat_result) -> None:
    """A node of the root's own where that is allowed (one mount less to copy), otherwise the host's."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, status.st_rdev)
        os.chmod(path, 0o666)
    except PermissionError:
        _write(path, b"")
        process.move_mount(tree, path)
    os.close(tree)


def _content(path: str) -> bytes | None:
    with contextlib.suppress(OSError):
        return Path(path).read_bytes()
    return None


def _links(folder: str) -> dict[str, str]:
    with contextlib.suppress(OSError):
        return {entry.path: os.readlink(entry.path) for entry in os.scandir(folder) if entry.is_symlink()}
    return {}


def _write(path: str, content: bytes) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)

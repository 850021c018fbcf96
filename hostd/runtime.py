"""What keeper and hostd agree on in the runtime folder: socket, lock, and the sweep after a killed keeper."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path

from hostd.segments import FOLDER, PREFIX

SOCKET = "keeper.sock"
LOCK = "keeper.lock"
LOG = "keeper.log"  # complaints of keeper and loader; of interest only if the keeper dies, so it goes with it
FILES = (SOCKET, LOCK, LOG)
EXPORTS = "*.nbd"  # listening sockets of partitions (hostd.exports)


def lock(runtime: Path) -> int:
    """Take the runtime folder for this keeper; returns the descriptor that holds the lock until the process ends.

    The file that is locked must still be the one with the name: its last owner removes it when it ends.
    """
    path = runtime / LOCK
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except FileNotFoundError:
            pass
        except OSError as error:
            os.close(descriptor)
            if error.errno != errno.EWOULDBLOCK:
                raise
            raise OSError(errno.EBUSY, "another keeper uses this runtime folder", str(runtime)) from None
        os.close(descriptor)


def is_locked(runtime: Path) -> bool:
    """Whether a keeper lives in this folder."""
    return is_held(runtime / LOCK)


def is_held(lock: Path) -> bool:
    """Whether a process holds this lock; False where there is no such file."""
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def sweep_stale(runtime: Path) -> list[str]:
    """Remove what a keeper left that was killed: its files, and shared memory caught with a name.

    Touches nothing of a living keeper, of this folder or another. Returns what was removed.
    """
    removed: list[Path] = []
    if not is_locked(runtime):
        removed.extend(runtime / name for name in FILES if (runtime / name).exists())
        removed.extend(runtime.glob(EXPORTS))
    removed.extend(path for path in FOLDER.glob(f"{PREFIX}*-*") if _is_orphan(path))
    for path in removed:
        with suppress(FileNotFoundError):
            path.unlink()
    return [str(path) for path in removed]


def _is_orphan(path: Path) -> bool:
    """Made by a keeper of this user that is no more. A pid that lives again as another program is no keeper."""
    pid = path.name.removeprefix(PREFIX).partition("-")[0]
    with suppress(FileNotFoundError):
        facts = path.lstat()
        if not pid.isdigit() or facts.st_uid != os.geteuid() or not stat.S_ISREG(facts.st_mode):
            return False  # shared memory is a file: a folder or a link of that name is somebody else's
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip() != "pv-keeper"
    return pid.isdigit() and path.exists()

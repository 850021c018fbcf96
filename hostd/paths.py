"""The runtime and the state folder of a host, and the files in them.

The runtime folder holds sockets and lives as long as the host; the state folder holds databases,
disk images and the log, and stays. Several hosts run side by side with a runtime folder each, so a
runtime folder that was named brings its own state folder with it unless that is named too: two
hosts must never share one resource database.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hostd.errors import HostError

SOCKET_PATH_MAX = 107  # sun_path is 108 bytes with the closing zero
RUNTIME_VARIABLE = "PARTVISOR_RUNTIME_DIR"
STATE_VARIABLE = "PARTVISOR_STATE_DIR"


@dataclass(frozen=True)
class Paths:
    """Names of all files that host and tools agree on. Making them is not their task."""

    runtime: Path
    state: Path

    @property
    def api_socket(self) -> Path:
        return self.runtime / "api.sock"

    @property
    def keeper_socket(self) -> Path:
        return self.runtime / "keeper.sock"

    @property
    def log(self) -> Path:
        return self.state / "hostd.log"

    @property
    def lock(self) -> Path:
        return self.state / "lock"

    @property
    def resources(self) -> Path:
        return self.state / "resources.db"

    @property
    def decisions(self) -> Path:
        return self.state / "decisions.db"

    @property
    def policies(self) -> Path:
        return self.state / "policies.db"

    @property
    def disks(self) -> Path:
        return self.state / "disks"


def resolve(
    runtime: str | os.PathLike[str] | None = None,
    state: str | os.PathLike[str] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Paths:
    """The folders by flag, then environment, then the rules of XDG, then the system's place."""
    named = runtime or environ.get(RUNTIME_VARIABLE)
    runtime_path = Path(os.path.abspath(named)) if named else _default_runtime(environ)
    chosen = state or environ.get(STATE_VARIABLE)
    if chosen:
        state_path = Path(os.path.abspath(chosen))
    else:
        state_path = runtime_path / "state" if named else _default_state(environ)
    return Paths(runtime_path, state_path)


def _default_runtime(environ: Mapping[str, str]) -> Path:
    base = environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(base):  # the standard says to ignore a relative one
        return Path(base) / "partvisor"
    if os.geteuid() == 0:
        return Path("/run/partvisor")
    return Path(f"/tmp/partvisor-{os.geteuid()}")


def _default_state(environ: Mapping[str, str]) -> Path:
    base = environ.get("XDG_STATE_HOME", "")
    if os.path.isabs(base):
        return Path(base) / "partvisor"
    if os.geteuid() == 0:
        return Path("/var/lib/partvisor")
    home = environ.get("HOME") or os.path.expanduser("~")
    return Path(home) / ".local/state/partvisor"


def nearest(path: Path) -> Path:
    """The path itself, or the folder above it that exists."""
    return next(one for one in (path, *path.absolute().parents) if one.exists())


def prepare(paths: Paths) -> None:
    """Make both folders, mode 0700, and refuse those that somebody else could have prepared."""
    longest = max((paths.api_socket, paths.keeper_socket), key=lambda path: len(os.fsencode(path)))
    length = len(os.fsencode(longest))
    if length > SOCKET_PATH_MAX:
        raise HostError(
            "usage",
            f"{longest}: {length} bytes are too long for the name of a socket (at most {SOCKET_PATH_MAX}); "
            "choose a shorter --runtime-dir",
        )
    _prepare_folder(paths.runtime)
    _prepare_folder(paths.state)


def _prepare_folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            pass
        found = os.lstat(path)  # not stat: a link in /tmp may belong to anybody
    except OSError as error:
        raise HostError("usage", f"{path}: can not make the folder: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise HostError("usage", f"{path}: is not a folder (links are not followed)")
    if found.st_uid != os.geteuid():
        raise HostError("denied", f"{path}: belongs to uid {found.st_uid}, not to uid {os.geteuid()} of this host")
    if found.st_mode & 0o022:
        raise HostError(
            "denied", f"{path}: others may write to it (mode {stat.S_IMODE(found.st_mode):04o}); chmod 700 cures it"
        )


def lock_state(paths: Paths) -> int:
    """Take the state folder for this process; returns the descriptor that holds the lock.

    The lock ends with the descriptor, so it never outlives a killed daemon.
    """
    descriptor = os.open(paths.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno != errno.EWOULDBLOCK:
            raise
        raise HostError("conflict", f"{paths.state}: another hostd uses this state folder") from error
    return descriptor

"""What this machine allows, as a list of checks: PASS, WARN with what it costs, FAIL with a cure.

Needs no running host. Each check tries the thing itself instead of reading a version, and leaves
nothing behind. Those of keeper, loader and sandbox are theirs (`hostd.probe`); here are the rest.
"""

import ctypes
import errno
import importlib.util
import os
import resource
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from hostd import sandbox
from hostd.disk_interrupts import default_processors, ends_apart
from hostd.paths import Paths, nearest
from hostd.syscalls import UnknownArchitecture, numbers
from hostd.units import show_size

MIB = 1 << 20
MEMORY_LEAST = 1024 * MIB
MEMLOCK_WISHED = 64 * MIB

SECCOMP_GET_ACTION_AVAIL = 2
SECCOMP_RET_ERRNO = 0x50000
LANDLOCK_CREATE_RULESET = 444  # one number on all architectures, as every call since 424
LANDLOCK_CREATE_RULESET_VERSION = 1

Result = Literal["PASS", "WARN", "FAIL"]
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Check:
    """One line of the report."""

    name: str
    result: Result
    detail: str
    cure: str | None = None

    def document(self) -> dict[str, str | None]:
        return asdict(self)


def run(paths: Paths | None = None) -> list[Check]:
    """All checks, in the order of the report. `paths` adds those of a host's folders."""
    checks: list[Check] = []
    for check in _CHECKS:
        try:
            checks += check()
        except (OSError, UnknownArchitecture, subprocess.SubprocessError, ValueError) as error:
            name = check.__name__.strip("_").replace("_", " ")
            checks.append(Check(name, "FAIL", f"could not be checked: {error}"))
    if paths is not None:
        checks += _folders(paths)
    return checks


def _call(name: str, *arguments: object, number: int | None = None) -> int:
    """A system call by name; OSError where it fails, ENOSYS where its number is not known."""
    number = numbers().get(name) if number is None else number
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    done = int(_libc.syscall(ctypes.c_long(number), *arguments))
    if done < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return done


# Without these the host works, but slower, unscheduled, or with weaker walls around guests.
_WARNINGS = frozenset(
    ("started as root", "guest confinement", "open files", "membarrier", "thread id address", "real-time scheduling",
     "counted calls", "trapped memory", "processor tables", "networks of guests", "worlds")
)


def _probes() -> Iterator[Check]:
    """What keeper, loader and sandbox need; tried in a process of its own, because namespaces ask for one thread."""
    for found in sandbox.probe():
        result: Result = "PASS" if found["ok"] else "WARN" if found["name"] in _WARNINGS else "FAIL"
        yield Check(found["name"], result, found["detail"], found["cure"] or None)


def _processors() -> Iterator[Check]:
    usable = sorted(os.sched_getaffinity(0))
    yield Check(
        "processors",
        "PASS" if len(usable) > 1 else "WARN",
        f"{len(usable)} usable: {', '.join(map(str, usable))}",
        None if len(usable) > 1 else "with one processor host and guests take turns; figures say little",
    )


def _memory() -> Iterator[Check]:
    facts = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(facts["MemAvailable"].split()[0]) * 1024
    yield Check(
        "memory",
        "PASS" if available >= MEMORY_LEAST else "WARN",
        f"{show_size(available)} available",
        None if available >= MEMORY_LEAST else "partition memory is allocated at the start; lower it in the manifest",
    )


def _modules() -> Iterator[Check]:
    folder = Path(__file__).resolve().parents[1] / "pyx"
    missing = [
        path.stem for path in sorted(folder.glob("*.pyx")) if importlib.util.find_spec(f"pyx.{path.stem}") is None
    ]
    yield Check(
        "modules",
        "FAIL" if missing else "PASS",
        f"not built: {', '.join(missing)}" if missing else "all compiled modules are there",
        "tools/setup-environment builds them" if missing else None,
    )


def _kernel() -> Iterator[Check]:
    """Calls of the kernel that the data plane is built on."""
    yield _tried("futex_waitv", _futex_waitv, "a server sleeps on many doorbells with it; Linux 5.16 has it")
    yield _tried("seccomp", _seccomp, "guests are confined by it; build the kernel with CONFIG_SECCOMP_FILTER")
    yield _tried("landlock", _landlock, "a second wall around guests; boot with lsm=landlock,...", "WARN")
    yield _tried(
        "userfaultfd", _userfaultfd, "discovery of hardware needs it; sysctl vm.unprivileged_userfaultfd=1", "WARN"
    )
    yield _tried("io_uring", _io_uring, "direct disk I/O needs it; sysctl kernel.io_uring_disabled=0", "WARN")


def _tried(name: str, attempt: Callable[[], object], cure: str, otherwise: Result = "FAIL") -> Check:
    try:
        detail = attempt()
    except OSError as error:
        return Check(name, otherwise, f"not available: {error.strerror}", cure)
    return Check(name, "PASS", detail if isinstance(detail, str) else "works")


def _futex_waitv() -> None:
    try:
        _call("futex_waitv", None, 0, 0, None, 0)
    except OSError as error:
        if error.errno != errno.EINVAL:  # which is right for an empty list
            raise


def _seccomp() -> None:
    action = ctypes.c_uint32(SECCOMP_RET_ERRNO)
    _call("seccomp", SECCOMP_GET_ACTION_AVAIL, 0, ctypes.byref(action))


def _landlock() -> str:
    version = _call("landlock", None, 0, LANDLOCK_CREATE_RULESET_VERSION, number=LANDLOCK_CREATE_RULESET)
    return f"version {version}"


def _userfaultfd() -> None:
    os.close(_call("userfaultfd", os.O_CLOEXEC))


def _io_uring() -> None:
    parameters = ctypes.create_string_buffer(120)  # struct io_uring_params, zeroed
    os.close(_call("io_uring_setup", 1, parameters))


def _locked_memory() -> Iterator[Check]:
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    locked = soft == resource.RLIM_INFINITY or soft >= MEMLOCK_WISHED or os.geteuid() == 0
    yield Check(
        "locked memory",
        "PASS" if locked else "WARN",
        "unlimited" if soft == resource.RLIM_INFINITY else f"RLIMIT_MEMLOCK {show_size(soft)}",
        None if locked else "rings may be swapped out under pressure; ulimit -l or LimitMEMLOCK= of the unit",
    )


def _interpreter() -> Iterator[Check]:
    """Folders above the interpreter may be closed only where guests get a mount namespace of their own."""
    folders = (Path(sys.prefix), Path(sys.base_prefix), Path(__file__).resolve().parents[1])
    closed = {parent for folder in folders for parent in folder.parents if not parent.stat().st_mode & stat.S_IXOTH}
    names = ", ".join(sorted(map(str, closed)))
    if closed and os.geteuid() != 0:
        yield Check("interpreter path", "WARN", f"lies under {names}, closed to other users", f"chmod o+x {names}")
    elif closed:
        detail = f"lies under {names}, closed to other users; guests see it through mounts of their own"
        yield Check("interpreter path", "PASS", detail)
    else:
        yield Check("interpreter path", "PASS", f"{sys.prefix} can be reached by every user")


def _tun() -> Iterator[Check]:
    node = Path("/dev/net/tun")
    if not node.exists():
        yield Check("tun", "WARN", f"{node} does not exist: no TAP backend", "modprobe tun, or mknod in the container")
        return
    mode = stat.S_IMODE(node.stat().st_mode)
    usable = os.access(node, os.R_OK | os.W_OK)
    yield Check(
        "tun",
        "PASS" if usable else "WARN",
        f"{node} has mode {mode:04o}",
        None if usable else f"chmod 666 {node}, or start the host as root",
    )


def _folders(paths: Paths) -> Iterator[Check]:
    for what, path in (("runtime folder", paths.runtime), ("state folder", paths.state)):
        existing = nearest(path)
        usable = existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
        yield Check(
            what,
            "PASS" if usable else "FAIL",
            f"{path}" + ("" if existing == path else " does not exist yet"),
            None if usable else f"{existing} is not writable; name another folder",
        )
    yield _disk_interrupts(paths.disks)


def _disk_interrupts(folder: Path) -> Check:
    """Where direct writes to the usual disk files end (hostd.disk_interrupts)."""
    chosen = default_processors([folder]).infrastructure
    if ends_apart([folder], chosen):
        return Check("disk interrupts", "PASS", f"none on processor {chosen[0]}, which serves the infrastructure")
    detail = f"those of {folder} may arrive on processor {chosen[0]}, too: data threads give way to direct writes"
    return Check("disk interrupts", "PASS", detail)


_CHECKS = (_probes, _processors, _memory, _modules, _kernel, _locked_memory, _interpreter, _tun)

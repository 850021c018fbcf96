"""Confinement of a new process, step by step, between its clone and its entry (rules 27 and 28, design.md section 10).

`Abilities.find()` runs once in the loader and says what this host allows; `clone_flags` chooses the namespaces;
`enter` runs in the new process, from the widest step to the narrowest: mounts, limits, ids, death signal, filter.
Where something is missing a guest is refused, with the missing things named, unless its spec says `unsafe`; then it
runs with what there is and the report says what that was.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hostd import rootfs, seccomp
from hostd.startspec import SpecError, StartSpec
from pyx import process

NAMESPACES = {
    "pid": process.CLONE_NEWPID,
    "mount": process.CLONE_NEWNS,
    "net": process.CLONE_NEWNET,
    "ipc": process.CLONE_NEWIPC,
    "uts": process.CLONE_NEWUTS,
}
MIB = 1 << 20
GUEST_LIMITS = {
    "core": 0,
    "nofile": 64,  # raised by the number of descriptors that the guest is handed
    "nproc": 64,  # processes and threads of the guest's uid
    "fsize": 64 * MIB,  # its only writable file system is no larger
    "data": 1024 * MIB,
    "memlock": 8 * MIB,
    "msgqueue": 0,
    "nice": 0,
    "rtprio": 0,
    "sigpending": 256,
}
ROLE_LIMITS = {"core": 0}


class Refused(Exception):
    """The host cannot confine the process as asked; the text names what is missing."""

    code = "denied"


@dataclass
class Abilities:
    """What this host lets the loader do. `missing` is empty exactly if a guest can be confined fully."""

    uid: int = field(default_factory=os.geteuid)  # of the loader: unknown inside a fresh user namespace
    gid: int = field(default_factory=os.getegid)
    flags: int = 0  # CLONE_NEW* for a guest
    namespaces: tuple[str, ...] = ()
    template: int | None = None  # mount namespace with the guest root
    missing: list[str] = field(default_factory=list)

    @property
    def root(self) -> bool:
        return self.uid == 0

    @property
    def user_namespace(self) -> bool:
        return bool(self.flags & process.CLONE_NEWUSER)

    @classmethod
    def find(cls) -> Abilities:
        """Try everything once; the caller must have one thread."""
        found = cls()
        if not found.root:
            found.missing.append("an own uid for each guest: hostd was not started as root")
        flags = 0 if found.root else process.CLONE_NEWUSER
        for flag in NAMESPACES.values():
            flags |= flag
        failure = _try(flags)
        if failure is None:
            found.flags, found.namespaces = flags, tuple(NAMESPACES)
        else:
            found.missing.append(f"namespaces ({', '.join(NAMESPACES)}): {failure}")
        if found.root and found.flags:
            try:
                found.template = rootfs.make_template()
                found.flags &= ~process.CLONE_NEWNS  # a guest copies the template's namespace instead
            except OSError as error:
                found.missing.append(str(error))
                found.flags, found.namespaces = 0, ()
        try:
            seccomp.program("guest")
        except Exception as error:  # another processor architecture
            found.missing.append(str(error))
        return found

    def clone_flags(self, sandbox: str, unsafe: bool) -> int:
        """Namespaces of a new process; Refused for a guest that cannot be confined and did not accept that."""
        if sandbox != "guest":
            return 0
        if self.missing and not unsafe:
            raise Refused("sandbox guest: missing here: " + "; ".join(self.missing))
        return self.flags


def enter(spec: StartSpec, abilities: Abilities, keeper: int) -> dict[str, Any]:
    """Confine the calling process, a fresh clone, as `spec` says. Returns the report of the start reply.

    `keeper` is a pidfd of the process whose death must be this one's. Raises OSError, Refused or SpecError.
    """
    report: dict[str, Any] = {"sandbox": spec.sandbox, "namespaces": [], "pivot": False, "uid": False, "seccomp": False}
    uid = os.geteuid() if spec.uid is None else spec.uid
    gid = (os.getegid() if spec.uid is None else uid) if spec.gid is None else spec.gid
    if spec.sandbox == "guest":
        if abilities.root and not uid and not spec.unsafe:
            raise Refused("sandbox guest: needs spec.uid, a uid of its own that is not 0")
        _enter_namespaces(spec, abilities, report, uid, gid)
    _place(spec)
    _limit(spec)
    if spec.sandbox == "guest" and (abilities.root or abilities.user_namespace):
        process.drop_bounding_set()
    if abilities.root and (uid, gid) != (0, 0):
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        report["uid"] = uid != 0
        if not report["pivot"]:
            _check_interpreter(uid)
    elif spec.uid not in (None, os.geteuid()) and not spec.unsafe:
        raise Refused(f"uid {spec.uid}: only root may start processes of another uid")
    if spec.sandbox == "guest":
        process.clear_capabilities()
        report["capabilities"] = "none"
    _tie_to(keeper)
    if spec.sandbox != "none":
        process.set_dumpable(False)
        process.set_no_new_privileges()
        report["no_new_privileges"] = True
        _enter_folder(spec, report)
        _filter(spec, report)
    else:
        _enter_folder(spec, report)
    return report


def _check_interpreter(uid: int) -> None:
    """Without the guest root, a uid that cannot reach the interpreter's folder would die at its first late import."""
    library = Path(os.__file__).parent
    for folder in [*reversed(library.parents), library]:
        if not os.access(folder, os.X_OK):
            raise Refused(f"the interpreter lies below {folder}, closed for uid {uid}; chmod o+x {folder} cures it")


def _enter_namespaces(spec: StartSpec, abilities: Abilities, report: dict[str, Any], uid: int, gid: int) -> None:
    """The clone has made the namespaces; this fills them."""
    if not abilities.flags:
        return
    report["namespaces"] = list(abilities.namespaces)
    if abilities.user_namespace:
        _map_ids(abilities.uid, abilities.gid)
        uid, gid = abilities.uid, abilities.gid
        report["namespaces"].append("user")
    program = None
    if spec.directory is not None:
        try:
            program = rootfs.open_program(spec.directory)
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            raise SpecError(f"spec.directory: {spec.directory}: {error.strerror}") from error
    if abilities.template is not None:
        process.setns(abilities.template, process.CLONE_NEWNS)
        process.unshare(process.CLONE_NEWNS)
    else:
        rootfs.build()
    rootfs.complete(uid, gid, program)
    report["pivot"] = True
    process.sethostname(spec.name)
    process.loopback_up()


def _map_ids(uid: int, gid: int) -> None:
    """In a user namespace of an ordinary user: the own ids mean themselves, no others exist."""
    for path, content in (
        ("/proc/self/setgroups", "deny"),
        ("/proc/self/uid_map", f"{uid} {uid} 1"),
        ("/proc/self/gid_map", f"{gid} {gid} 1"),
    ):
        with open(path, "w", encoding="ascii") as file:
            file.write(content)


def _place(spec: StartSpec) -> None:
    if spec.processors is not None:
        os.sched_setaffinity(0, spec.processors)
    if spec.nice is not None:
        os.setpriority(os.PRIO_PROCESS, 0, spec.nice)


def _limit(spec: StartSpec) -> None:
    limits = dict(GUEST_LIMITS if spec.sandbox == "guest" else ROLE_LIMITS if spec.sandbox == "role" else {})
    if "nofile" in limits:
        limits["nofile"] += len(spec.fds)
    for name, value in (limits | spec.limits).items():
        number = getattr(resource, f"RLIMIT_{name.upper()}", None)
        if number is None:
            raise SpecError(f"spec.limits.{name}: no such limit")
        _, hard = resource.getrlimit(number)
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)  # raising it would need CAP_SYS_RESOURCE
        resource.setrlimit(number, (value, value))


def _tie_to(keeper: int) -> None:
    """Die with the keeper. Set after the change of uid, which clears it; the keeper may be dead already."""
    process.set_death_signal(signal.SIGKILL)
    poll = select.poll()
    poll.register(keeper, select.POLLIN)
    if poll.poll(0):
        os._exit(1)
    os.close(keeper)


def _enter_folder(spec: StartSpec, report: dict[str, Any]) -> None:
    """Make the program folder the current one, as the uid that will run there."""
    folder = rootfs.PROGRAM if report["pivot"] else spec.directory
    if spec.directory is None:
        os.chdir("/")
        return
    try:
        os.chdir(folder)
        os.listdir(".")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SpecError(f"spec.directory: {spec.directory}: {error.strerror}") from error
    except PermissionError:
        raise Refused(
            f"{spec.directory}: not readable for uid {os.geteuid()}; chmod o+rX on the folder and its files cures it"
        ) from None


def _filter(spec: StartSpec, report: dict[str, Any]) -> None:
    profile = spec.sandbox if spec.sandbox == "role" else "guest" if spec.entry else "program"
    try:
        process.install_filter(seccomp.program(profile))
    except (OSError, seccomp.UnknownArchitecture):
        if not spec.unsafe:
            raise
    else:
        report["seccomp"] = True
        report["profile"] = profile


def _try(flags: int) -> str | None:
    """Reason why a clone with `flags` fails, None if it works."""
    try:
        pid, pidfd = process.clone(flags)
    except OSError as error:
        return f"{error.strerror} (CAP_SYS_ADMIN, or user namespaces for ordinary users, are needed)"
    if pid == 0:
        os._exit(0)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)
    os.close(pidfd)
    return None


def probe() -> list[dict[str, Any]]:
    """What this host allows, for `hostctl doctor`: a list of {"name", "ok", "detail", "cure"}."""
    from hostd import probe as probing  # not for the loader, which imports this module

    return probing.run()

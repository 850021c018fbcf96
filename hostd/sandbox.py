"""Confinement of a new process, step by step, between its clone and its entry (rules 27 and 28, design.md section 10).

`enter` runs in the new process, from the widest step to the narrowest: mounts, limits, ids, death signal, filter.
hostd/abilities.py has found out before what this host allows.
Where something is missing a guest is refused, with the missing things named, unless its spec says `unsafe`; then it
runs with what there is and the report says what that was.
"""

from __future__ import annotations

import os
import resource
import select
import signal
from pathlib import Path
from typing import Any

from hostd import rootfs, seccomp, tap
from hostd.abilities import Abilities, Refused, map_ids
from hostd.startspec import SpecError, StartSpec
from hostd.syscalls import UnknownArchitecture
from pyx import process

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


def enter(
    spec: StartSpec, abilities: Abilities, keeper: int, handed: dict[str, int], taps: list[int]
) -> dict[str, Any]:
    """Confine the calling process, a fresh clone, as `spec` says. Returns the report of the start reply.

    `keeper` is a pidfd of the process whose death must be this one's. `handed` gets the descriptors that the host
    shall have of this process, by name, `taps` those of its network interfaces. Raises OSError, Refused, SpecError or
    TapError.
    """
    report: dict[str, Any] = {"sandbox": spec.sandbox, "namespaces": [], "pivot": False, "uid": False, "seccomp": False}
    uid = os.geteuid() if spec.uid is None else spec.uid
    gid = (os.getegid() if spec.uid is None else uid) if spec.gid is None else spec.gid
    if spec.sandbox == "guest":
        if abilities.root and not uid and not spec.unsafe:
            raise Refused("sandbox guest: needs spec.uid, a uid of its own that is not 0")
        _enter_namespaces(spec, abilities, report, uid, gid, taps)
    _place(spec)
    _limit(spec, counted_alone=(abilities.root and uid != 0) or abilities.user_namespace)
    if spec.sandbox == "guest" and (abilities.root or abilities.user_namespace):
        _drop_bounding_set(spec.unsafe)
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
        _filter(spec, report, handed)
    else:
        _enter_folder(spec, report)
    return report


def _check_interpreter(uid: int) -> None:
    """Without the guest root, a uid that cannot reach the interpreter's folder would die at its first late import."""
    library = Path(os.__file__).parent
    for folder in [*reversed(library.parents), library]:
        if not os.access(folder, os.X_OK):
            raise Refused(f"the interpreter lies below {folder}, closed for uid {uid}; chmod o+x {folder} cures it")


def _enter_namespaces(
    spec: StartSpec, abilities: Abilities, report: dict[str, Any], uid: int, gid: int, taps: list[int]
) -> None:
    """The clone has made the namespaces; this fills them."""
    report["namespaces"] = list(abilities.namespaces)
    if abilities.user_namespace:
        map_ids(abilities.uid, abilities.gid)
        uid, gid = abilities.uid, abilities.gid
    if "net" in abilities.namespaces:
        process.loopback_up()
        if spec.network:  # while the rights over the namespace and the host's nodes are there
            taps += tap.make(spec.network)
            report["network"] = {"missing": tap.free_ports_and_ping(gid)}
    elif spec.network:
        raise Refused("network interfaces: no network namespace here; `hostctl doctor` names what is missing")
    if "uts" in abilities.namespaces:
        process.sethostname(spec.name)
    if "mount" not in abilities.namespaces:
        return
    program = None
    if spec.directory is not None:
        try:
            program = rootfs.open_program(spec.directory)
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            raise SpecError(f"spec.directory: {spec.directory}: {error.strerror}") from error
    if abilities.template is not None:
        process.setns(abilities.template, process.CLONE_NEWNS)
        process.unshare(process.CLONE_NEWNS)
        rootfs.mount_processes("/proc")
    else:
        rootfs.build(processes=True)
    rootfs.complete(uid, gid, program, spec.config.get("files") or {})
    report["pivot"] = True


def _place(spec: StartSpec) -> None:
    try:
        if spec.processors is not None:
            os.sched_setaffinity(0, spec.processors)
    except OSError as error:
        raise SpecError(f"spec.processors: {list(spec.processors or ())}: {error.strerror}") from error
    if spec.batch:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    try:
        if spec.nice is not None:
            os.setpriority(os.PRIO_PROCESS, 0, spec.nice)
    except OSError as error:
        raise Refused(f"spec.nice: {spec.nice}: {error.strerror}") from error


def _drop_bounding_set(unsafe: bool) -> None:
    try:
        process.drop_bounding_set()
    except PermissionError:  # a container's root without CAP_SETPCAP; no_new_privileges stands in the way of exec too
        if not unsafe:
            raise


def _limit(spec: StartSpec, counted_alone: bool) -> None:
    """`counted_alone`: no other process counts against this one's number of processes."""
    limits = dict(GUEST_LIMITS if spec.sandbox == "guest" else ROLE_LIMITS if spec.sandbox == "role" else {})
    if "nofile" in limits:
        limits["nofile"] += len(spec.fds)
    if not counted_alone:
        limits.pop("nproc", None)
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
    if spec.directory is None:
        os.chdir("/")
        return
    try:
        os.chdir(rootfs.PROGRAM if report["pivot"] else spec.directory)
        os.listdir(".")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SpecError(f"spec.directory: {spec.directory}: {error.strerror}") from error
    except PermissionError:
        raise Refused(
            f"{spec.directory}: not readable for uid {os.geteuid()}; chmod o+rX on the folder and its files cures it"
        ) from None


def _filter(spec: StartSpec, report: dict[str, Any], handed: dict[str, int]) -> None:
    """From here on this process must not make a call that the filter refuses until `handed` has been sent: with a
    listener such a call waits for its answer."""
    profile = spec.sandbox if spec.sandbox == "role" else "guest" if spec.entry else "program"
    try:
        counted = spec.counted and _filter_with_listener(profile, handed)
        if not counted:
            process.install_filter(seccomp.program(profile))
    except (OSError, UnknownArchitecture):
        if not spec.unsafe:
            raise
    else:
        report["seccomp"] = True
        report["profile"] = profile
        if spec.counted:
            report["counted"] = counted


def _filter_with_listener(profile: str, handed: dict[str, int]) -> bool:
    """False where the kernel has no listeners, or a filter around this process has one already (EBUSY): the calls are
    refused all the same, and nobody counts them."""
    try:
        handed["refusals"] = process.install_counted_filter(seccomp.program(profile, counted=True))
    except OSError:
        return False
    return True


def probe() -> list[dict[str, Any]]:
    """What this host allows, for `hostctl doctor`: a list of {"name", "ok", "detail", "cure"}."""
    from hostd import probe as probing  # not for the loader, which imports this module

    return probing.run()

"""What this host allows, check by check, for `hostctl doctor`: name, whether it is there, what was seen, the cure.

`run()` works in any process: the probes that clone or unshare do so in a fresh interpreter with one thread.
"""

from __future__ import annotations

import fcntl
import ipaddress
import json
import os
import platform
import resource
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hostd import families, rootfs, seccomp, segments, tap, tcp_networks
from hostd.abilities import Abilities
from pyx import esp, memory, process, trap_memory, userfault

TIMEOUT = 20.0  # seconds
KERNEL_LEAST = (5, 16)  # futex_waitv; everything else that is needed is older
DESCRIPTORS_LEAST = 4096  # 64 partitions with some twenty segments each, and their pidfds

Check = dict[str, Any]
Found = tuple[bool, str]


def run() -> list[Check]:
    """All checks, each {"name", "ok", "detail", "cure"}; `cure` is empty where nothing is wrong."""
    result = subprocess.run(
        [sys.executable, "-P", "-m", "hostd.probe"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
        capture_output=True,
        timeout=TIMEOUT,
        check=False,
        text=True,
    )
    try:
        return json.loads(result.stdout)
    except ValueError:
        detail = (result.stderr.strip().splitlines() or [f"exit status {result.returncode}"])[-1]
        return [{"name": "probe", "ok": False, "detail": detail, "cure": "report this as a bug"}]


def _kernel() -> Found:
    release = platform.release()
    numbers = tuple(int(part) for part in release.split("-")[0].split(".")[:2])
    return numbers >= KERNEL_LEAST, f"Linux {release}"


def _architecture() -> Found:
    seccomp.program("guest")
    return True, platform.machine()


def _uid() -> Found:
    return os.geteuid() == 0, f"uid {os.geteuid()}"


def _interpreter() -> Found:
    """Folders of the guest root must be readable for others; the folders above them need not (they are made anew)."""
    for folder in rootfs.sources():
        mode = stat.S_IMODE(os.stat(folder).st_mode)
        if mode & 0o005 != 0o005:
            return False, f"{folder} has mode {mode:04o}"
    return True, ", ".join(rootfs.sources())


def _sealed_memory() -> Found:
    descriptor = segments.create(segments.MEMORY, segments.PAGE, "probe")
    try:
        segments.check(descriptor, segments.MEMORY, segments.PAGE)
        return True, f"seals {fcntl.fcntl(descriptor, fcntl.F_GET_SEALS):#x}"
    finally:
        os.close(descriptor)


def _shared_memory() -> Found:
    descriptor = segments.create("channel", segments.PAGE, "probe")
    try:
        segments.check(descriptor, "channel", segments.PAGE)
    finally:
        os.close(descriptor)
    room = os.statvfs(segments.FOLDER)
    return True, f"{room.f_bavail * room.f_frsize >> 20} MiB free in {segments.FOLDER}"


def _descriptors() -> Found:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return hard == resource.RLIM_INFINITY or hard >= DESCRIPTORS_LEAST, f"hard limit {hard}"


def _membarrier() -> Found:
    process.register_membarrier()
    return True, "global expedited"


def _thread_id() -> Found:
    return process.knows_tid_address(), "PR_GET_TID_ADDRESS"


def _pidfd() -> Found:
    os.close(os.pidfd_open(os.getpid()))
    return True, "pidfd_open"


def _real_time() -> Found:
    return _in_child("SCHED_FIFO", lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)))


def _in_child(name: str, action: Callable[[], object]) -> Found:
    """Whether a process of its own may do that."""
    pid = os.fork()
    if pid == 0:
        try:
            action()
            os._exit(0)
        except OSError as error:
            os._exit(error.errno or 1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code == 0, name if code == 0 else f"{name}: {os.strerror(code)}"


def _worlds() -> Found:
    """Holds a process of its own, as system worlds do with guests: by ptrace, and by its scheduling class."""
    from pyx.bare_switch import bare_switches

    processor = min(os.sched_getaffinity(0))
    pids = []
    try:
        for _ in range(2):
            pids.append(os.fork())
            if pids[-1] == 0:
                os.sched_setaffinity(0, [processor])
                signal.pause()
                os._exit(0)
        first, second = pids
        cost = {name: bare_switches(name, first, second, 0.0002, 0.01) for name in ("stop", "class")}
        costs = [f"{name} {seconds * 1e6:.1f} us" for name, seconds in cost.items()]
        return True, ", ".join(costs) + " a switch from here"
    finally:
        families.end(pids)


def _page_faults() -> Found:
    """Without them the hardware view of a guest is built in advance: nothing is counted, and nothing changes while it
    runs."""
    faults, kernel, features = userfault.open()
    os.close(faults)
    names = [name for name, bit in userfault.FEATURES.items() if features & bit]
    return True, f"userfaultfd, {'also' if kernel else 'not'} in system calls; {', '.join(names)}"


def _counted_calls() -> Found:
    """A filter around this host may have a listener already (some containers): then refusals are not counted."""

    def install() -> None:
        process.set_no_new_privileges()
        os.close(process.install_counted_filter(seccomp.program("guest", counted=True)))

    return _in_child("seccomp listener", install)


def _trapped_memory() -> Found:
    descriptor = segments.create(segments.MEMORY, segments.PAGE, "probe")
    try:
        memory.map_fixed(descriptor, 0, segments.PAGE)
        faults, kernel, children = trap_memory.trap([(0, segments.PAGE)])
        os.close(faults)
    finally:
        os.close(descriptor)
    return True, f"minor faults, {'also' if kernel else 'not'} in system calls, {'' if children else 'not '}in children"


def _tables() -> Found:
    """sgdt, sidt, sldt, str and smsw read the processor's tables from any program where it has no UMIP."""
    if platform.machine() != "x86_64":
        return True, "no such instructions here"
    hidden = " umip" in Path("/proc/cpuinfo").read_text()
    return hidden, "UMIP" if hidden else "no UMIP: instructions show where the kernel's tables lie"


def _networks() -> Found:
    """A namespace with a TAP in it, and a socket there: what the TCP of a guest is made of."""
    address = ipaddress.ip_interface("192.0.2.1/24")
    space, descriptor = tcp_networks.make(tap.Interface("probe", b"", tap.MTU_DEFAULT, (address,), True))
    try:
        process.setns(space, process.CLONE_NEWNET)  # this process is for the probes alone, and no other needs its own
        with socket.create_server((str(address.ip), 80)):
            return True, "a namespace of its own for each guest"
    finally:
        os.close(space)
        os.close(descriptor)


def _encryption() -> Found:
    why = esp.missing()
    return not why, why or "AES-GCM of libcrypto"


def _confinement() -> Found:
    found = Abilities.find()
    return not found.missing, "; ".join(found.missing) or f"namespaces {', '.join(found.namespaces)}; guest root built"


_CHECKS: list[tuple[str, Callable[[], Found], str]] = [
    ("kernel", _kernel, "use Linux {}.{} or newer".format(*KERNEL_LEAST)),
    ("processor architecture", _architecture, "system call numbers are known for x86_64 and aarch64 only"),
    ("started as root", _uid, "start hostd as root: each guest needs a uid of its own; or allow unsafe guests"),
    ("guest confinement", _confinement, "give CAP_SYS_ADMIN (a privileged container), or allow unsafe guests"),
    ("interpreter readable", _interpreter, "chmod o+rx the folder named: guests read it under their own uid"),
    ("sealed memory", _sealed_memory, "the kernel needs memfd_create with sealing (CONFIG_MEMFD_CREATE)"),
    ("shared memory", _shared_memory, "mount a tmpfs with enough room on /dev/shm"),
    ("process descriptors", _pidfd, "the kernel needs pidfd_open (5.3)"),
    ("open files", _descriptors, f"raise the hard limit of open files to {DESCRIPTORS_LEAST} (ulimit -Hn)"),
    ("membarrier", _membarrier, "the kernel needs CONFIG_MEMBARRIER; sleeping rings cost more without"),
    ("thread id address", _thread_id, "the kernel needs CONFIG_CHECKPOINT_RESTORE; robust locks need it"),
    ("page faults", _page_faults, "the kernel needs userfaultfd with poison (6.6); views are built in advance without"),
    ("counted calls", _counted_calls, "run hostd outside of a container with a seccomp listener of its own"),
    ("trapped memory", _trapped_memory, "trap_memory needs minor faults of shared memory (5.14) and poison (6.6)"),
    ("processor tables", _tables, "use a (virtual) processor with UMIP; guests learn kernel addresses without"),
    ("encryption", _encryption, "install OpenSSL 3 (libssl3); NICs offer no ESP without"),
    ("worlds", _worlds, "give CAP_SYS_PTRACE and CAP_SYS_NICE; guests share processors as the kernel likes without"),
    ("networks of guests", _networks, "give CAP_SYS_ADMIN, CAP_NET_ADMIN and /dev/net/tun; no TCP of guests without"),
    ("real-time scheduling", _real_time, "give CAP_SYS_NICE and a real-time budget; worlds run unscheduled without"),
]


def main() -> None:
    checks = []
    for name, probe, cure in _CHECKS:
        try:
            ok, detail = probe()
        except Exception as error:
            ok, detail = False, f"{type(error).__name__}: {error}"
        checks.append({"name": name, "ok": ok, "detail": detail, "cure": "" if ok else cure})
    json.dump(checks, sys.stdout)


if __name__ == "__main__":
    main()

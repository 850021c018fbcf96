"""What reveals or changes the host fails inside a guest, with the exact error, and is counted by partition and call
(U16, rules.md test 10). Attempts at what does not exist inside (files, processes, names) are in test_sandbox.py."""

from __future__ import annotations

import os
import platform
import select
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hostd.syscalls import numbers
from tests.framework import monitors
from tests.framework.host import Host, running
from tests.framework.puppet import Puppet

PAGE = 4096
NAME = "prober"
METRIC = "refused_system_calls_total"
HERE = -100  # AT_FDCWD
# Call and arguments. Each must be refused by the filter, before the kernel looks at any of them.
PROBES: list[tuple[str, list[Any]]] = [
    # port I/O, descriptor tables, other faces of the processor
    ("iopl", [3]), ("ioperm", [0, 1, 1]), ("modify_ldt", [0, 0, 0]), ("personality", [0x0040000]),
    # code in the kernel
    ("bpf", [0, 0, 0]), ("init_module", [0, 0, ""]), ("finit_module", [0, "", 0]), ("delete_module", ["loop", 0]),
    ("kexec_load", [0, 0, 0, 0]), ("kexec_file_load", [0, 0, 0, 0, 0]), ("perf_event_open", [0, 0, -1, -1, 0]),
    # other processes
    ("ptrace", [0, 0, 0, 0]), ("ptrace", [0x4206, 1, 0, 0]), ("process_vm_readv", [1, 0, 0, 0, 0, 0]),
    ("process_vm_writev", [1, 0, 0, 0, 0, 0]), ("process_madvise", [0, 0, 0, 0, 0]), ("process_mrelease", [0, 0]),
    ("pidfd_getfd", [0, 0, 0]), ("kcmp", [1, 1, 0, 0, 0]), ("prlimit64", [2, 4, 0, 0]),
    ("move_pages", [0, 0, 0, 0, 0, 0]), ("migrate_pages", [0, 0, 0, 0]),
    # the machine
    ("reboot", [0, 0, 0, 0]), ("swapon", ["/tmp/x", 0]), ("swapoff", ["/tmp/x"]), ("settimeofday", [0, 0]),
    ("clock_settime", [0, 0]), ("clock_adjtime", [0, 0]), ("adjtimex", [0]), ("sethostname", ["mine", 4]),
    ("setdomainname", ["mine", 4]), ("syslog", [10, 0, 0]), ("acct", ["/tmp/x"]), ("quotactl", [0, 0, 0, 0]),
    # namespaces, mounts, rights
    ("unshare", [0x10000000]), ("unshare", [0x00020000]), ("setns", [0, 0]), ("clone", [0x10000011, 0, 0, 0, 0]),
    ("mount", ["none", "/tmp", "tmpfs", 0, 0]), ("umount2", ["/program", 2]), ("pivot_root", ["/tmp", "/tmp"]),
    ("chroot", ["/tmp"]), ("open_tree", [HERE, "/", 1]), ("move_mount", [HERE, "/", HERE, "/tmp", 0]),
    ("fsopen", ["tmpfs", 0]), ("fsmount", [0, 0, 0]), ("mount_setattr", [HERE, "/", 0, 0, 0]), ("setuid", [0]),
    ("setgid", [0]), ("setgroups", [0, 0]), ("setresuid", [0, 0, 0]), ("capset", [0, 0]), ("seccomp", [0, 0, 0]),
    ("prctl", [1, 0, 0, 0, 0]), ("prctl", [4, 1, 0, 0, 0]), ("prctl", [26, 2, 0, 0, 0]),
    ("keyctl", [0, -3, 0, 0, 0]), ("add_key", ["user", "a", "b", 1, -3]), ("request_key", ["user", "a", 0, 0]),
    # memory that others map, and rings past the monitor
    ("memfd_create", ["own", 0]), ("memfd_secret", [0]), ("userfaultfd", [0]), ("userfaultfd", [1]),
    ("ftruncate", [0, 0]), ("truncate", ["/tmp/x", 0]), ("fallocate", [0, 3, 0, PAGE]),
    ("remap_file_pages", [0, PAGE, 0, 0, 0]), ("io_uring_setup", [8, 0]), ("io_uring_enter", [0, 0, 0, 0, 0, 0]),
    ("io_uring_register", [0, 0, 0, 0]), ("vmsplice", [0, 0, 0, 0]), ("madvise", [0, PAGE, 9]),
    ("madvise", [0, PAGE, 100]),
    # names that cross namespaces
    ("shmget", [0x1234, PAGE, 0o1600]), ("msgget", [0x1234, 0o1600]), ("semget", [0x1234, 1, 0o1600]),
    ("mq_open", ["queue", 0o102, 0o600, 0]), ("socket", [2, 2, 0]), ("socket", [10, 2, 0]), ("socket", [16, 3, 0]),
    ("socket", [17, 3, 0]), ("socket", [38, 5, 0]), ("socket", [40, 1, 0]), ("open_by_handle_at", [HERE, 0, 0]),
    ("name_to_handle_at", [HERE, "/", 0, 0, 0]), ("mknodat", [HERE, "/tmp/disk", 0o060600, 0x100]),
    ("ioctl", [0, 0x5412, "x"]),
    # shares of the processor
    ("sched_setaffinity", [0, 8, "1234567"]), ("sched_setscheduler", [0, 1, 0]), ("sched_setattr", [0, 0, 0]),
    ("setpriority", [0, 0, -5]), ("ioprio_set", [1, 0, 0]),
]  # fmt: skip
KNOWN = [probe for probe in PROBES if probe[0] in numbers()]

#: machine code, with rax and rdi at zeroed memory -> how it ends
FORBIDDEN = {
    "in al, dx": ("ec", "SIGSEGV"), "in eax, 0x80": ("e580", "SIGSEGV"), "out dx, al": ("ee", "SIGSEGV"),
    "insb": ("6c", "SIGSEGV"), "outsb": ("6e", "SIGSEGV"), "cli": ("fa", "SIGSEGV"), "sti": ("fb", "SIGSEGV"),
    "hlt": ("f4", "SIGSEGV"), "lgdt": ("0f0110", "SIGSEGV"), "lidt": ("0f0118", "SIGSEGV"),
    "lmsw": ("0f01f0", "SIGSEGV"),
    "lldt": ("0f00d0", "SIGSEGV"), "ltr": ("0f00d8", "SIGSEGV"), "mov rax, cr0": ("0f20c0", "SIGSEGV"),
    "mov cr3, rax": ("0f22d8", "SIGSEGV"), "mov rax, dr7": ("0f21f8", "SIGSEGV"), "rdmsr": ("0f32", "SIGSEGV"),
    "wrmsr": ("0f30", "SIGSEGV"), "rdpmc": ("31c90f33", "SIGSEGV"), "invd": ("0f08", "SIGSEGV"),
    "wbinvd": ("0f09", "SIGSEGV"), "invlpg": ("0f0138", "SIGSEGV"), "clts": ("0f06", "SIGSEGV"),
    "swapgs": ("0f01f8", "SIGSEGV"), "monitor": ("0f01c8", "SIGILL"), "mwait": ("0f01c9", "SIGILL"),
    "vmxon": ("f30fc730", "SIGILL"), "vmlaunch": ("0f01c2", "SIGILL"),
}  # fmt: skip
#: what Linux shows instead of the processor's tables where the processor lets it (UMIP): the same on every machine
DUMMIES = {
    "sgdt": ("0f0107", [0, 0, 0, 0, 0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]),
    "sidt": ("0f010f", [0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]),
    "smsw": ("0f0127", [0x33, 0x00]),
    "sldt": ("0f0007", [0, 0]),
    "str": ("0f000f", [0x40, 0]),
}

x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="instructions of x86_64")


@pytest.fixture(scope="module")
def guest(module_host: Host) -> Iterator[Puppet]:
    module_host.guest("innocent")
    yield module_host.guest(NAME)
    module_host.remove_guests()


def test_the_list_is_long_enough() -> None:
    assert len(KNOWN) >= 40 and len({call for call, _ in KNOWN}) >= 40


def test_each_probe_fails_and_is_counted(module_host: Host, guest: Puppet) -> None:
    host = module_host
    since = host.events()[-1]["sequence"]
    before = host.metrics()
    errors = [(call, guest.call("probes:call", number=numbers()[call], arguments=given)) for call, given in KNOWN]
    assert errors == [(call, "EPERM") for call, _ in KNOWN]
    wanted = {frozenset({"partition": NAME, "call": call}.items()): count
              for call, count in Counter(call for call, _ in KNOWN).items()}
    assert host.metrics().changes(before, METRIC) == wanted
    shown = host.view(NAME)["refused"]
    assert all(shown[call] >= count for call, count in Counter(call for call, _ in KNOWN).items())
    told = {event["call"]: event["reason"] for event in host.events(since)
            if event["kind"] == "refused_call" and event["partition"] == NAME}
    assert set(told) == {call for call, _ in KNOWN}
    assert {call: reason for call, reason in told.items() if reason == "not_needed"} == {}


def test_what_is_not_there_cannot_be_reached(module_host: Host, guest: Puppet) -> None:
    """Files, processes and names of the host and of other guests do not exist inside, or belong to somebody else. The
    kernel says so by itself: no call is refused by the filter, and none is counted."""
    host, before = module_host, module_host.metrics()
    abstract = f"partvisor-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0" + abstract)
        listener.listen()
        attempts: dict[tuple[str, str | int], str] = {("connect", "\0" + abstract): "ECONNREFUSED"}
        for pid in (host.pids()[name] for name in ("hostd", "keeper", "monitor", "innocent")):
            attempts |= {("kill", pid): "ESRCH", ("pidfd", pid): "ESRCH"}
            attempts |= {("open", f"/proc/{pid}/{name}"): "ENOENT" for name in ("mem", "maps", "environ", "root", "fd")}
        for path in ("/dev/mem", "/dev/kmem", "/dev/kvm", "/dev/userfaultfd", "/dev/net/tun", "/dev/vda", "/proc/kcore",
                     "/proc/kallsyms", "/proc/modules", "/proc/iomem", "/proc/cpuinfo", "/proc/interrupts",
                     "/proc/version", "/proc/cmdline", "/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/proc/net",
                     "/sys/kernel", "/sys/devices", str(host.paths.runtime), str(host.paths.state), "/etc/shadow"):
            attempts["open", path] = "ENOENT"
        attempts |= {("open", f"/proc/self/{name}"): "EACCES" for name in ("mem", "environ", "auxv")}
        attempts |= {("open", "/proc/1/mem"): "EACCES", ("shm", ""): "ENOENT", ("map file", ""): "EPERM"}
        attempts |= {("connect", str(path)): "ENOENT" for path in (host.paths.keeper_socket, host.paths.api_socket)}
        found = {(kind, on): guest.call("probes:reach", kind=kind, on=on) for kind, on in attempts}
    assert found == attempts and len(attempts) > 50
    assert host.metrics().changes(before, METRIC) == {}


def test_calls_without_a_name_are_counted_together(module_host: Host, guest: Puppet) -> None:
    before = module_host.metrics()
    for number in (505, 511, 599, 0x40000000 + 39, 0x7FFFFFFF):
        assert guest.call("probes:call", number=number, arguments=[]) == "EPERM"
    assert module_host.metrics().changes(before, METRIC) == {
        frozenset({"partition": NAME, "call": "unknown"}.items()): 5
    }


def test_allowed_calls_do_not_pass_the_monitor(module_host: Host, guest: Puppet) -> None:
    """The monitor is stopped: what the filter allows goes on, and a refused call waits until it is back."""
    number = numbers()
    before = module_host.metrics()
    monitor = module_host.pids()["monitor"]
    os.kill(monitor, signal.SIGSTOP)
    try:
        module_host.until(lambda: _stopped(monitor))
        assert guest.call("probes:call", number=number["getpid"], arguments=[], times=1000) == 1
        waiting = guest.begin("probes:call", number=number["bpf"], arguments=[0, 0, 0])
    finally:
        os.kill(monitor, signal.SIGCONT)
    assert waiting.result() == "EPERM"
    assert module_host.metrics().changes(before, METRIC) == {frozenset({"partition": NAME, "call": "bpf"}.items()): 1}


def _stopped(pid: int) -> bool:
    """Every thread: a signal reaches those that run a moment later."""
    states = [path.read_text().rpartition(")")[2].split()[0] for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return set(states) == {"T"}


def test_a_flood_of_refused_calls_is_slowed_and_counted_exactly(module_host: Host, guest: Puppet) -> None:
    """What it costs the host is bounded by a rate for each guest; nobody else is slowed (rules.md 11, 16)."""
    before, begin = module_host.metrics(), time.monotonic()
    assert guest.call("probes:call", number=numbers()["bpf"], arguments=[0, 0, 0], times=4000) == "EPERM"
    seconds = time.monotonic() - begin
    metrics = module_host.metrics()
    assert metrics.changes(before, METRIC) == {frozenset({"partition": NAME, "call": "bpf"}.items()): 4000}
    assert seconds > 0.7, "3,000 beyond the allowance, at 2,000 a second, from an allowance that half refills"
    busy = metrics.changes(before, "thread_seconds_total")
    own = {("process", "monitor"), ("mode", "busy")}
    spent = sum(value for key, value in busy.items() if own <= key and ("thread", "0") not in key)
    assert 0 < spent < 0.2 * seconds


@x86
@pytest.mark.parametrize("name", sorted(FORBIDDEN))
def test_forbidden_instructions(guest: Puppet, name: str) -> None:
    code, signal_name = FORBIDDEN[name]
    assert guest.call("probes:instruction", code=code) == signal_name


NAMED = {name: name.split()[0].rstrip(",") for name in FORBIDDEN} | {
    "insb": "ins", "outsb": "outs", "mov rax, cr0": "mov_cr", "mov cr3, rax": "mov_cr", "mov rax, dr7": "mov_dr",
    "vmxon": "vmx", "vmlaunch": "vmx",
}  # fmt: skip
INSTRUCTIONS = "refused_instructions_total"


@x86
def test_forbidden_instructions_are_counted_by_name(module_host: Host) -> None:
    """Each is named by the process that it ends; a bad address, and a guest that takes the handler away, are not."""
    guest = module_host.guest("counted")
    before, since = module_host.metrics(), module_host.events()[-1]["sequence"]
    for code, ending in FORBIDDEN.values():
        assert guest.call("probes:instruction", code=code) == ending
    wanted = Counter(NAMED.values())
    changes = module_host.metrics().changes(before, INSTRUCTIONS)
    assert {dict(key)["instruction"]: count for key, count in changes.items()} == wanted
    assert all(dict(key)["partition"] == "counted" for key in changes)
    assert module_host.metrics().changes(before, METRIC) == {}
    told = [event for event in module_host.events(since) if event["kind"] == "refused_instruction"]
    assert {event["instruction"] for event in told} == set(wanted)
    shown = module_host.view("counted")["refused"]
    assert {name: shown[f"{name} (instruction)"] for name in wanted} == wanted
    middle = module_host.metrics()
    for code in ("31c08b00", "0f0b"):  # a read at address 0; ud2
        assert guest.call("probes:instruction", code=code) in ("SIGSEGV", "SIGILL")
    assert guest.call("probes:instruction", code="fa", silent=True) == "SIGSEGV"
    assert module_host.metrics().changes(middle, INSTRUCTIONS) == {}


@x86
@pytest.mark.skipif("umip" not in Path("/proc/cpuinfo").read_text(), reason="this processor shows its tables to all")
@pytest.mark.parametrize("name", sorted(DUMMIES))
def test_instructions_that_show_the_processors_tables_show_nothing(guest: Puppet, name: str) -> None:
    code, shown = DUMMIES[name]
    assert guest.call("probes:instruction", code=code)[: len(shown)] == shown


@x86
def test_the_time_stamp_counter_is_let_through(guest: Puppet) -> None:
    """The policy: clocks of the C library read it, it shows nothing but time; a guest cannot change that (prctl 26)."""
    assert any(guest.call("probes:instruction", code="0f3148c1e2204809c2488917"))


def test_without_a_monitor_refused_calls_fail_at_once() -> None:
    """Nobody counts them then, and nobody waits: they fail closed, as calls that the kernel does not know. A first
    touch of trapped memory waits instead, for nobody looked at the page; its guest can be ended all the same."""
    with running() as host:
        plain, trapped = host.guest(NAME), host.guest("trapped", trap_memory=True)
        monitors.exhaust(host)
        host.until(lambda: host.row("monitor")["state"] == "failed")
        for guest in (plain, trapped):
            assert guest.call("probes:call", number=numbers()["bpf"], arguments=[0, 0, 0]) == "ENOSYS"
        trapped.begin("containment:touch", first=10, pages=1)
        assert select.select([trapped.wire], [], [], 0.3)[0] == [], "it went on without a look"
        assert host.kill("trapped")["exit_status"] == {"signalled": signal.SIGKILL}

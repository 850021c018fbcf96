"""The filters: bytecode against a plain reading of the tables, numbers against the kernel's headers.

The bytecode is run by an interpreter of its own here, for every number and for arguments around every value that a
rule names, on both architectures; the kernel then takes the real thing once.
"""

from __future__ import annotations

import errno
import itertools
import os
import platform
import random
import re
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from hostd import sandbox, seccomp
from hostd.seccomp import ALLOW, COUNT, GUEST, KILL, MISSING, PROFILES, REFUSE, ROLE, Apart, Check, Rule, assemble
from hostd.startspec import StartSpec
from hostd.syscalls import AUDIT_ARCHITECTURES, UnknownArchitecture, numbers
from pyx import process
from pyx.abi import CONFIG_ADDRESS, MEMORY_END

MACHINES = sorted(AUDIT_ARCHITECTURES)
needs_filter = pytest.mark.skipif(platform.machine() not in MACHINES, reason="no filter for this processor")
NUMBERS = range(600)  # the highest number of Linux 6.18 is under 500
WORD = 0xFFFFFFFF
GAP = 1 << 40  # left free below partition memory, and the longest range that a guest may name


def execute(code: bytes, architecture: int, number: int, arguments: Iterable[int]) -> int:
    """Run a filter as the kernel does; the result is its verdict."""
    data = struct.pack("<IIQ6Q", number, architecture, 0x1234, *arguments)
    program = list(struct.iter_unpack("=HBBI", code))
    accumulator, at = 0, 0
    while True:
        operation, if_true, if_false, k = program[at]
        at += 1
        match operation:
            case 0x20:
                assert k % 4 == 0, "the kernel takes aligned loads only"
                (accumulator,) = struct.unpack_from("<I", data, k)
            case 0x54:
                accumulator &= k
            case 0x15:
                at += if_true if accumulator == k else if_false
            case 0x35:
                at += if_true if accumulator >= k else if_false
            case 0x05:
                at += k
            case 0x06:
                return k
            case _:
                raise AssertionError(f"operation {operation:#x}")


def expected(rules: dict[int, Rule], otherwise: int, number: int, arguments: tuple[int, ...]) -> int:
    rule = rules.get(number, otherwise)
    if isinstance(rule, int):
        return rule
    return ALLOW if all(passes(check, arguments) for check in checks(rule)) else REFUSE


def checks(rule: Check | Apart | tuple[Check | Apart, ...]) -> tuple[Check | Apart, ...]:
    return (rule,) if isinstance(rule, Check | Apart) else rule


def passes(check: Check | Apart, arguments: tuple[int, ...]) -> bool:
    if isinstance(check, Check):
        return (arguments[check.argument] & check.mask & WORD in check.values) != check.outside
    if check.flag is not None and not arguments[check.flag[0]] & check.flag[1]:
        return True
    address, length = arguments[check.address], arguments[check.length]
    return address >= MEMORY_END or (address < CONFIG_ADDRESS - GAP and length < GAP)


def interesting(rule: Rule) -> list[tuple[int, ...]]:
    """Arguments around each value of a rule, each bit of its mask, and rubbish in the ignored half."""
    if isinstance(rule, int):
        return [(0,) * 6, (2**64 - 1,) * 6]
    found = []
    for check in checks(rule):
        for values in around(check):
            for other in (0, 0xABCD, 2**64 - 1):
                arguments = [other] * 6
                for argument, value in values.items():
                    arguments[argument] = value
                found.append(tuple(arguments))
    return found


def around(check: Check | Apart) -> list[dict[int, int]]:
    if isinstance(check, Apart):
        edges = (0, GAP, CONFIG_ADDRESS - GAP, CONFIG_ADDRESS, MEMORY_END)
        starts = [edge + by for edge in edges for by in (-1, 0, 1, 4096)]
        lengths = (0, 4096, GAP - 1, GAP, GAP + 1, CONFIG_ADDRESS, 2**64 - 1)
        return [{check.address: start % 2**64, check.length: length} for start in starts for length in lengths]
    values = {0, 1, WORD, 2**64 - 1, 1 << 32}
    for value in check.values:
        values |= {value, value + 1, (value - 1) & WORD, value | 7 << 32}
    if check.mask != WORD:
        values |= {1 << bit for bit in range(64)}
    return [{check.argument: value} for value in values]


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_bytecode_does_what_the_table_says(profile: str, machine: str) -> None:
    rules, otherwise = PROFILES[profile]
    code = assemble(rules, otherwise, machine)
    known = numbers(machine)
    table = {known[name]: rule for name, rule in rules.items() if name in known}
    for number in itertools.chain(NUMBERS, (seccomp.X32_BIT - 1,)):
        for arguments in interesting(table.get(number, otherwise)):
            verdict = execute(code, AUDIT_ARCHITECTURES[machine], number, arguments)
            assert verdict == expected(table, otherwise, number, arguments), (number, arguments)


@pytest.mark.parametrize("machine", MACHINES)
def test_counted_filters_differ_in_the_refusal_alone(machine: str) -> None:
    plain, counted = (assemble(*PROFILES["guest"], machine, refuse) for refuse in (REFUSE, COUNT))
    differing = [(one, two) for one, two in zip(
        struct.iter_unpack("=HBBI", plain), struct.iter_unpack("=HBBI", counted), strict=True) if one != two]
    assert differing and all(one == (6, 0, 0, REFUSE) and two == (6, 0, 0, COUNT) for one, two in differing)


# Argument numbers of address and length, and what else has to be set, of each call that changes mappings.
MAPPING_CALLS = {
    "munmap": (0, 1, {}), "mprotect": (0, 1, {}), "pkey_mprotect": (0, 1, {}), "madvise": (0, 1, {2: 4}),
    "mremap": (0, 1, {}), "mremap onto": (4, 2, {0: 0x7F0000000000, 1: 4096, 3: 3}), "mmap": (0, 1, {3: 0x12}),
}  # fmt: skip


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("call", sorted(MAPPING_CALLS))
def test_nothing_that_touches_partition_memory_is_let_through(call: str, machine: str) -> None:
    """Ranges that begin below, in and reach beyond it, of any length without a wrap; and ranges that do not (H8)."""
    generator = random.Random(call)
    address, length, rest = MAPPING_CALLS[call]
    code, number = assemble(*PROFILES["guest"], machine), numbers(machine)[call.split()[0]]

    def verdict(start: int, size: int) -> int:
        arguments = [0] * 6
        for argument, value in {**rest, address: start, length: size}.items():
            arguments[argument] = value
        return execute(code, AUDIT_ARCHITECTURES[machine], number, arguments)

    for _ in range(2000):
        touched = generator.randrange(CONFIG_ADDRESS, MEMORY_END)
        start = generator.choice([touched, max(0, touched - generator.getrandbits(generator.randrange(1, 47)))])
        size = touched - start + 1 + generator.getrandbits(generator.randrange(1, 47))
        assert verdict(start, size) == REFUSE, (hex(start), hex(size))
    for start in (0x400000, 0x555555554000, 0x7FFFF7FF0000, MEMORY_END):
        assert verdict(start, 1 << 30) == ALLOW


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_other_ways_to_the_same_calls(profile: str, machine: str) -> None:
    code = assemble(*PROFILES[profile], machine)
    own = AUDIT_ARCHITECTURES[machine]
    for foreign in (0, 0x40000003, 0x40000028, *(value for value in AUDIT_ARCHITECTURES.values() if value != own)):
        assert execute(code, foreign, 0, (0,) * 6) == KILL
    for number in (seccomp.X32_BIT, seccomp.X32_BIT + 1, WORD):
        assert execute(code, own, number, (0,) * 6) == REFUSE


# The calls that design.md and rule 8, 10 and 27 name, whatever the tables say.
NEVER_FOR_GUESTS = """
ftruncate truncate fallocate memfd_create memfd_secret userfaultfd io_uring_setup io_uring_enter io_uring_register
ptrace process_vm_readv process_vm_writev pidfd_getfd bpf mount umount2 pivot_root chroot unshare setns open_tree
move_mount mount_setattr fsopen fsconfig fsmount fspick keyctl add_key request_key perf_event_open open_by_handle_at
name_to_handle_at shmget shmat shmctl msgget semget iopl ioperm modify_ldt kexec_load kexec_file_load init_module
finit_module delete_module reboot swapon swapoff settimeofday clock_settime adjtimex sethostname setdomainname setuid
setgid setgroups setresuid setresgid capset personality process_madvise remap_file_pages kcmp migrate_pages
sched_setaffinity sched_setscheduler sched_setattr setpriority ioprio_set seccomp vmsplice acct quotactl syslog
"""


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", NEVER_FOR_GUESTS.split())
def test_never_for_guests(name: str, machine: str) -> None:
    number = numbers(machine).get(name)
    if number is None:
        pytest.skip(f"{machine} has no {name}")
    code = assemble(*PROFILES["guest"], machine)
    for arguments in ((0,) * 6, (1, 2, 3, 4, 5, 6), (2**64 - 1,) * 6):
        assert execute(code, AUDIT_ARCHITECTURES[machine], number, arguments) == REFUSE


@pytest.mark.parametrize(
    ("name", "arguments", "verdict"),
    [
        ("clone", (0x003D0F00, 0, 0, 0, 0, 0), ALLOW),  # a thread, as libc makes it
        ("clone", (0x01200011, 0, 0, 0, 0, 0), ALLOW),  # fork
        *(("clone", (1 << bit | 17, 0, 0, 0, 0, 0), REFUSE) for bit in (15, 17, 25, 26, 27, 28, 29, 30)),
        ("clone3", (0, 88, 0, 0, 0, 0), MISSING),
        ("madvise", (0, 4096, 4, 0, 0, 0), ALLOW),
        ("madvise", (0, 4096, 9, 0, 0, 0), REFUSE),
        ("madvise", (0, 4096, 9 | 1 << 32, 0, 0, 0), REFUSE),
        ("socket", (1, 1, 0, 0, 0, 0), ALLOW),
        *(("socket", (family, 1, 0, 0, 0, 0), REFUSE) for family in (0, 2, 10, 16, 17, 38, 40, WORD)),
        ("prctl", (1, 0, 0, 0, 0, 0), REFUSE),
        ("prctl", (4, 1, 0, 0, 0, 0), REFUSE),
        ("prctl", (15, 0, 0, 0, 0, 0), ALLOW),
        ("prlimit64", (0, 7, 0, 0, 0, 0), ALLOW),
        ("prlimit64", (1, 7, 0, 0, 0, 0), REFUSE),
        ("ioctl", (0, 0x5401, 0, 0, 0, 0), ALLOW),
        ("ioctl", (0, 0x5412, 0, 0, 0, 0), REFUSE),
        ("mknodat", (0, 0, 0o010600, 0, 0, 0), ALLOW),
        ("mknodat", (0, 0, 0o060600, 0x100, 0, 0), REFUSE),
        ("execve", (0, 0, 0, 0, 0, 0), ALLOW),
    ],
)
@pytest.mark.parametrize("machine", MACHINES)
def test_checked_arguments_of_guests(name: str, arguments: tuple[int, ...], verdict: int, machine: str) -> None:
    code = assemble(*PROFILES["guest"], machine)
    assert execute(code, AUDIT_ARCHITECTURES[machine], numbers(machine)[name], arguments) == verdict


@pytest.mark.parametrize("name", ["ftruncate", "truncate", "fallocate"])
def test_programs_map_no_segment_and_may_resize_files(name: str) -> None:
    for profile, verdict in (("program", ALLOW), ("guest", REFUSE)):
        code = assemble(*PROFILES[profile], "x86_64")
        assert execute(code, AUDIT_ARCHITECTURES["x86_64"], numbers("x86_64")[name], (0,) * 6) == verdict


def test_every_rule_names_a_known_call() -> None:
    known = set(numbers("x86_64")) | set(numbers("aarch64"))
    for profile, (rules, _) in PROFILES.items():
        assert set(rules) <= known, f"{profile}: {set(rules) - known}"
    assert not set(ROLE) & {name for name, rule in GUEST.items() if rule == ALLOW}, "guests may not do more than roles"


def test_jumps_over_more_than_255_instructions() -> None:
    """A table that alternates at every number, with long checks: the tree must jump far."""
    known = numbers("x86_64")
    check = Check(0, tuple(range(100, 140)))
    rules: dict[str, Rule] = {name: check for index, name in enumerate(sorted(known)) if index % 4 == 0}
    code = assemble(rules, REFUSE, "x86_64")
    table = {known[name]: rule for name, rule in rules.items()}
    for number in NUMBERS:
        for first in (99, 100, 139, 140):
            arguments = (first, 0, 0, 0, 0, 0)
            verdict = execute(code, AUDIT_ARCHITECTURES["x86_64"], number, arguments)
            assert verdict == expected(table, REFUSE, number, arguments)


def test_too_long_filters_are_refused() -> None:
    rules: dict[str, Rule] = dict.fromkeys(list(numbers("x86_64"))[::2], Check(0, tuple(range(255))))
    with pytest.raises(ValueError, match="4096"):
        assemble(rules, REFUSE, "x86_64")


def test_unknown_architecture_is_named() -> None:
    with pytest.raises(UnknownArchitecture, match="s390x"):
        assemble(GUEST, REFUSE, "s390x")


HEADERS = {
    "x86_64": "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
    "aarch64": "/usr/include/asm-generic/unistd.h",
}


@pytest.mark.parametrize("machine", MACHINES)
def test_numbers_equal_the_kernels(machine: str) -> None:
    header = Path(HEADERS[machine])
    if not header.exists():
        pytest.skip(f"{header} is not installed")
    text = header.read_text()
    theirs = {name: int(number) for name, number in re.findall(r"#define __NR_(\w+)\s+(\d+)", text)}
    theirs |= {name: int(number) for name, number in re.findall(r"#define __NR3264_(\w+)\s+(\d+)", text)}
    compared = {name: number for name, number in numbers(machine).items() if name in theirs}
    assert len(compared) > 200
    assert compared == {name: theirs[name] for name in compared}


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_the_kernel_takes_the_filter(profile: str) -> None:
    """And enforces it at once: mount fails with EPERM even before the kernel looks at its arguments."""
    if platform.machine() not in MACHINES:
        pytest.skip("no filter for this processor")
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            process.set_no_new_privileges()
            process.install_filter(seccomp.program(profile))
            try:
                process.mount("", "/nowhere", "", 0, "")
            except OSError as error:
                status = 0 if error.errno == errno.EPERM else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize("program", [b"", b"\0" * 7, b"\0" * (8 * 4097)])
def test_malformed_programs_are_refused(program: bytes) -> None:
    with pytest.raises(OSError):
        process.install_filter(program)


def in_child(body: Callable[[], None]) -> int:
    """Exit code of a fresh process that runs `body`: 0, or the errno that it raised."""
    pid = os.fork()
    if pid == 0:
        try:
            process.set_no_new_privileges()
            body()
            os._exit(0)
        except OSError as error:
            os._exit(error.errno or 255)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@needs_filter
def test_one_listener_for_each_process() -> None:
    """Of a container around the host, for example. The filter alone can still be had."""

    def twice(install: Callable[[bytes], object]) -> Callable[[], None]:
        def body() -> None:
            process.install_counted_filter(seccomp.program("role", counted=True))
            install(seccomp.program("guest"))

        return body

    assert in_child(twice(process.install_counted_filter)) == errno.EBUSY
    assert in_child(twice(process.install_filter)) == 0


def test_without_a_listener_calls_are_refused_uncounted(monkeypatch: pytest.MonkeyPatch) -> None:
    installed: list[bytes] = []

    def busy(_program: bytes) -> int:
        raise OSError(errno.EBUSY, "listener")

    monkeypatch.setattr(process, "install_counted_filter", busy)
    monkeypatch.setattr(process, "install_filter", installed.append)
    report: dict[str, object] = {}
    handed: dict[str, int] = {}
    sandbox._filter(StartSpec("g", "guest", entry="a:b", sandbox="guest", counted=True), report, handed)
    assert (report["seccomp"], report["counted"], handed) == (True, False, {})
    assert installed == [seccomp.program("guest")]


@needs_filter
def test_a_refused_call_without_a_listener_fails_at_once() -> None:
    """Whoever held it has ended: the kernel answers, and nobody waits."""

    def body() -> None:
        os.close(process.install_counted_filter(seccomp.program("guest", counted=True)))
        process.sethostname("mine")

    assert in_child(body) == errno.ENOSYS

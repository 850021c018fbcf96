"""System-call filters: tables of what a partition may call, and a small assembler from them to kernel bytecode.

Profiles (rule 27, U16):

| profile   | for                                    | otherwise |
|-----------|----------------------------------------|-----------|
| `guest`   | Python guests, which map segments      | EPERM     |
| `program` | unmodified programs, which map none    | EPERM     |
| `role`    | infrastructure partitions              | allowed   |

A call that is not allowed fails with EPERM instead of killing its caller, so that a guest sees a named reason. Of a
host's guests the monitor gives that answer and counts it by call (`counted`, pyx/trap.pyx); an allowed call takes the
same way through the filter either way. The filter sees registers only, never memory behind a pointer: `clone3`, whose
flags lie in memory, answers ENOSYS, and libc falls back to `clone`; libc tries it for every thread, so it is not
counted. All checked values are 32 bits wide in the kernel, so only those bits are compared; of addresses and lengths
only the upper half, because partition memory lies between bounds of 4 GiB.
"""

from __future__ import annotations

import errno
import platform
import struct
from functools import cache
from typing import NamedTuple

from hostd.syscalls import AUDIT_ARCHITECTURES, UnknownArchitecture, numbers
from pyx.abi import CONFIG_ADDRESS, MEMORY_END

ALLOW = 0x7FFF0000  # SECCOMP_RET_*
KILL = 0x80000000
REFUSE = 0x00050000 | errno.EPERM
MISSING = 0x00050000 | errno.ENOSYS
COUNT = 0x7FC00000  # SECCOMP_RET_USER_NOTIF: whoever holds the filter's listener counts the call and answers EPERM

X32_BIT = 0x40000000  # numbers of the x32 interface, a second way to every call
NUMBER_END = X32_BIT
INSTRUCTIONS_MAX = 4096  # BPF_MAXINSNS


class Check(NamedTuple):
    """Allow the call if `argument & mask` is one of `values` (or, with `outside`, none of them)."""

    argument: int
    values: tuple[int, ...]
    mask: int = 0xFFFFFFFF
    outside: bool = False


class Apart(NamedTuple):
    """Refuse the call if the range at argument `address`, of argument `length` bytes, may touch partition memory or the
    configuration region (H8).

    With `flag`, an argument and a bit of it: only where that bit is set.
    """

    address: int
    length: int
    flag: tuple[int, int] | None = None


Rule = int | Check | Apart | tuple[Check | Apart, ...]

_FILES = """
read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 open openat openat2 creat close close_range
stat fstat lstat newfstatat statx statfs fstatfs lseek access faccessat faccessat2 readlink readlinkat getcwd chdir
fchdir getdents getdents64 mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 link linkat symlink symlinkat
chmod fchmod fchmodat fchmodat2 umask utime utimes utimensat futimesat fsync fdatasync sync_file_range flock fcntl
dup dup2 dup3 pipe pipe2 sendfile splice tee copy_file_range fadvise64 readahead getxattr lgetxattr fgetxattr listxattr
llistxattr flistxattr inotify_init inotify_init1 inotify_add_watch inotify_rm_watch cachestat
"""
_WAITING = """
poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd eventfd2
signalfd signalfd4 timerfd_create timerfd_settime timerfd_gettime
"""
_MEMORY = """
brk mmap munmap mremap mprotect msync mincore mlock mlock2 munlock mlockall munlockall membarrier pkey_mprotect
pkey_alloc pkey_free map_shadow_stack mseal get_mempolicy
"""
# Not here on purpose: sched_setaffinity and sched_setscheduler would undo what the host gave.
_PROCESSES = """
exit exit_group wait4 waitid fork vfork execve execveat kill tkill tgkill getpid getppid gettid getuid geteuid getgid
getegid getresuid getresgid getgroups getpgid setpgid getpgrp setsid getsid getpriority rt_sigaction rt_sigprocmask
rt_sigpending rt_sigtimedwait rt_sigsuspend rt_sigreturn rt_sigqueueinfo rt_tgsigqueueinfo sigaltstack restart_syscall
arch_prctl set_tid_address set_robust_list get_robust_list rseq futex futex_waitv futex_wake futex_wait futex_requeue
getrlimit setrlimit getrusage times sched_yield sched_getaffinity sched_getparam sched_getscheduler sched_getattr
sched_get_priority_max sched_get_priority_min sched_rr_get_interval getcpu capget pidfd_open pidfd_send_signal
setitimer getitimer alarm pause nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday time timer_create
timer_settime timer_gettime timer_getoverrun timer_delete uname sysinfo getrandom
"""
_SOCKETS = """
bind connect listen accept accept4 getsockname getpeername sendto recvfrom sendmsg recvmsg sendmmsg recvmmsg shutdown
setsockopt getsockopt
"""
# Refused to infrastructure roles, which run as root: what none of them ever needs.
_NEVER = """
kexec_load kexec_file_load init_module finit_module delete_module bpf swapon swapoff reboot acct quotactl quotactl_fd
iopl ioperm modify_ldt add_key request_key keyctl open_by_handle_at lookup_dcookie vhangup settimeofday clock_settime
clock_adjtime adjtimex sethostname setdomainname uselib ustat sysfs mount umount2 pivot_root chroot open_tree move_mount
mount_setattr fsopen fsconfig fsmount fspick nfsservctl shmget shmat shmctl shmdt msgget msgsnd msgrcv msgctl semget
semop semctl semtimedop mq_open mq_unlink memfd_secret process_vm_readv process_vm_writev remap_file_pages personality
fanotify_init
"""

# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET; CLONE_PARENT would hand a child to the keeper.
_CLONE_REFUSED = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000 | 0x00008000
# What shrinks or poisons memory that others map: MADV_REMOVE, MADV_HWPOISON, MADV_SOFT_OFFLINE. MADV_DOFORK would give
# a child the configuration region without its traps, and so memory that nobody bounds.
_MADVICE_REFUSED = (9, 11, 100, 101)
# Why a call is refused, for events and `hostctl view`; whatever no group names, no guest needs.
REASONS: dict[str, frozenset[str]] = {
    reason: frozenset(names.split())
    for reason, names in {
        "own_memory": "munmap mremap mprotect pkey_mprotect madvise mmap remap_file_pages",
        "shared_memory": "ftruncate truncate fallocate memfd_create memfd_secret userfaultfd shmget shmat shmctl shmdt",
        "other_processes": "ptrace process_vm_readv process_vm_writev process_madvise process_mrelease pidfd_getfd "
        "kcmp prlimit64 perf_event_open migrate_pages move_pages",
        "kernel_code": "bpf init_module finit_module delete_module kexec_load kexec_file_load",
        "hardware": "iopl ioperm modify_ldt",
        "machine": "reboot swapon swapoff acct quotactl quotactl_fd syslog lookup_dcookie vhangup settimeofday "
        "clock_settime clock_adjtime adjtimex sethostname setdomainname personality",
        "namespaces": "unshare setns clone mount umount2 pivot_root chroot open_tree move_mount mount_setattr fsopen "
        "fsconfig fsmount fspick",
        "rights": "setuid setgid setgroups setresuid setresgid setreuid setregid setfsuid setfsgid capset seccomp "
        "prctl",
        "keys": "keyctl add_key request_key",
        "files": "open_by_handle_at name_to_handle_at mknod mknodat chown fchown lchown fchownat fanotify_init ioctl",
        "rings": "io_uring_setup io_uring_enter io_uring_register io_setup io_submit io_getevents io_destroy vmsplice",
        "network": "socket socketpair",
        "messages": "msgget msgsnd msgrcv msgctl semget semop semctl semtimedop mq_open mq_unlink",
        "processor": "sched_setaffinity sched_setscheduler sched_setattr sched_setparam setpriority ioprio_set "
        "set_mempolicy mbind",
    }.items()
}
# Upper halves of the addresses of what is a guest's own, configuration region and partition memory (pyx/abi.h), and of
# what lies below and is left free: a range of under 2**40 bytes that begins below it cannot reach them.
_OWN_FIRST, _OWN_END, _OWN_GAP = CONFIG_ADDRESS >> 32, MEMORY_END >> 32, 1 << 8
_MAP_FIXED, _MREMAP_FIXED = 0x10, 2
# Reading, own names, and giving up rights. Not PR_SET_DUMPABLE, not PR_SET_PDEATHSIG: no guest outlives the keeper.
_PR_SET_KEEPCAPS = 8
_PRCTL_ALLOWED = (2, 3, 15, 16, 21, 23, 29, 30, 36, 37, 38, 39, 40, 41, 42, 0x53564D41)
# TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX.
_IOCTL_ALLOWED = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
# TIOCSTI and TIOCLINUX type into a terminal, TIOCSETD changes its line discipline.
_IOCTL_REFUSED = (0x5412, 0x541C, 0x5423)
_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_S_IFMT, _S_IFIFO, _S_IFSOCK, _S_IFREG = 0o170000, 0o010000, 0o140000, 0o100000


def _rules(names: str, rule: Rule) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


GUEST: dict[str, Rule] = {
    **_rules(_FILES + _WAITING + _MEMORY + _PROCESSES + _SOCKETS, ALLOW),
    "clone": Check(0, (0,), mask=_CLONE_REFUSED),
    "clone3": MISSING,
    "socket": Check(0, (_AF_UNIX,)),
    "socketpair": Check(0, (_AF_UNIX,)),
    "madvise": (Check(2, _MADVICE_REFUSED, outside=True), Apart(0, 1)),
    "mmap": Apart(0, 1, flag=(3, _MAP_FIXED)),
    "munmap": Apart(0, 1),
    "mremap": (Apart(0, 1), Apart(4, 2, flag=(3, _MREMAP_FIXED))),
    "mprotect": Apart(0, 1),
    "pkey_mprotect": Apart(0, 1),
    "prctl": Check(0, _PRCTL_ALLOWED),
    "prlimit64": Check(0, (0,)),  # limits of the caller itself
    "ioctl": Check(1, _IOCTL_ALLOWED),
    "mknod": Check(1, (0, _S_IFREG, _S_IFIFO, _S_IFSOCK), mask=_S_IFMT),
    "mknodat": Check(2, (0, _S_IFREG, _S_IFIFO, _S_IFSOCK), mask=_S_IFMT),
}
# An unmodified program has no segment whose size it could change, and the network namespace it talks in is its own. It
# may give up rights and ask for its own ids, as ping does first of all: it has no capability to gain by that.
PROGRAM: dict[str, Rule] = {
    **GUEST,
    **_rules("ftruncate truncate fallocate chown fchown lchown fchownat capset setuid setgid", ALLOW),
    "prctl": Check(0, (*_PRCTL_ALLOWED, _PR_SET_KEEPCAPS)),
    **_rules("mmap munmap mremap mprotect pkey_mprotect", ALLOW),
    "madvise": Check(2, _MADVICE_REFUSED, outside=True),
    "socket": Check(0, (_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK)),
    "ioctl": Check(1, _IOCTL_REFUSED, outside=True),
}
ROLE: dict[str, Rule] = _rules(_NEVER, REFUSE)

PROFILES: dict[str, tuple[dict[str, Rule], int]] = {
    "guest": (GUEST, REFUSE),
    "program": (PROGRAM, REFUSE),
    "role": (ROLE, ALLOW),
}

# ---- assembler: struct sock_filter is {u16 code, u8 jump if true, u8 jump if false, u32 k} ----
_LOAD, _EQUAL, _GREATER_OR_EQUAL, _JUMP, _AND, _RETURN = 0x20, 0x15, 0x35, 0x05, 0x54, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16  # struct seccomp_data
_FAIL = -1  # in the place of a jump: to the instruction that refuses

Instruction = tuple[int, int, int, int]


@cache
def program(profile: str, counted: bool = False) -> bytes:
    """The filter of a profile for this machine, ready for pyx.process.install_filter. `counted`: refused calls wait
    for the answer of the filter's listener."""
    rules, otherwise = PROFILES[profile]
    return assemble(rules, otherwise, platform.machine(), COUNT if counted else REFUSE)


def refusal_reason(call: str) -> str:
    """Why a guest may not make `call`: the word of the first group of REASONS that names it."""
    return next((reason for reason, names in REASONS.items() if call in names), "not_needed")


def refusable(profile: str) -> list[str]:
    """Names of the calls that a profile refuses, always or for some arguments: what its counters may name. None on a
    processor for which there is no filter."""
    rules, otherwise = PROFILES[profile]
    try:
        return sorted(name for name in numbers() if rules.get(name, otherwise) not in (ALLOW, MISSING))
    except UnknownArchitecture:
        return []


def assemble(rules: dict[str, Rule], otherwise: int, machine: str, refuse: int = REFUSE) -> bytes:
    """Bytecode that returns for each call its rule, `otherwise` for calls without one, `refuse` in place of REFUSE.

    A caller of another architecture (32-bit code on a 64-bit kernel) is killed, x32 numbers are refused: both are
    second ways to the same calls with other numbers.
    """
    known = numbers(machine)
    table = {known[name]: rule for name, rule in rules.items() if name in known}
    code: list[Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 1, 0, AUDIT_ARCHITECTURES[machine]),
        (_RETURN, 0, 0, KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_GREATER_OR_EQUAL, 0, 1, NUMBER_END),
        (_RETURN, 0, 0, refuse),
        *_tree(_ranges(table, otherwise), refuse),
    ]
    if len(code) > INSTRUCTIONS_MAX:
        raise ValueError(f"filter of {len(code)} instructions; the kernel takes {INSTRUCTIONS_MAX}")
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def _ranges(table: dict[int, Rule], otherwise: int) -> list[tuple[int, Rule]]:
    """(first number, rule) of each run of neighbouring numbers with one rule; the first run starts at 0."""
    runs: list[tuple[int, Rule]] = [(0, table.get(0, otherwise))]
    for number in range(1, max(table) + 2):
        rule = table.get(number, otherwise)
        if rule != runs[-1][1]:
            runs.append((number, rule))
    return runs


def _tree(runs: list[tuple[int, Rule]], refuse: int) -> list[Instruction]:
    """Binary search over the runs: eight comparisons instead of three hundred."""
    if len(runs) == 1:
        return _leaf(runs[0][1], refuse)
    middle = len(runs) // 2
    below, above = _tree(runs[:middle], refuse), _tree(runs[middle:], refuse)
    pivot = runs[middle][0]
    if len(below) <= 255:
        return [(_GREATER_OR_EQUAL, len(below), 0, pivot), *below, *above]
    # A conditional jump reaches 255 instructions; the unconditional one any distance.
    return [(_GREATER_OR_EQUAL, 0, 1, pivot), (_JUMP, 0, 0, len(below)), *below, *above]


def _leaf(rule: Rule, refuse: int) -> list[Instruction]:
    """Every check of a rule in turn; the first that fails refuses."""
    if isinstance(rule, int):
        return [(_RETURN, 0, 0, refuse if rule == REFUSE else rule)]
    checks = rule if isinstance(rule, tuple) and not isinstance(rule, Check | Apart) else (rule,)
    code = [one for check in checks for one in (_values(check) if isinstance(check, Check) else _apart(check))]
    code.append((_RETURN, 0, 0, ALLOW))
    refusal = len(code)  # where the last instruction will be
    for at, (what, if_true, if_false, k) in enumerate(code):
        away = refusal - at - 1
        code[at] = what, away if if_true == _FAIL else if_true, away if if_false == _FAIL else if_false, k
    return [*code, (_RETURN, 0, 0, refuse)]


def _values(check: Check) -> list[Instruction]:
    """Falls through where the call is allowed."""
    code: list[Instruction] = [(_LOAD, 0, 0, _low(check.argument))]
    if check.mask != 0xFFFFFFFF:
        code.append((_AND, 0, 0, check.mask))
    if check.outside:
        return [*code, *((_EQUAL, _FAIL, 0, value) for value in check.values)]
    *others, last = check.values
    code += ((_EQUAL, len(others) - index, 0, value) for index, value in enumerate(others))  # over the rest
    return [*code, (_EQUAL, 0, _FAIL, last)]


def _apart(check: Apart) -> list[Instruction]:
    """Falls through where the range is apart from them."""
    code: list[Instruction] = [
        (_LOAD, 0, 0, _high(check.address)),
        (_GREATER_OR_EQUAL, 3, 0, _OWN_END),  # over the rest: it begins above
        (_GREATER_OR_EQUAL, _FAIL, 0, _OWN_FIRST - _OWN_GAP),
        (_LOAD, 0, 0, _high(check.length)),
        (_GREATER_OR_EQUAL, _FAIL, 0, _OWN_GAP),
    ]
    if check.flag is None:
        return code
    argument, bit = check.flag
    return [(_LOAD, 0, 0, _low(argument)), (_AND, 0, 0, bit), (_EQUAL, len(code), 0, 0), *code]


def _low(argument: int) -> int:
    return _ARGUMENTS_AT + 8 * argument  # both architectures are little-endian


def _high(argument: int) -> int:
    return _low(argument) + 4

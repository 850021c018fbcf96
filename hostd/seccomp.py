"""System-call filters: tables of what a partition may call, and a small assembler from them to kernel bytecode.

Profiles (rule 27, U16):

| profile   | for                                    | otherwise |
|-----------|----------------------------------------|-----------|
| `guest`   | Python guests, which map segments      | EPERM     |
| `program` | unmodified programs, which map none    | EPERM     |
| `role`    | infrastructure partitions              | allowed   |

A call that is not allowed fails with EPERM instead of killing its caller, so that a guest sees a named reason.
The filter sees registers only, never memory behind a pointer: `clone3`, whose flags lie in memory, answers ENOSYS,
and libc falls back to `clone`. All checked arguments are 32 bits wide in the kernel, so only those bits are compared.
"""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from hostd.syscalls import AUDIT_ARCHITECTURES, numbers

ALLOW = 0x7FFF0000  # SECCOMP_RET_*
KILL = 0x80000000
REFUSE = 0x00050000 | errno.EPERM
MISSING = 0x00050000 | errno.ENOSYS

X32_BIT = 0x40000000  # numbers of the x32 interface, a second way to every call
NUMBER_END = X32_BIT
INSTRUCTIONS_MAX = 4096  # BPF_MAXINSNS


class Check(NamedTuple):
    """Allow the call if `argument & mask` is one of `values` (or, with `outside`, none of them)."""

    argument: int
    values: tuple[int, ...]
    mask: int = 0xFFFFFFFF
    outside: bool = False


Rule = int | Check

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
# What shrinks or poisons memory that others map: MADV_REMOVE, MADV_HWPOISON, MADV_SOFT_OFFLINE.
_MADVICE_REFUSED = (9, 100, 101)
# Reading, own names, and giving up rights. Not PR_SET_DUMPABLE, not PR_SET_PDEATHSIG: no guest outlives the keeper.
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
    "madvise": Check(2, _MADVICE_REFUSED, outside=True),
    "prctl": Check(0, _PRCTL_ALLOWED),
    "prlimit64": Check(0, (0,)),  # limits of the caller itself
    "ioctl": Check(1, _IOCTL_ALLOWED),
    "mknod": Check(1, (0, _S_IFREG, _S_IFIFO, _S_IFSOCK), mask=_S_IFMT),
    "mknodat": Check(2, (0, _S_IFREG, _S_IFIFO, _S_IFSOCK), mask=_S_IFMT),
}
# An unmodified program has no segment whose size it could change, and the network namespace it talks in is its own.
PROGRAM: dict[str, Rule] = {
    **GUEST,
    **_rules("ftruncate truncate fallocate chown fchown lchown fchownat", ALLOW),
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

Instruction = tuple[int, int, int, int]


@cache
def program(profile: str) -> bytes:
    """The filter of a profile for this machine, ready for pyx.process.install_filter."""
    rules, otherwise = PROFILES[profile]
    return assemble(rules, otherwise, platform.machine())


def assemble(rules: dict[str, Rule], otherwise: int, machine: str) -> bytes:
    """Bytecode that returns for each call its rule, `otherwise` for calls without one.

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
        (_RETURN, 0, 0, REFUSE),
        *_tree(_ranges(table, otherwise)),
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


def _tree(runs: list[tuple[int, Rule]]) -> list[Instruction]:
    """Binary search over the runs: eight comparisons instead of three hundred."""
    if len(runs) == 1:
        return list(_leaf(runs[0][1]))
    middle = len(runs) // 2
    below, above = _tree(runs[:middle]), _tree(runs[middle:])
    pivot = runs[middle][0]
    if len(below) <= 255:
        return [(_GREATER_OR_EQUAL, len(below), 0, pivot), *below, *above]
    # A conditional jump reaches 255 instructions; the unconditional one any distance.
    return [(_GREATER_OR_EQUAL, 0, 1, pivot), (_JUMP, 0, 0, len(below)), *below, *above]


def _leaf(rule: Rule) -> Iterable[Instruction]:
    if isinstance(rule, int):
        return [(_RETURN, 0, 0, rule)]
    hit, miss = (REFUSE, ALLOW) if rule.outside else (ALLOW, REFUSE)
    code: list[Instruction] = [(_LOAD, 0, 0, _ARGUMENTS_AT + 8 * rule.argument)]  # low half: both are little-endian
    if rule.mask != 0xFFFFFFFF:
        code.append((_AND, 0, 0, rule.mask))
    for left, value in zip(range(len(rule.values), 0, -1), rule.values, strict=True):
        code.append((_EQUAL, left, 0, value))  # over the rest and over the miss
    return [*code, (_RETURN, 0, 0, miss), (_RETURN, 0, 0, hit)]

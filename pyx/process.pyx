"""Making and confining processes: thin, checked wrappers over process.h and seccomp.h.

Used by keeper, loader and sandbox; no other program needs them except `register_membarrier` and `set_title`.
Functions raise OSError with the errno of the system call that failed and the name of what was asked for.
"""

import os

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.errno cimport errno
from libc.stdint cimport uint64_t
from libc.string cimport memcpy, memset

cdef extern from "Python.h":
    void PyOS_BeforeFork()
    void PyOS_AfterFork_Parent()
    void PyOS_AfterFork_Child()

cdef extern from "<sched.h>" nogil:
    int unshare_ "unshare"(int flags)
    int setns_ "setns"(int fd, int kind)
    int CLONE_NEWCGROUP_ "CLONE_NEWCGROUP"
    int CLONE_NEWIPC_ "CLONE_NEWIPC"
    int CLONE_NEWNET_ "CLONE_NEWNET"
    int CLONE_NEWNS_ "CLONE_NEWNS"
    int CLONE_NEWPID_ "CLONE_NEWPID"
    int CLONE_NEWUSER_ "CLONE_NEWUSER"
    int CLONE_NEWUTS_ "CLONE_NEWUTS"
    int CLONE_PARENT_ "CLONE_PARENT"
    int CLONE_PIDFD_ "CLONE_PIDFD"

cdef extern from "<signal.h>" nogil:
    ctypedef struct sigset_t:
        pass
    int sigfillset(sigset_t *signals)
    int sigprocmask(int how, const sigset_t *signals, sigset_t *old)
    int SIG_BLOCK, SIGCHLD

cdef extern from "<sys/mount.h>" nogil:
    int mount_ "mount"(const char *source, const char *target, const char *kind, unsigned long flags, const void *data)
    int umount2_ "umount2"(const char *target, int flags)
    unsigned long MS_NOSUID_ "MS_NOSUID"
    unsigned long MS_NODEV_ "MS_NODEV"
    unsigned long MS_NOEXEC_ "MS_NOEXEC"
    unsigned long MS_PRIVATE_ "MS_PRIVATE"
    unsigned long MS_RDONLY_ "MS_RDONLY"
    unsigned long MS_REC_ "MS_REC"
    unsigned long MS_REMOUNT_ "MS_REMOUNT"
    unsigned long MS_BIND_ "MS_BIND"
    int MNT_DETACH_ "MNT_DETACH"

cdef extern from "<sys/prctl.h>" nogil:
    int PR_SET_CHILD_SUBREAPER, PR_SET_DUMPABLE, PR_SET_NAME, PR_SET_NO_NEW_PRIVS, PR_SET_PDEATHSIG

cdef extern from "<sys/syscall.h>" nogil:
    long syscall(long number, ...)
    int SYS_pivot_root

cdef extern from "<unistd.h>" nogil:
    int sethostname_ "sethostname"(const char *name, size_t length)

cdef extern from "process.h" nogil:
    int pv_prctl(int option, unsigned long argument)
    void *pv_tid_address()
    long pv_clone(unsigned long flags, int *pidfd, void *tid)
    int pv_open_tree(const char *path, int recursive)
    int pv_mount_setattr(int tree, int recursive, uint64_t attributes)
    int pv_move_mount(int tree, const char *target)
    int pv_drop_bounding_set()
    int pv_clear_capabilities()
    int pv_register_membarrier()
    int pv_arguments(char **start, size_t *length)
    int pv_loopback_up()
    long pv_filesystem_type(int fd)
    int pv_reap(int child, const sigset_t *signals)

cdef extern from "seccomp.h" nogil:
    int pv_install_filter(const void *program, size_t length, unsigned int flags)
    int pv_install_counted_filter(const void *program, size_t length)

CLONE_NEWCGROUP = CLONE_NEWCGROUP_
CLONE_NEWIPC = CLONE_NEWIPC_
CLONE_NEWNET = CLONE_NEWNET_
CLONE_NEWNS = CLONE_NEWNS_
CLONE_NEWPID = CLONE_NEWPID_
CLONE_NEWUSER = CLONE_NEWUSER_
CLONE_NEWUTS = CLONE_NEWUTS_
CLONE_PARENT = CLONE_PARENT_
MS_NOSUID = MS_NOSUID_
MS_NODEV = MS_NODEV_
MS_NOEXEC = MS_NOEXEC_
MS_PRIVATE = MS_PRIVATE_
MS_RDONLY = MS_RDONLY_
MS_REC = MS_REC_
MS_REMOUNT = MS_REMOUNT_
MS_BIND = MS_BIND_
MNT_DETACH = MNT_DETACH_
# Attributes of mount_setattr (linux/mount.h).
ATTRIBUTE_RDONLY = 0x1
ATTRIBUTE_NOSUID = 0x2
ATTRIBUTE_NODEV = 0x4
ATTRIBUTE_NOEXEC = 0x8
TMPFS_MAGIC = 0x01021994

COMM_MAX = 15  # bytes of a thread's name in the kernel


cdef object _failed(str what):
    return OSError(errno, os.strerror(errno), what)


def clone(unsigned long flags) -> tuple[int, int]:
    """fork() with `flags` (CLONE_PARENT, CLONE_NEW*). Returns (pid, pidfd) in the parent, (0, -1) in the child.

    The caller must have one thread only: the child has no other, whatever locks they held. The exit signal is
    SIGCHLD, or with CLONE_PARENT that of the caller itself. The pidfd is close-on-exec.
    """
    cdef int pidfd = -1
    cdef int saved
    cdef unsigned long all_flags = flags | CLONE_PIDFD_ | (0 if flags & CLONE_PARENT_ else SIGCHLD)
    cdef void *tid = pv_tid_address()
    PyOS_BeforeFork()
    cdef long pid = pv_clone(all_flags, &pidfd, tid)
    saved = errno
    if pid == 0:
        PyOS_AfterFork_Child()
        return 0, -1
    PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(saved, os.strerror(saved), f"clone with flags {flags:#x}")
    return pid, pidfd


def knows_tid_address() -> bool:
    """Whether the kernel tells where libc keeps the main thread's id (CONFIG_CHECKPOINT_RESTORE)."""
    return pv_tid_address() != NULL


def unshare(int flags) -> None:
    if unshare_(flags) != 0:
        raise _failed(f"unshare {flags:#x}")


def setns(int fd, int kind) -> None:
    if setns_(fd, kind) != 0:
        raise _failed(f"setns {kind:#x}")


def sethostname(str name) -> None:
    cdef bytes encoded = name.encode()
    if sethostname_(encoded, len(encoded)) != 0:
        raise _failed(f"sethostname {name}")


def mount(str source, str target, str kind, unsigned long flags, str options) -> None:
    cdef bytes encoded_source = os.fsencode(source)
    cdef bytes encoded_target = os.fsencode(target)
    cdef bytes encoded_kind = kind.encode()
    cdef bytes encoded_options = options.encode()
    if mount_(encoded_source, encoded_target, encoded_kind, flags, <const char *>encoded_options) != 0:
        raise _failed(f"mount {kind or source} on {target} ({options})")


def umount(str target, int flags) -> None:
    if umount2_(os.fsencode(target), flags) != 0:
        raise _failed(f"umount {target}")


def pivot_root(str new_root, str old_root) -> None:
    cdef bytes encoded_new = os.fsencode(new_root)
    cdef bytes encoded_old = os.fsencode(old_root)
    if syscall(SYS_pivot_root, <const char *>encoded_new, <const char *>encoded_old) != 0:
        raise _failed(f"pivot_root {new_root}")


def open_tree(str path, bint recursive=True) -> int:
    """A detached copy of the mounts at `path`, as a close-on-exec descriptor; it may be attached in another namespace."""
    cdef int tree = pv_open_tree(os.fsencode(path), recursive)
    if tree < 0:
        raise _failed(f"open_tree {path}")
    return tree


def mount_setattr(int tree, uint64_t attributes, bint recursive=True) -> None:
    """Set ATTRIBUTE_* on the mounts of `tree`."""
    if pv_mount_setattr(tree, recursive, attributes) != 0:
        raise _failed(f"mount_setattr {attributes:#x}")


def move_mount(int tree, str target) -> None:
    """Attach a detached tree at `target`."""
    if pv_move_mount(tree, os.fsencode(target)) != 0:
        raise _failed(f"move_mount to {target}")


def set_death_signal(int number) -> None:
    """Signal that this process gets when its parent's thread dies. A change of uid clears it (rule 28)."""
    if pv_prctl(PR_SET_PDEATHSIG, number) != 0:
        raise _failed("PR_SET_PDEATHSIG")


def set_no_new_privileges() -> None:
    if pv_prctl(PR_SET_NO_NEW_PRIVS, 1) != 0:
        raise _failed("PR_SET_NO_NEW_PRIVS")


def set_dumpable(bint dumpable) -> None:
    """Not dumpable: no core file, and no other process of the same uid may read or trace this one."""
    if pv_prctl(PR_SET_DUMPABLE, dumpable) != 0:
        raise _failed("PR_SET_DUMPABLE")


def set_subreaper() -> None:
    if pv_prctl(PR_SET_CHILD_SUBREAPER, 1) != 0:
        raise _failed("PR_SET_CHILD_SUBREAPER")


def drop_bounding_set() -> None:
    """No later exec can gain a capability. Needs CAP_SETPCAP: before the change of uid."""
    if pv_drop_bounding_set() != 0:
        raise _failed("PR_CAPBSET_DROP")


def clear_capabilities() -> None:
    """Empty the effective, permitted, inheritable and ambient sets for good."""
    if pv_clear_capabilities() != 0:
        raise _failed("capset")


def register_membarrier() -> None:
    """Take part in membarrier's global expedited command, which sleepers use before their last check."""
    if pv_register_membarrier() != 0:
        raise _failed("membarrier registration")


def become_realtime(int kind, int priority) -> bool:
    """The calling thread gets a real-time class of the kernel. False: the right is missing, and nothing changed."""
    try:
        os.sched_setscheduler(0, kind, os.sched_param(priority))
    except PermissionError:
        return False
    return True


def become_data_thread(processors, int priority) -> bool:
    """The calling thread runs on `processors` (empty: where the process may) in the real-time class SCHED_RR with `priority`
    (0: in the normal class). False: it is in the normal class."""
    if processors:
        os.sched_setaffinity(0, processors)
    return priority != 0 and become_realtime(os.SCHED_RR, priority)


def set_title(str comm, str title) -> None:
    """Name of the thread (cut to 15 bytes) and, over the argument vector in place, what `ps` shows.

    The title is cut to the length of the vector that the program was started with.
    """
    cdef bytes encoded = comm.encode()[:COMM_MAX]
    cdef bytes shown = title.encode()
    cdef char *start = NULL
    cdef size_t length = 0
    cdef size_t used
    if pv_prctl(PR_SET_NAME, <unsigned long><const char *>encoded) != 0:
        raise _failed("PR_SET_NAME")
    if pv_arguments(&start, &length) != 0:
        raise _failed("arguments in /proc/self/stat")
    # The last byte stays zero: otherwise the kernel goes on into the environment.
    used = min(<size_t>PyBytes_GET_SIZE(shown), length - 1)
    memset(start, 0, length)
    memcpy(start, PyBytes_AS_STRING(shown), used)


def install_filter(bytes program) -> None:
    """Install a seccomp filter (an array of struct sock_filter); needs no_new_privs or CAP_SYS_ADMIN."""
    if pv_install_filter(PyBytes_AS_STRING(program), PyBytes_GET_SIZE(program), 0) != 0:
        raise _failed(f"seccomp filter of {len(program)} bytes")


def install_counted_filter(bytes program) -> int:
    """The same; returns the listener, on which calls wait for which the filter says SECCOMP_RET_USER_NOTIF. Where
    nobody has the listener any more they fail with ENOSYS. EBUSY where the process has a listener already."""
    cdef int listener = pv_install_counted_filter(PyBytes_AS_STRING(program), PyBytes_GET_SIZE(program))
    if listener < 0:
        raise _failed(f"seccomp filter of {len(program)} bytes with a listener")
    return listener


def loopback_up() -> None:
    if pv_loopback_up() != 0:
        raise _failed("loopback interface")


def filesystem_type(int fd) -> int:
    """f_type of the file system of `fd`, for example TMPFS_MAGIC."""
    cdef long kind = pv_filesystem_type(fd)
    if kind < 0:
        raise _failed(f"fstatfs of {fd}")
    return kind


def block_signals() -> None:
    """Block every signal: they wait until `reap` takes them, or a program unblocks them."""
    cdef sigset_t signals
    sigfillset(&signals)
    sigprocmask(SIG_BLOCK, &signals, NULL)


def reap(int child) -> int:
    """Be process 1 for program `child` until it ends; returns its exit code, 128 + signal if one ended it.

    Signals must be blocked since before `child` was made, so that none is lost in between.
    """
    cdef sigset_t signals
    cdef int code
    sigfillset(&signals)
    with nogil:
        code = pv_reap(child, &signals)
    return code

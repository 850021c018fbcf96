"""What a hostile guest tries from inside. Each attempt is a function; its result is the name of the errno, or what
it got instead. Run as a guest with descriptors that a real one never keeps: a memory segment and a channel.
"""

import ctypes
import errno
import fcntl
import json
import mmap
import os
import platform
import resource
import signal
import socket
import struct
import time

LIBC = ctypes.CDLL(None, use_errno=True)
X86 = platform.machine() == "x86_64"
PAGE = 4096
ATTEMPTS = {}


def attempt(function):
    ATTEMPTS[function.__name__] = function
    return function


def call(name_x86, name_arm, *arguments):
    """A raw system call by its number on x86_64 and aarch64 (None: not there)."""
    number = name_x86 if X86 else name_arm
    if number is None:
        raise OSError(errno.ENOSYS, "not on this architecture")
    arguments = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    result = LIBC.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


def raw(name, x86, arm, *arguments):
    """Register a system call as an attempt."""
    ATTEMPTS[name] = lambda _context: call(x86, arm, *arguments)


# ---- memory that others map ----


@attempt
def ftruncate_memory(context):
    os.ftruncate(context.fds["memory"], 0)


@attempt
def ftruncate_channel(context):
    os.ftruncate(context.fds["channel"], 0)


@attempt
def grow_channel(context):
    os.ftruncate(context.fds["channel"], 1 << 20)


@attempt
def truncate_by_path(context):
    os.truncate(f"/proc/self/fd/{context.fds['channel']}", 0)


@attempt
def reopen_channel_truncating(context):
    os.open(f"/proc/self/fd/{context.fds['channel']}", os.O_RDWR | os.O_TRUNC)


@attempt
def reopen_memory_truncating(context):
    os.open(f"/proc/self/fd/{context.fds['memory']}", os.O_RDWR | os.O_TRUNC)


@attempt
def reopen_memory_reading(context):
    os.open(f"/proc/self/fd/{context.fds['memory']}", os.O_RDONLY)


@attempt
def punch_hole(context):
    call(285, 47, context.fds["channel"], 3, 0, PAGE)


@attempt
def posix_fallocate(context):
    os.posix_fallocate(context.fds["channel"], 0, 1 << 20)


@attempt
def seal_memory(context):
    fcntl.fcntl(context.fds["memory"], fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)


@attempt
def fchmod_channel(context):
    os.fchmod(context.fds["channel"], 0o666)


@attempt
def map_files(context):
    mapping = mmap.mmap(context.fds["channel"], PAGE)
    mapping[0] = 1
    names = os.listdir("/proc/self/map_files")
    os.open(f"/proc/self/map_files/{names[0]}", os.O_RDWR)


@attempt
def madvise_remove(context):
    mapping = mmap.mmap(context.fds["channel"], PAGE)
    mapping.madvise(9)


@attempt
def madvise_poison(context):
    mmap.mmap(context.fds["channel"], PAGE).madvise(100)


raw("memfd_create", 319, 279, b"own\0", 0)
raw("memfd_secret", 447, 447, 0)
raw("remap_file_pages", 216, 234, 0, PAGE, 0, 0, 0)
raw("userfaultfd", 323, 282, 0)

# ---- other processes ----

raw("ptrace_traceme", 101, 117, 0, 0, 0, 0)
raw("ptrace_seize_init", 101, 117, 0x4206, 1, 0, 0)
raw("process_vm_readv", 310, 270, 1, 0, 0, 0, 0, 0)
raw("process_vm_writev", 311, 271, 1, 0, 0, 0, 0, 0)
raw("process_madvise", 440, 440, 0, 0, 0, 0, 0)
raw("pidfd_getfd", 438, 438, 0, 0, 0)
raw("kcmp", 312, 272, 1, 1, 0, 0, 0)
raw("perf_event_open", 298, 241, 0, 0, 0, 0, 0)


@attempt
def kill_host_process(context):
    os.kill(context.config["host_pid"], 0)


@attempt
def kill_everybody(_context):
    os.kill(-1, signal.SIGKILL)  # everybody that it sees: nobody


@attempt
def pidfd_of_host_process(context):
    os.pidfd_open(context.config["host_pid"])


@attempt
def proc_of_host_process(context):
    os.listdir(f"/proc/{context.config['host_pid']}")


@attempt
def memory_of_host_process(context):
    open(f"/proc/{context.config['host_pid']}/mem", "rb")


@attempt
def limits_of_another(_context):
    pid = os.fork()
    if pid == 0:
        time.sleep(10)
        os._exit(0)
    try:
        resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


# ---- rights and namespaces ----

raw("unshare_user", 272, 97, 0x10000000)
raw("unshare_mount", 272, 97, 0x00020000)
raw("clone_user", 56, 220, 0x10000011, 0, 0, 0, 0)
raw("clone_parent", 56, 220, 0x00008011, 0, 0, 0, 0)
raw("clone3", 435, 435, 0, 88)
raw("setns", 308, 268, 0, 0)
raw("mount", 165, 40, b"none\0", b"/tmp\0", b"tmpfs\0", 0, 0)
raw("umount_program", 166, 39, b"/program\0", 2)
raw("open_tree", 428, 428, -100, b"/\0", 1)
raw("move_mount", 429, 429, -100, b"/\0", -100, b"/tmp\0", 0)
raw("fsopen", 430, 430, b"tmpfs\0", 0)
raw("mount_setattr", 442, 442, -100, b"/\0", 0, 0, 0)
raw("pivot_root", 155, 41, b"/tmp\0", b"/tmp\0")
raw("chroot", 161, 51, b"/tmp\0")
raw("setuid", 105, 146, 0)
raw("setgroups", 116, 159, 0, 0)
raw("capset", 126, 91, 0, 0)
raw("seccomp", 317, 277, 0, 0, 0)
raw("prctl_no_death_signal", 157, 167, 1, 0, 0, 0, 0)
raw("prctl_dumpable", 157, 167, 4, 1, 0, 0, 0)
raw("prctl_seccomp", 157, 167, 22, 1, 0, 0, 0)
raw("personality", 135, 92, 0x0040000)
raw("keyctl", 250, 219, 0, -3, 0, 0, 0)
raw("add_key", 248, 217, b"user\0", b"a\0", b"b\0", 1, -3)


# A core file without bounds: the filter lets the call through, the hard limit is 0.
raw("raise_own_limit", 302, 261, 0, resource.RLIMIT_CORE, struct.pack("QQ", 1 << 40, 1 << 40), 0)


@attempt
def real_time(_context):
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


@attempt
def other_processors(_context):
    os.sched_setaffinity(0, range(64))


@attempt
def higher_priority(_context):
    os.setpriority(os.PRIO_PROCESS, 0, -5)


# ---- the machine ----

raw("bpf", 321, 280, 0, 0, 0)
raw("io_uring_setup", 425, 425, 8, 0)
raw("io_uring_enter", 426, 426, 0, 0, 0, 0, 0, 0)
raw("init_module", 175, 105, 0, 0, 0)
raw("finit_module", 313, 273, 0, 0, 0)
raw("delete_module", 176, 106, b"loop\0", 0)
raw("kexec_load", 246, 104, 0, 0, 0, 0)
raw("reboot", 169, 142, 0, 0, 0, 0)
raw("swapon", 167, 224, b"/tmp/x\0", 0)
raw("iopl", 172, None, 3)
raw("ioperm", 173, None, 0, 1, 1)
raw("modify_ldt", 154, None, 0, 0, 0)
raw("settimeofday", 164, 170, 0, 0)
raw("clock_settime", 227, 112, 0, 0)
raw("sethostname", 170, 161, b"mine\0", 4)
raw("syslog", 103, 116, 10, 0, 0)
raw("x32_call", 0x40000000 + 39, None)
raw("unknown_call", 599, 599)


@attempt
def kernel_memory(_context):
    os.open("/dev/mem", os.O_RDONLY)


@attempt
def kernel_settings(_context):
    open("/proc/sys/kernel/core_pattern", "w")


@attempt
def kernel_image(_context):
    open("/proc/kcore", "rb")


@attempt
def hardware_tree(_context):
    os.listdir("/sys")


@attempt
def block_device(_context):
    os.mknod(f"{os.environ['TMPDIR']}/disk", 0o060600, os.makedev(254, 0))


@attempt
def type_into_terminal(_context):
    fcntl.ioctl(0, 0x5412, b"x")


# ---- communication ----


def family(name, number):
    ATTEMPTS[name] = lambda _context: socket.socket(number, socket.SOCK_DGRAM, 0).close()


for _name, _number in (("inet", 2), ("inet6", 10), ("netlink", 16), ("packet", 17), ("alg", 38), ("vsock", 40)):
    family(f"socket_{_name}", _number)


@attempt
def socketpair_inet(_context):
    socket.socketpair(socket.AF_INET, socket.SOCK_STREAM)


@attempt
def abstract_socket_of_host(context):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect("\0" + context.config["abstract"])


@attempt
def keeper_socket(context):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.connect(context.config["keeper"])


raw("shmget", 29, 194, 0x1234, PAGE, 0o1600)
raw("msgget", 68, 186, 0x1234, 0o1600)
raw("semget", 64, 190, 0x1234, 1, 0o1600)
raw("mq_open", 240, 180, b"queue\0", 0o102, 0o600, 0)

# ---- files ----


@attempt
def secret_of_owner(context):
    open(context.config["secret"], "rb")


@attempt
def passwords(_context):
    open("/etc/shadow", "rb")


@attempt
def home(_context):
    os.listdir("/home")


@attempt
def write_into_root(_context):
    open("/evil", "w")


@attempt
def write_into_usr(_context):
    open("/usr/evil", "w")


@attempt
def write_into_program(_context):
    open("/program/evil", "w")


@attempt
def write_into_interpreter(_context):
    open(os.__file__, "a")


@attempt
def out_of_the_root(context):
    fd = os.open("/", os.O_RDONLY)
    os.chdir("/" + "../" * 30)
    os.close(fd)
    return sorted(os.listdir(".")) == sorted(os.listdir("/"))


raw("open_by_handle_at", 304, 265, -100, 0, 0)
raw("name_to_handle_at", 303, 264, -100, b"/\0", 0, 0, 0)


@attempt
def descriptor_of_parent(_context):
    """Nothing but what it was handed: no socket of the keeper, no template of the root."""
    links = []
    for descriptor in range(3, 1024):
        try:
            links.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        except FileNotFoundError:
            pass
    return sorted(link.split(":")[0].partition("-")[0] for link in links)


def _result(function, context):
    try:
        return function(context)
    except OSError as error:
        return errno.errorcode.get(error.errno, error.errno)


def main(context):
    pid = os.getpid()
    results = {}
    for name, function in ATTEMPTS.items():
        results[name] = _result(function, context)
        if os.getpid() != pid:
            os._exit(0)  # a clone that should not exist; the parent's result says so
    print(json.dumps(results), flush=True)


# ---- greed ----


def greed(context):
    """How far it gets with everything that is bounded. Results in the units of each bound."""
    print(json.dumps({"files": _files(), "scratch": _scratch(), "memory": _memory(), "processes": _processes()}))


def _files():
    opened = []
    try:
        while True:
            opened.append(os.open("/dev/null", os.O_RDONLY))
    except OSError as error:
        return [len(opened), errno.errorcode[error.errno]]
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _scratch():
    written = 0
    try:
        for number in range(4):
            with open(f"{os.environ['TMPDIR']}/{number}", "wb", buffering=0) as file:
                for _ in range(32):
                    written += file.write(bytes(1 << 20))
    except OSError as error:
        return [written >> 20, errno.errorcode[error.errno]]
    finally:
        for name in os.listdir(os.environ["TMPDIR"]):
            os.unlink(f"{os.environ['TMPDIR']}/{name}")
    return [written >> 20, None]


def _memory():
    mappings = []
    try:
        while len(mappings) < 64:
            mappings.append(mmap.mmap(-1, 64 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    except OSError as error:
        return [len(mappings) * 64, errno.errorcode[error.errno]]
    return [len(mappings) * 64, None]


def _processes():
    children = []
    try:
        while len(children) < 1000:
            pid = os.fork()
            if pid == 0:
                time.sleep(1000)
                os._exit(0)
            children.append(pid)
    except OSError as error:
        return [len(children), errno.errorcode[error.errno]]
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return [len(children), None]


def foreign_architecture(_context):
    """A 32-bit system call from 64-bit code: the numbers mean other calls there."""
    code = mmap.mmap(-1, PAGE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")  # mov eax, 20 (getpid); int 0x80; ret
    address = ctypes.addressof(ctypes.c_char.from_buffer(code))
    print("trying", flush=True)
    print(ctypes.CFUNCTYPE(ctypes.c_int)(address)(), flush=True)


def role(_context):
    """What an infrastructure role is refused although it runs as root."""
    names = ("kexec_load", "init_module", "bpf", "mount", "chroot", "iopl", "sethostname", "keyctl", "shmget")
    found = {name: _result(ATTEMPTS[name], None) for name in names if X86 or name != "iopl"}
    status = dict(line.rstrip("\n").split(":\t", 1) for line in open("/proc/self/status"))
    with open("/proc/self/stat") as file:
        readable = bool(file.read())
    print(json.dumps({"attempts": found, "status": status, "readable": readable, "word": struct.calcsize("P")}))

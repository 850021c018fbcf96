"""Entries of processes that the tests start: each does one thing and tells about it on standard output."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time


def say(value):
    print(json.dumps(value), flush=True)


def nothing(_context):
    return None


def number(context):
    return context.config["number"]


def leave(context):
    sys.exit(context.config["with"])


def fail(_context):
    raise RuntimeError("broken on purpose")


def surroundings(context):
    """Everything that a process finds around itself."""
    say(
        {
            "name": context.name,
            "type": context.type,
            "config": context.config,
            "fds": context.fds,
            "open": sorted(int(name) for name in os.listdir("/proc/self/fd") if _is_open(int(name))),
            "environment": dict(os.environ),
            "folder": os.getcwd(),
            "path": sys.path[0],
            "pid": os.getpid(),
            "group": os.getpgrp(),
            "uid": os.getresuid(),
            "gid": os.getresgid(),
            "groups": os.getgroups(),
            "affinity": sorted(os.sched_getaffinity(0)),
            "nice": os.nice(0) if context.config.get("nice") else 0,
            "input": os.readlink("/proc/self/fd/0"),
            "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
            "status": dict(line.rstrip("\n").split(":\t", 1) for line in open("/proc/self/status")),
            "thread": _cached_thread(),
        }
    )


def _cached_thread():
    """The main thread's id as libc has it in its own memory; robust locks are marked with it."""
    address = ctypes.c_void_p()
    if ctypes.CDLL(None).prctl(40, ctypes.byref(address), 0, 0, 0):  # PR_GET_TID_ADDRESS
        return os.getpid()
    return ctypes.c_int.from_address(address.value).value


def _is_open(descriptor):
    try:
        os.fstat(descriptor)
        return True
    except OSError:
        return False  # the one that listed the folder


def echo(context):
    """Copies one message from descriptor `from` to descriptor `to`."""
    os.write(context.fds["to"], os.read(context.fds["from"], 100))


def wait(_context):
    say("up")
    signal.pause()


def ignore_termination(_context):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say("up")
    while True:
        signal.pause()


def threads(_context):
    """Threads work, daemon threads do not keep the process, others do."""
    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
    threading.Thread(target=lambda: (time.sleep(0.05), say("thread done"))).start()
    say("main done")


def children(_context):
    """fork and exec work inside."""
    say(subprocess.run(["/bin/sh", "-c", "echo $((6*7))"], capture_output=True, text=True, check=True).stdout.strip())


def daughter(context):
    """Leaves a process behind that may have gone into a session of its own and ignores SIGTERM."""
    said, say_it = os.pipe()
    pid = os.fork()
    if pid == 0:
        if context.config["detach"]:
            os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if os.fork():
            os._exit(0)
        say(os.getpid())
        os.close(say_it)
        while True:
            time.sleep(1000)
    os.close(say_it)
    os.waitpid(pid, 0)
    os.read(said, 1)
    if context.config["stay"]:
        signal.pause()


def late_imports(_context):
    import decimal
    import sqlite3
    import xml.dom.minidom

    import beside

    say([str(decimal.Decimal(1) / 4), sqlite3.connect(":memory:").execute("select 7").fetchone()[0], beside.VALUE])
    assert xml.dom.minidom

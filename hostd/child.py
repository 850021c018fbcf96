"""What a new process does between its clone and its entry, and how it ends.

The loader clones and keeps no word of the specification: this reads it from the process's own start socket, so
nothing of one partition's configuration is left in the memory that the next one inherits.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from hostd import hardware_files, hardware_region, memory_region, rootfs
from hostd.abilities import Abilities
from hostd.sandbox import enter
from hostd.startspec import SpecError, StartSpec
from hostd.wire import Message, Wire, WireError, close_fds
from partitions.skeleton import Context
from pyx import privileged, process
from pyx.abi import PAGE

START_TIMEOUT = 10.0  # seconds for the keeper to hand over the specification; it has sent it before the clone
BASE_ENVIRONMENT = {"PATH": f"{sys.prefix}/bin:/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
_STANDARD = {"stdout": 1, "stderr": 2}


def run(start: int, keeper: int, abilities: Abilities) -> NoReturn:
    """Become the process that the message on `start` describes. Never returns."""
    status = 1
    try:
        status = _run(start, keeper, abilities)
    except BaseException:  # nothing may get back into the loader's own loop
        traceback.print_exc()
    finally:
        _flush()
        os._exit(status)


def _run(start: int, keeper: int, abilities: Abilities) -> int:
    wire = Wire.from_fd(start)
    kept = [start, keeper] if abilities.template is None else [start, keeper, abilities.template]
    try:
        document, received = wire.receive(START_TIMEOUT)
        _close_all_but(kept + received)
        spec = StartSpec.parse(document.get("spec"))
        descriptors = _descriptors(spec, received)
        # A group of its own, but the keeper's session, which no terminal has. The kernel schedules each session as one
        # group (autogroup), and a yield does not reach beyond it: guests in sessions of their own on one processor
        # did not let each other run, which cost a third of the frames from one to the other.
        os.setpgid(0, 0)
        process.set_title(f"pv-{spec.name}", f"partvisor: {spec.name}")
        _reset_signals()
        _set_environment(spec)
        handed: dict[str, int] = {}
        if spec.traps:  # before the change of uid: the right to trap system calls' faults goes with it
            spec.config["hardware"], handed = hardware_region.make()
        elif "configuration" in descriptors:
            pages = descriptors.pop("configuration")
            if spec.argv is None:
                spec.config["hardware"] = hardware_region.show(pages, spec.config["configuration"])
            else:
                content = os.pread(pages, len(spec.config["configuration"]) * PAGE, 0)
                spec.config["files"] = hardware_files.of(content, spec.config["configuration"])
            os.close(pages)
        if spec.trap_memory:
            spec.config["memory"], more = memory_region.make(descriptors, spec.config["plan"]["memory"])
            handed |= more
        taps: list[int] = []
        report = enter(spec, abilities, keeper, handed, taps)
        if "files" in spec.config and report["pivot"]:
            report["hardware"] = {"traps": False, "files": rootfs.PARTITION}
        report |= {name: spec.config[name] for name in ("hardware", "memory") if name in spec.config}
        if spec.argv is not None:
            spec.config["own_root"] = report["pivot"]  # files of the host are out of sight, and names its own
        if abilities.template is not None:
            os.close(abilities.template)
    except Exception as error:
        code = getattr(error, "code", "internal")
        wire.send(_failure(code if isinstance(code, str) else "internal", error), timeout=START_TIMEOUT)
        return 1
    ready: Message = {"sandbox": report, "handed": list(handed)}
    if spec.argv is not None:
        ready["exec"] = True
    wire.send(ready, list(handed.values()), timeout=START_TIMEOUT)
    close_fds(handed.values())  # the monitor's: the guest itself never has them
    if spec.argv is not None:
        return _exec(spec, wire, descriptors, taps)
    wire.close()
    return _enter(spec, descriptors)


def _failure(code: str, error: Exception) -> Message:
    text = str(error) if code != "internal" else f"{type(error).__name__}: {error}"
    return {"error": {"code": code, "message": text, "details": {}}}


def _close_all_but(kept: list[int]) -> None:
    """Close every other descriptor; standard input is nothing, output goes nowhere until a name says where."""
    null = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    first = 3
    for descriptor in sorted(kept):
        os.closerange(first, descriptor)
        first = descriptor + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))


def _descriptors(spec: StartSpec, received: list[int]) -> dict[str, int]:
    if len(received) != len(spec.fds):
        raise SpecError(f"spec.fds: {len(spec.fds)} names for {len(received)} descriptors")
    named = dict(zip(spec.fds, received, strict=True))
    for name, standard in _STANDARD.items():
        if name in named:
            descriptor = named.pop(name)
            os.dup2(descriptor, standard)
            os.close(descriptor)
    return named


def _reset_signals() -> None:
    """As a fresh interpreter, and SIGTERM ends it in order: process 1 of a pid namespace ignores it otherwise."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) not in (signal.SIG_DFL, None):
            signal.signal(number, signal.SIG_DFL)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # errors instead, as in every Python program
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _terminate)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _terminate(number: int, _frame: Any) -> NoReturn:
    raise SystemExit(128 + number)


def _set_environment(spec: StartSpec) -> None:
    os.environ.clear()
    guest = {"HOME": rootfs.scratch(), "TMPDIR": rootfs.scratch()} if spec.sandbox == "guest" else {}
    os.environ.update(BASE_ENVIRONMENT | guest | spec.environment)


def _enter(spec: StartSpec, descriptors: dict[str, int]) -> int:
    """Call the entry; returns the exit status as Python itself would."""
    assert spec.entry is not None
    if spec.counted:
        privileged.watch()
    module, _, function = spec.entry.partition(":")
    if spec.directory is not None:
        sys.path.insert(0, os.getcwd())
    sys.argv = [spec.entry]
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a log shows lines as they are written
    gc.unfreeze()
    try:
        entry = getattr(importlib.import_module(module), function)
        return _status(entry(Context(spec.name, spec.type, spec.config, descriptors)))
    except SystemExit as end:
        return _status(end.code)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        threading._shutdown()  # type: ignore[attr-defined]  # as at the end of a program: joins threads
        atexit._run_exitfuncs()


def _status(result: Any) -> int:
    if result is None:
        return 0
    if isinstance(result, int):
        return result & 0xFF
    print(result, file=sys.stderr)
    return 1


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # nobody reads any more
            pass


def _exec(spec: StartSpec, wire: Wire, descriptors: dict[str, int], taps: list[int]) -> int:
    """Become an unmodified program, below a process 1 of its own where there is a pid namespace.

    The socket closes by itself when the program starts; if that fails, the error follows on it. A program with
    endpoints always has a process above it, which drives them.
    """
    assert spec.argv is not None
    drive = None
    if "plan" in spec.config:
        try:
            drive = _driver(Context(spec.name, spec.type, spec.config, descriptors), taps)
        except Exception as error:
            wire.send(_failure(getattr(error, "code", "internal"), error), timeout=START_TIMEOUT)
            return 1
    if drive is not None or os.getpid() == 1:
        process.block_signals()
        child, pidfd = process.clone(0)
        if child:
            os.close(pidfd)
            if drive is None:
                wire.close()
                os.closerange(0, os.sysconf("SC_OPEN_MAX"))
            else:
                drive()
                wire.close()  # whoever hears this finds the threads (hostd.drivers)
            return process.reap(child)
    for number in (signal.SIGPIPE, signal.SIGTERM, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        os.execvp(spec.argv[0], spec.argv)
    except OSError as error:
        failure = {"code": "invalid", "message": f"{spec.argv[0]}: {error.strerror}", "details": {}}
        try:
            wire.send({"error": failure}, timeout=START_TIMEOUT)
        except WireError:
            pass
    return 127


def _driver(context: Context, taps: list[int]) -> Callable[[], None]:
    """Maps what the drivers of an unmodified program need; what it returns starts them."""
    from partitions.program import attach  # stands on the guest runtime, which other processes do without

    return attach(context, taps)

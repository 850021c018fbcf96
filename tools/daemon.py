"""Starting and ending a host's daemon, for `hostctl up` and `down` and for tools with a host of their own."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hostd.errors import HostError, from_document
from hostd.paths import Paths, prepare
from tools.client import Client, peer_pid

START_SECONDS = 60.0
STOP_SECONDS = 30.0
LOG_BYTES_MAX = 8 << 20  # a longer log is put aside at the next start
LOG_LINES_SHOWN = 20
READY = b"READY"
HOSTD = (sys.executable, "-m", "hostd")


def start(paths: Paths, manifest: str | None, timeout: float = START_SECONDS, load: bool = True) -> int:
    """Start hostd in the background and return its pid once the API answers; without `load` it only boots.

    HostError has the daemon's own error, also every problem of a manifest; on a timeout the daemon is ended.
    """
    running = peer_pid(paths.api_socket)
    if running is not None:
        raise HostError("conflict", f"a host runs in {paths.runtime} already (hostd has pid {running})", pid=running)
    prepare(paths)
    command = [*HOSTD, "--runtime-dir", str(paths.runtime), "--state-dir", str(paths.state)]
    if manifest is not None:
        command += ["--manifest", os.path.abspath(manifest)]
    if not load:
        command.append("--no-load")
    read, write = os.pipe()
    try:
        with open(_open_log(paths.log), "ab", closefd=True) as log:
            process = subprocess.Popen(
                [*command, "--ready-fd", str(write)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[write],
                start_new_session=True,  # Ctrl-C at this terminal is not meant for the host
                cwd=Path(__file__).resolve().parents[1],  # `-m` looks there first; and no user's folder stays in use
                env={key: value for key, value in os.environ.items() if key != "NOTIFY_SOCKET"},
            )
        os.close(write)
        write = -1
        _await_ready(process, read, paths, timeout)
    finally:
        os.close(read)
        if write >= 0:
            os.close(write)
    process.returncode = 0  # it lives on without us: no warning about a child that was never awaited
    return process.pid


def _open_log(path: Path) -> int:
    if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
        path.replace(path.with_suffix(".log.1"))
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _await_ready(process: "subprocess.Popen[bytes]", read: int, paths: Paths, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    answer = b""
    while not answer.endswith(b"\n"):
        if not select.select([read], [], [], max(0.0, deadline - time.monotonic()))[0]:
            _end(process)
            raise HostError("timeout", f"hostd was not ready within {timeout:g} s; its log is {paths.log}")
        chunk = os.read(read, 65536)
        if not chunk:
            break
        answer += chunk
    if answer.strip() == READY:
        return
    _end(process)
    try:
        raise from_document(json.loads(answer), "hostd did not start")
    except ValueError:
        lines = "\n".join(f"  {line}" for line in _last_lines(paths.log))
        raise HostError(
            "internal",
            f"hostd ended with status {process.returncode} before it was ready; {paths.log} ends with\n{lines}",
        ) from None


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Nothing may be left of a start that failed; hostd takes its keeper with it on SIGTERM."""
    try:
        process.wait(timeout=0.1)
        return
    except subprocess.TimeoutExpired:
        process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _last_lines(path: Path) -> list[str]:
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - 16384))
        return file.read().decode(errors="replace").splitlines()[-LOG_LINES_SHOWN:]


def stop(paths: Paths, timeout: float = STOP_SECONDS, force: bool = False) -> dict[str, Any]:
    """End a host and wait for its daemon and keeper: {"hostd": pid or None, "keeper": pid or None}.

    Works without the daemon too, through the keeper. With `force` the daemon is not asked but killed.
    """
    deadline = time.monotonic() + timeout
    pids = {"hostd": peer_pid(paths.api_socket), "keeper": peer_pid(paths.keeper_socket)}
    with _Processes(pids) as processes:
        if pids["hostd"] is not None and force:
            processes.kill("hostd")
        asked = pids["hostd"] is not None and not force and _ask_daemon(paths, deadline)
        if pids["keeper"] is not None and not asked:
            _ask_keeper(paths, deadline)
        left = processes.wait(deadline)
    if left:
        raise HostError(
            "timeout",
            f"still there after {timeout:g} s: {', '.join(f'{name} (pid {pids[name]})' for name in left)}; "
            "`hostctl down --force` does not ask the daemon",
        )
    _sweep(paths)
    return pids


def _ask_daemon(paths: Paths, deadline: float) -> bool:
    try:
        Client(paths, max(0.1, deadline - time.monotonic())).post("/v1/down")
    except HostError as error:
        if error.code != "unreachable":
            raise
        return False
    return True


def _ask_keeper(paths: Paths, deadline: float) -> None:
    """Have the keeper end itself and all that it started; it may be ending already."""
    from hostd.wire import Wire, WireError

    try:
        with Wire.connect(paths.keeper_socket) as wire:
            wire.request({"op": "stop"}, timeout=max(0.1, deadline - time.monotonic()))
    except (FileNotFoundError, ConnectionError, WireError, EOFError):
        pass  # whether it is gone is seen by its descriptor
    except TimeoutError:
        raise HostError("timeout", "the keeper does not answer") from None


def _sweep(paths: Paths) -> None:
    """Remove what killed processes left: sockets that nobody answers, shared memory with a name."""
    from hostd.runtime import sweep_stale

    if not paths.runtime.is_dir():
        return
    sweep_stale(paths.runtime)
    if peer_pid(paths.api_socket) is None:
        paths.api_socket.unlink(missing_ok=True)


class _Processes:
    """Descriptors of processes, taken before they are asked to end, so that no pid is mistaken for another."""

    def __init__(self, pids: dict[str, int | None]) -> None:
        self._pidfds: dict[str, int] = {}
        for name, pid in pids.items():
            try:
                if pid is not None:
                    self._pidfds[name] = os.pidfd_open(pid)
            except ProcessLookupError:
                pass

    def __enter__(self) -> "_Processes":
        return self

    def __exit__(self, *exception: object) -> None:
        for pidfd in self._pidfds.values():
            os.close(pidfd)

    def kill(self, name: str) -> None:
        if name in self._pidfds:
            signal.pidfd_send_signal(self._pidfds[name], signal.SIGKILL)

    def wait(self, deadline: float) -> Sequence[str]:
        """Names of those that have not ended by the deadline."""
        left = dict(self._pidfds)
        while left:
            ended, _, _ = select.select(list(left.values()), [], [], max(0.0, deadline - time.monotonic()))
            if not ended:
                break
            left = {name: pidfd for name, pidfd in left.items() if pidfd not in ended}
        return list(left)

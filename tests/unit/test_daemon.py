"""`hostctl up` and `down`: every way in which a daemon can start, fail to start, end, and fail to end.

Daemon and keeper are played by small programs, so that each can misbehave on purpose.
"""

import json
import os
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hostd.errors import HostError
from hostd.paths import Paths, resolve
from hostd.wire import Wire
from tools import cli, daemon
from tools.client import peer_pid

COMMON = """\
    import json, os, signal, socket, sys, time
    def ready(line):
        os.write(int(sys.argv[sys.argv.index("--ready-fd") + 1]), line.encode() + b"\\n")
    def listen(kind, name):
        sock = socket.socket(socket.AF_UNIX, kind)
        sock.bind(os.path.join(sys.argv[sys.argv.index("--runtime-dir") + 1], name))
        sock.listen(8)
        return sock
"""
GOOD = """\
    listener = listen(socket.SOCK_STREAM, "api.sock")
    ready("READY")
    signal.pause()
"""
OBEDIENT = """\
    listener = listen(socket.SOCK_STREAM, "api.sock")
    ready("READY")
    while True:
        connection = listener.accept()[0]
        if connection.recv(65536).startswith(b"POST /v1/down "):
            connection.sendall(b"HTTP/1.1 202 Accepted\\r\\nContent-Length: 2\\r\\n\\r\\n{}")
            os.unlink(listener.getsockname())
            sys.exit(0)
"""
KEEPER = """\
    listener = listen(socket.SOCK_SEQPACKET, "keeper.sock")
    print("listening", flush=True)
    while True:
        connection = listener.accept()[0]
        request = connection.recv(65536)
        if request and json.loads(request)["op"] == "stop":
            connection.send(json.dumps({"reply": json.loads(request)["seq"]}).encode())
            sys.exit(0)
"""


def program(body: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(COMMON) + textwrap.dedent(body)]


@pytest.fixture
def paths(runtime_dir: Path) -> Paths:
    return resolve(runtime_dir, None, {})


@pytest.fixture
def hostd(monkeypatch: pytest.MonkeyPatch, paths: Paths) -> Iterator[Callable[[str], None]]:
    """Chooses what plays hostd. What is left of it at the end is killed."""
    yield lambda body: monkeypatch.setattr(daemon, "HOSTD", tuple(program(body)))
    pid = peer_pid(paths.api_socket)
    if pid is not None:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


@pytest.fixture
def keeper(paths: Paths) -> Iterator[subprocess.Popen[str]]:
    command = [*program(KEEPER), "--runtime-dir", str(paths.runtime)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "listening\n"
    yield process
    process.kill()
    process.communicate()


def gone(pid: int) -> bool:
    """Ended: awaited already, or a zombie that this process has not looked at."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return not Path(f"/proc/{pid}").exists()


def test_up_returns_when_the_daemon_is_ready(paths: Paths, hostd: Callable[[str], None]) -> None:
    hostd(GOOD)
    pid = daemon.start(paths, None, 20)
    assert peer_pid(paths.api_socket) == pid
    assert os.getsid(pid) == pid, "Ctrl-C at this terminal is not meant for the host"
    with pytest.raises(HostError, match="runs in .* already") as caught:
        daemon.start(paths, None, 20)
    assert caught.value.code == "conflict"


def test_up_does_not_wait_by_looking_again_and_again(paths: Paths, hostd: Callable[[str], None]) -> None:
    hostd("    time.sleep(0.4)\n" + GOOD)
    cpu = time.process_time()
    daemon.start(paths, None, 20)
    assert time.process_time() - cpu < 0.1


def test_the_daemons_own_error_comes_through(paths: Paths, hostd: Callable[[str], None]) -> None:
    document = {"error": {"code": "invalid", "message": "2 errors", "details": {"problems": [1, 2]}}}
    hostd(f"    ready({json.dumps(json.dumps(document))}); sys.exit(3)")
    with pytest.raises(HostError, match="2 errors") as caught:
        daemon.start(paths, None, 20)
    assert caught.value.exit_code == 3 and caught.value.details == {"problems": [1, 2]}


def test_a_daemon_that_dies_shows_its_log(paths: Paths, hostd: Callable[[str], None]) -> None:
    hostd("    print('the reason', file=sys.stderr); sys.exit(9)")
    with pytest.raises(HostError, match="(?s)status 9 .*hostd.log.*the reason") as caught:
        daemon.start(paths, None, 20)
    assert caught.value.code == "internal"
    assert paths.log.stat().st_mode & 0o777 == 0o600


def test_a_daemon_that_hangs_is_ended(paths: Paths, hostd: Callable[[str], None]) -> None:
    hostd("""\
    open(sys.argv[sys.argv.index("--runtime-dir") + 1] + "/pid", "w").write(str(os.getpid()))
    signal.pause()
    """)
    with pytest.raises(HostError, match="not ready within 0.5 s") as caught:
        daemon.start(paths, None, 0.5)
    assert caught.value.exit_code == 7
    assert gone(int((paths.runtime / "pid").read_text()))


def test_an_answer_that_is_none_ends_the_daemon(paths: Paths, hostd: Callable[[str], None]) -> None:
    hostd("    ready('nonsense'); signal.pause()")
    with pytest.raises(HostError) as caught:
        daemon.start(paths, None, 20)
    assert caught.value.code == "internal"


def test_a_long_log_is_put_aside(paths: Paths, hostd: Callable[[str], None]) -> None:
    daemon.prepare(paths)
    with open(paths.log, "wb") as log:
        log.truncate(daemon.LOG_BYTES_MAX + 1)
    hostd(GOOD)
    daemon.start(paths, None, 20)
    assert paths.log.stat().st_size == 0 and (paths.state / "hostd.log.1").exists()


def test_down_waits_for_daemon_and_keeper(
    paths: Paths, hostd: Callable[[str], None], keeper: subprocess.Popen[str]
) -> None:
    hostd(OBEDIENT)
    pid = daemon.start(paths, None, 20)
    with pytest.raises(HostError, match=rf"keeper \(pid {keeper.pid}\).*--force") as caught:
        daemon.stop(paths, 1.0)  # this daemon does not take its keeper along
    assert caught.value.code == "timeout" and gone(pid)
    assert daemon.stop(paths, 20) == {"hostd": None, "keeper": keeper.pid}
    assert keeper.wait(5) == 0


def test_down_after_a_killed_daemon_goes_to_the_keeper(
    paths: Paths, hostd: Callable[[str], None], keeper: subprocess.Popen[str], capfd: pytest.CaptureFixture[str]
) -> None:
    hostd(GOOD)
    pid = daemon.start(paths, None, 20)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    for verb in ("status", "list"):
        assert cli.run([verb, "--runtime-dir", str(paths.runtime)]) == 6
        err = capfd.readouterr().err
        assert f"keeper (pid {keeper.pid})" in err and "`hostctl down` ends them" in err
    assert cli.run(["down", "--runtime-dir", str(paths.runtime)]) == 0
    assert keeper.wait(5) == 0
    assert [path.name for path in paths.runtime.iterdir()] == ["state"], "no socket of the killed ones is left"


def test_force_does_not_ask_a_daemon_that_hangs(
    paths: Paths, hostd: Callable[[str], None], keeper: subprocess.Popen[str]
) -> None:
    hostd(GOOD)  # it never answers
    pid = daemon.start(paths, None, 20)
    with pytest.raises(HostError) as caught:
        daemon.stop(paths, 0.5)
    assert caught.value.exit_code == 7
    assert daemon.stop(paths, 20, force=True) == {"hostd": pid, "keeper": keeper.pid}
    assert gone(pid) and keeper.wait(5) == 0


def test_nothing_to_end_is_no_error(paths: Paths, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["down", "--json", "--runtime-dir", str(paths.runtime)]) == 0
    assert json.loads(capfd.readouterr().out) == {"ended": {"hostd": None, "keeper": None}}
    assert cli.run(["down", "--runtime-dir", str(paths.runtime / "never-was")]) == 0


def test_the_kernel_says_who_listens(paths: Paths, keeper: subprocess.Popen[str]) -> None:
    assert peer_pid(paths.keeper_socket) == keeper.pid
    assert peer_pid(paths.api_socket) is None
    left = paths.runtime / "left.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(str(left))
    assert peer_pid(left) is None
    with Wire.connect(paths.keeper_socket) as wire:
        wire.request({"op": "stop"}, timeout=5)

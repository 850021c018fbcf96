"""The end of a host, at any moment and in any way, leaves nothing behind: no process, shared memory, socket or file.

Delays are random and their seed is printed. A host that is up is ended by signal; one that is just starting is started
here as a service manager would, in the foreground.
"""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from hostd.asking import NOTICE
from hostd.errors import HostError
from tests.framework.host import DEADLINE, INFRASTRUCTURE, Host
from tests.framework.puppet import Call
from tools import daemon
from tools.daemon import HOSTD

ROOT = Path(__file__).resolve().parents[2]
BOOTS, BOOTS_LONG = 6, 200
ENDS, ENDS_LONG = 2, 50
BOOT_SECONDS = 1.2
DISK = {"name": "vda", "size": "1MiB"}


def foreground(host: Host) -> subprocess.Popen[bytes]:
    """hostd as a service manager or a terminal starts it."""
    command = [*HOSTD, "--runtime-dir", str(host.paths.runtime), "--state-dir", str(host.paths.state)]
    return subprocess.Popen(
        [*command, "--manifest", str(host.manifest)], cwd=ROOT, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def end(host: Host, number: int, processes: Sequence[psutil.Process]) -> None:
    """Sends a signal to the daemon and waits for a clean end with nothing left."""
    assert len(processes) >= 2 + len(INFRASTRUCTURE)
    host.signal(number)
    _, status = os.waitpid(host.pid, 0)
    host.pid = 0
    host.stop_puppets()
    assert os.waitstatus_to_exitcode(status) == 0, host.paths.log.read_text()
    assert [process for process in processes if process.is_running()] == []
    assert host.remains() == []


def begin_work(host: Host, count: int = 2) -> list[Call]:
    guests = [host.guest(f"g{number}", disks=[DISK], nics=["eth0", "eth1"]) for number in range(count)]
    return [guest.begin("work:verified", seed=number) for number, guest in enumerate(guests)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_during_the_start(own: Host, number: int, seed: int, long: bool) -> None:
    generator = random.Random(seed)
    for _ in range((BOOTS_LONG if long else BOOTS) // 2):
        process = foreground(own)
        time.sleep(generator.random() * BOOT_SECONDS)
        process.send_signal(number)
        _, errors = process.communicate(timeout=DEADLINE)
        # Before the interpreter has come to hostd's own code it ends as every program does.
        assert process.returncode in (0, -number, 1 if b"KeyboardInterrupt" in errors else 0), errors.decode()
        if own.paths.runtime.exists():
            assert own.remains() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_under_load(own: Host, number: int, seed: int, long: bool) -> None:
    generator = random.Random(seed)
    for _ in range(ENDS_LONG if long else ENDS):
        own.start()
        begin_work(own)
        processes = own.processes()
        time.sleep(generator.random() * 0.2)
        end(own, number, processes)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_while_guests_start_and_end(own: Host, number: int, seed: int, long: bool) -> None:
    generator = random.Random(seed)
    for _ in range(ENDS_LONG if long else ENDS):
        own.start()
        threads = [threading.Thread(target=churn, args=(own, f"t{thread}")) for thread in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(generator.random() * 0.4)
        end(own, number, own.processes())
        for thread in threads:
            thread.join(DEADLINE)


def churn(host: Host, name: str) -> None:
    """Starts and removes guests until the host is gone."""
    try:
        while True:
            host.spawn(name, ["ends:never"], disks=[{"name": "vda", "size": "64KiB"}], nics=[{"name": "eth0"}])
            host.remove(name)
    except HostError:
        pass


def test_who_waits_for_a_role_does_not_hold_the_end_up(own: Host) -> None:
    """A guest that is being started asks a disk device that is stopped; nobody will start another one."""
    own.start()
    os.kill(own.pids()["disk0"], signal.SIGSTOP)
    spawning = threading.Thread(target=churn, args=(own, "late"))
    spawning.start()
    own.until(lambda: "late" in own.rows())
    begin = time.monotonic()
    end(own, signal.SIGTERM, own.processes())
    assert time.monotonic() - begin < NOTICE
    spawning.join(DEADLINE)


def test_second_signal_changes_nothing(own: Host) -> None:
    """An impatient Ctrl-C, Ctrl-C, Ctrl-C, in the middle of `down`."""
    own.start()
    begin_work(own)
    processes = own.processes()
    answer = threading.Thread(target=daemon.stop, args=(own.paths,))
    answer.start()
    for _ in range(5):
        own.signal(signal.SIGINT)
        time.sleep(0.01)
    end(own, signal.SIGTERM, processes)
    answer.join(DEADLINE)


def test_down_without_a_daemon(own: Host) -> None:
    """`hostctl down` needs the keeper alone."""
    own.start()
    begin_work(own)
    own.signal(signal.SIGKILL)
    own.reap()
    own.stop()


def test_killed_daemon_during_the_start(own: Host, seed: int) -> None:
    """SIGKILL at any moment: `down` finds what is there, and a new start works."""
    generator = random.Random(seed)
    for _ in range(3):
        process = foreground(own)
        time.sleep(generator.random() * BOOT_SECONDS)
        process.kill()
        process.communicate()
        if own.paths.runtime.exists():
            own.until(own.settled)
            daemon.stop(own.paths)
            assert own.remains() == []
    own.start()
    own.guest("guest", disks=[DISK]).call("disk:write", disk="vda", length=4096, seed=1)
    own.stop()


def test_killed_keeper_takes_everything_along(own: Host) -> None:
    """The one declared outage: no process survives it, the daemon says so and cleans up."""
    own.start()
    begin_work(own)
    pids = own.pids()
    os.kill(pids["keeper"], signal.SIGKILL)
    _, status = os.waitpid(own.pid, 0)
    own.pid = 0
    own.stop_puppets()
    assert os.waitstatus_to_exitcode(status) == 1
    assert "the keeper died" in own.paths.log.read_text()
    assert [name for name, pid in pids.items() if Path(f"/proc/{pid}").exists()] == []
    assert own.remains() == []
    own.start()
    assert set(own.rows()) == {"hostd", "keeper", *INFRASTRUCTURE}
    own.stop()


def test_disks_survive_the_host(own: Host) -> None:
    own.start()
    own.guest("first", disks=[{**DISK, "file": "kept.img"}]).call("disk:write", disk="vda", length=65536, seed=9)
    own.stop()
    own.start()
    own.guest("second", disks=[{**DISK, "file": "kept.img"}]).call("disk:read", disk="vda", length=65536, seed=9)
    own.stop()


def test_folders_are_asked_for_politely(own: Host) -> None:
    """A second host in the same folder is refused and disturbs nothing."""
    own.start()
    pids = own.pids()
    done = subprocess.run(
        [sys.executable, "-m", "hostd", "--runtime-dir", str(own.paths.runtime), "--state-dir", str(own.paths.state)],
        cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE,
    )  # fmt: skip
    assert (done.returncode, "another hostd uses this state folder" in done.stderr) == (5, True), done.stderr
    assert own.pids() == pids
    own.stop()

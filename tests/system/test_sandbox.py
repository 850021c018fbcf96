"""The guest's sandbox from inside and outside: each attempt with its exact errno (rule 27, U16, tests 10 and 43)."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import signal
import socket
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import psutil
import pytest

from hostd import rootfs, sandbox
from hostd.keeper import Keeper
from hostd.wire import RemoteError
from pyx import process
from tests.system.keeping import GUEST_UID, PROGRAMS, guest, keeper_in, run, start

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="guests need a uid of their own: root")

Story = Callable[[Keeper], Coroutine[Any, Any, None]]

# What fails otherwise than by the filter's EPERM, and why.
OTHERWISE = {
    "reopen_channel_truncating": "EACCES",  # mode 0600 of another uid
    "reopen_memory_truncating": "EACCES",
    "reopen_memory_reading": "EACCES",
    "map_files": "EPERM",  # a link that only CAP_CHECKPOINT_RESTORE follows
    "clone3": "ENOSYS",  # its flags cannot be seen; libc falls back to clone
    "kill_host_process": "ESRCH",  # another pid namespace
    "kill_everybody": "ESRCH",
    "pidfd_of_host_process": "ESRCH",
    "proc_of_host_process": "ENOENT",
    "memory_of_host_process": "ENOENT",
    "kernel_memory": "ENOENT",
    "kernel_settings": "ENOENT",  # /proc shows processes only
    "kernel_image": "ENOENT",
    "hardware_tree": "ENOENT",
    "abstract_socket_of_host": "ECONNREFUSED",  # another network namespace
    "keeper_socket": "ENOENT",
    "secret_of_owner": "ENOENT",
    "passwords": "ENOENT",
    "home": "ENOENT",
    "write_into_root": "EROFS",
    "write_into_usr": "EROFS",
    "write_into_program": "EROFS",
    "write_into_interpreter": "EACCES",  # and EROFS for its owner
    "out_of_the_root": True,  # the root's parent is the root
    "descriptor_of_parent": ["/dev/shm/partvisor", "/memfd"],
}
CONFIG = ("host_pid", "secret", "abstract", "keeper")  # what the attempts are told about the host
NOT_ON_ARM = {"iopl", "ioperm", "modify_ldt", "x32_call"}
ATTEMPTS_LEAST = 90


def play(runtime: Path, story: Story, **arguments: Any) -> None:
    async def scene() -> None:
        async with keeper_in(runtime, **arguments) as client:
            await story(client)

    asyncio.run(scene())
    assert os.listdir(runtime) == []


def test_escalation(runtime_dir: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the owner's")
    abstract = f"partvisor-test-{os.getpid()}-abstract"

    async def story(client: Keeper) -> None:
        [(_, memory), (_, channel)] = await client.create_segments([("memory", 8192, "m"), ("channel", 8192, "c")])
        told = (os.getpid(), str(secret), abstract, str(runtime_dir / "keeper.sock"))
        config = dict(zip(CONFIG, told, strict=True))
        fds = {"memory": memory, "channel": channel}
        text, status = await run(client, "escape:main", fds=fds, config=config, **guest())
        assert status == {"exited": 0}, text
        results = json.loads(text.splitlines()[-1])
        expected = {name: OTHERWISE.get(name, "EPERM") for name in results}
        if platform.machine() != "x86_64":
            expected |= dict.fromkeys(NOT_ON_ARM, "ENOSYS")
        assert results == expected
        assert len(results) >= ATTEMPTS_LEAST and set(OTHERWISE) <= set(results)
        assert (os.fstat(memory).st_size, os.fstat(channel).st_size) == (8192, 8192)
        os.close(memory)
        os.close(channel)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0" + abstract)
        listener.listen()
        play(runtime_dir, story)


def test_what_a_guest_is(runtime_dir: Path) -> None:
    async def story(client: Keeper) -> None:
        secret = {"PARTVISOR_TEST_SECRET": "hidden"}
        os.environ.update(secret)
        running = await start(client, "small:surroundings", name="store", environment={"GIVEN": "yes"}, **guest())
        found = json.loads(await running.line())
        status = found["status"]
        assert (found["pid"], found["group"], found["thread"]) == (1, 1, 1)
        assert found["uid"] == found["gid"] == [GUEST_UID] * 3 and found["groups"] == []
        assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        assert (found["folder"], found["path"]) == ("/program", "/program")
        assert found["environment"].pop("GIVEN") == "yes"
        assert set(found["environment"]) <= {"PATH", "LANG", "HOME", "TMPDIR", "LC_CTYPE"}
        assert found["open"] == [0, 1, 2]
        assert running.reply["sandbox"] == {
            "sandbox": "guest",
            "profile": "guest",
            "uid": True,
            "pivot": True,
            "seccomp": True,
            "no_new_privileges": True,
            "capabilities": "none",
            "namespaces": ["pid", "mount", "net", "ipc", "uts"],
        }
        running.close()

    play(runtime_dir, story)


def test_what_the_host_sees_of_a_guest(runtime_dir: Path) -> None:
    async def story(client: Keeper) -> None:
        one, two = [await start(client, "small:wait", name=f"guest-{n}", **guest(n)) for n in range(2)]
        for running in (one, two):
            await running.line()
        for kind in ("pid", "mnt", "net", "ipc", "uts"):
            spaces = {os.readlink(f"/proc/{pid}/ns/{kind}") for pid in (one.pid, two.pid, os.getpid())}
            assert len(spaces) == 3, f"{kind}: every guest has its own"
        assert psutil.Process(one.pid).uids().real == GUEST_UID
        assert Path(f"/proc/{one.pid}/comm").read_text() == "pv-guest-0\n"
        assert os.stat(f"/proc/{one.pid}/mem").st_uid == 0, "not dumpable: its files in /proc are root's"
        limits = Path(f"/proc/{one.pid}/limits").read_text()
        for name, value in (("Max core file size", 0), ("Max open files", 66), ("Max processes", 64)):
            assert f"{name:25} {value:<20} {value:<20}" in limits
        mounts = Path(f"/proc/{one.pid}/mounts").read_text().splitlines()
        writable = [line.split()[1] for line in mounts if "rw" in line.split()[3].split(",")]
        assert sorted(writable) == ["/proc", rootfs.scratch()]
        for line in mounts:
            assert "nosuid" in line.split()[3]
            assert "nodev" in line.split()[3] or line.split()[1] == "/", "device files live in the root alone"
        interfaces = Path(f"/proc/{one.pid}/net/dev").read_text()
        assert [line.split(":")[0].strip() for line in interfaces.splitlines()[2:]] == ["lo"]
        one.close()
        two.close()

    play(runtime_dir, story)


def test_greed_ends_at_the_bounds(runtime_dir: Path) -> None:
    async def story(client: Keeper) -> None:
        text, status = await run(client, "escape:greed", **guest())
        assert status == {"exited": 0}, text
        found = json.loads(text)
        assert found["files"][0] <= 66 and found["files"][1] == "EMFILE"
        assert found["scratch"] == [64, "ENOSPC"]
        assert found["memory"][0] < 1024 and found["memory"][1] == "ENOMEM"
        assert found["processes"][0] < 64 and found["processes"][1] == "EAGAIN"

    play(runtime_dir, story)


def test_limits_can_be_given(runtime_dir: Path) -> None:
    async def story(client: Keeper) -> None:
        text, _ = await run(client, "escape:greed", limits={"nproc": 9, "nofile": 20}, **guest())
        found = json.loads(text)
        assert found["processes"][0] < 9 and found["files"][0] < 20

    play(runtime_dir, story)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="int 0x80")
def test_a_foreign_architecture_kills(runtime_dir: Path) -> None:
    async def story(client: Keeper) -> None:
        text, status = await run(client, "escape:foreign_architecture", **guest())
        # SIGSYS by the filter; SIGSEGV where the kernel has no 32-bit calls at all.
        assert text == "trying\n" and status in ({"signalled": signal.SIGSYS}, {"signalled": signal.SIGSEGV})

    play(runtime_dir, story)


def test_ordinary_programs_work_inside(runtime_dir: Path) -> None:
    async def story(client: Keeper) -> None:
        assert await run(client, "small:late_imports", **guest()) == ('["0.25", 7, "beside"]\n', {"exited": 0})
        assert await run(client, "small:children", **guest()) == ('"42"\n', {"exited": 0})
        text, status = await run(client, "small:threads", **guest())
        assert status == {"exited": 0} and "thread done" in text

    play(runtime_dir, story)


def test_unmodified_programs_work_inside(runtime_dir: Path, tmp_path: Path) -> None:
    """Below a process 1 of their own: signals reach them, orphans are reaped, their exit code comes out."""
    tmp_path.chmod(0o755)
    (tmp_path / "here").write_text("found\n")
    shell = {**guest(), "directory": str(tmp_path)}

    async def story(client: Keeper) -> None:
        assert await run(client, ["sh", "-c", "cat here; exit 5"], **shell) == ("found\n", {"exited": 5})
        assert await run(client, ["sh", "-c", "echo $$"], **shell) == ("2\n", {"exited": 0})
        assert (await run(client, ["sh", "-c", "kill -9 $$"], **shell))[1] == {"exited": 128 + 9}
        assert (await run(client, ["sh", "-c", "(sleep 0.01 &) ; sleep 0.05"], **shell))[1] == {"exited": 0}
        assert (await run(client, ["sh", "-c", "truncate -s 10 $TMPDIR/x && wc -c < $TMPDIR/x"], **shell))[0] == "10\n"
        inet = "import socket; socket.create_server(('127.0.0.1', 0)).close(); print('served')"
        assert await run(client, [sys.executable, "-c", inet], **shell) == ("served\n", {"exited": 0})
        assert "Operation not permitted" in (await run(client, ["unshare", "-U", "true"], **shell))[0]
        with pytest.raises(RemoteError, match="no-such-program: No such file"):
            await run(client, ["no-such-program"], **shell)
        running = await start(client, ["sh", "-c", "echo up; exec sleep 1000"], **shell)
        await running.line()
        signal.pidfd_send_signal(running.reply["pidfd"], signal.SIGTERM)
        await running.ended()
        running.close()

    play(runtime_dir, story)


@pytest.mark.parametrize(
    ("spec", "code", "reason"),
    [
        ({"uid": None}, "denied", "needs spec.uid"),
        ({"uid": 0}, "denied", "needs spec.uid"),
        ({"limits": {"color": 1}}, "invalid", "no such limit"),
        ({"directory": "/nowhere"}, "invalid", "/nowhere: No such file"),
        ({"directory": "/etc/passwd"}, "invalid", "/etc/passwd: Not a directory"),
        ({"processors": [999]}, "invalid", r"processors: \[999\]: Invalid argument"),
    ],
)
def test_refusals(runtime_dir: Path, spec: dict[str, Any], code: str, reason: str) -> None:
    async def story(client: Keeper) -> None:
        with pytest.raises(RemoteError, match=reason) as caught:
            await start(client, "small:nothing", **{**guest(), **spec})
        assert caught.value.code == code
        assert (await client.list())["processes"] == []

    play(runtime_dir, story)


def test_a_folder_closed_to_the_guest_is_named_with_the_cure(runtime_dir: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)

    async def story(client: Keeper) -> None:
        with pytest.raises(RemoteError, match=rf"{tmp_path}: not readable for uid {GUEST_UID}; chmod o\+rX"):
            await start(client, "small:nothing", directory=str(tmp_path), **guest())

    play(runtime_dir, story)


def test_a_program_folder_below_a_closed_one_works(runtime_dir: Path, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "mine.py").write_text("def main(context):\n    print('mine')\n")
    inner.chmod(0o755)
    tmp_path.chmod(0o700)

    async def story(client: Keeper) -> None:
        assert (await run(client, "mine:main", directory=str(inner), **guest()))[0] == "mine\n"

    play(runtime_dir, story)


def test_roles(runtime_dir: Path) -> None:
    """Root with its capabilities, but without new privileges, dumps and the calls that no role needs."""

    async def story(client: Keeper) -> None:
        text, status = await run(client, "escape:role", sandbox="role")
        assert status == {"exited": 0}, text
        found = json.loads(text)
        assert set(found["attempts"].values()) == {"EPERM"}
        assert (found["status"]["NoNewPrivs"], found["status"]["Seccomp"]) == ("1", "2")
        assert found["status"]["CapEff"] == psutil_status()["CapEff"]
        running = await start(client, "small:wait", sandbox="role")
        await running.line()
        assert "Max core file size        0 " in Path(f"/proc/{running.pid}/limits").read_text()
        running.close()

    play(runtime_dir, story)


def psutil_status() -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())


def test_a_dead_guest_takes_its_descendants_along(runtime_dir: Path) -> None:
    async def story(client: Keeper) -> None:
        running = await start(client, "small:daughter", config={"detach": True, "stay": True}, **guest())
        await running.line()
        inside = [process for process in psutil.process_iter(["uids"]) if process.info["uids"].real == GUEST_UID]
        assert len(inside) >= 2
        signal.pidfd_send_signal(running.reply["pidfd"], signal.SIGKILL)
        await running.ended()
        assert not any(process.is_running() for process in inside if process.pid != running.pid)
        running.close()

    play(runtime_dir, story)


def test_start_is_fast(runtime_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Request to the first line of the entry, guest sandbox on. The aim is a median of 8 ms on a quiet machine;
    the bound is on the fastest, so that a busy neighbour does not fail it."""

    async def story(client: Keeper) -> None:
        await run(client, "modules:first_line", **guest())
        seconds = []
        for _ in range(50):
            begin = time.perf_counter()
            running = await start(client, "modules:first_line", **guest())
            await running.line()
            seconds.append(time.perf_counter() - begin)
            await running.ended()
            running.close()
        with capsys.disabled():
            print(f"\nguest start: median {statistics.median(seconds) * 1e3:.1f} ms, min {min(seconds) * 1e3:.1f} ms")
        assert min(seconds) < 0.020

    play(runtime_dir, story)


def test_the_probe_for_doctor() -> None:
    checks = {check["name"]: check for check in sandbox.probe()}
    assert len(checks) >= 12
    for check in checks.values():
        assert set(check) == {"name", "ok", "detail", "cure"} and (check["ok"] or check["cure"])
    assert checks["guest confinement"]["ok"], checks["guest confinement"]["detail"]


# ---- ordinary users ----

Scene = Callable[[Path], Coroutine[Any, Any, Any]]


def as_ordinary_user(runtime: Path, scene: Scene) -> Any:
    """What `scene` returns when an ordinary user runs it, in a process of its own.

    Root's interpreter may be closed to others, so it runs in a mount namespace with the guest root.
    """
    os.chown(runtime, GUEST_UID, GUEST_UID)
    read, write = os.pipe()
    pid, pidfd = process.clone(process.CLONE_NEWNS)
    if pid == 0:
        status = 1
        try:
            os.close(read)
            _become_ordinary_user(runtime)
            os.write(write, json.dumps(asyncio.run(scene(Path(f"{rootfs.scratch()}/runtime")))).encode())
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(write)
    os.close(pidfd)
    with open(read) as pipe:
        text = pipe.read()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return json.loads(text)


def _become_ordinary_user(runtime: Path) -> None:
    place = f"{rootfs.scratch()}/runtime"
    folders = {place: process.open_tree(str(runtime)), "/program": process.open_tree(str(PROGRAMS))}
    rootfs.build()
    process.mount("proc", "/proc", "proc", 0, "")
    process.mount("scratch", rootfs.scratch(), "tmpfs", 0, "mode=1777")
    os.mkdir(place)
    for target, tree in folders.items():
        process.move_mount(tree, target)
    os.setgroups([])
    os.setresgid(GUEST_UID, GUEST_UID, GUEST_UID)
    os.setresuid(GUEST_UID, GUEST_UID, GUEST_UID)
    process.set_dumpable(True)  # as after the exec of a login


def test_without_root_guests_are_refused(runtime_dir: Path) -> None:
    async def scene(runtime: Path) -> Any:
        async with keeper_in(runtime) as client:
            try:
                await start(client, "small:nothing", directory="/program", sandbox="guest")
            except RemoteError as error:
                return [error.code, error.message]

    code, message = as_ordinary_user(runtime_dir, scene)
    assert code == "denied"
    assert "an own uid for each guest: hostd was not started as root" in message and "sandbox: permissive" in message


def test_without_root_unsafe_guests_get_what_there_is(runtime_dir: Path) -> None:
    async def scene(runtime: Path) -> Any:
        async with keeper_in(runtime) as client:
            unsafe = {"directory": "/program", "sandbox": "guest", "unsafe": True, "uid": 12345}
            running = await start(client, "small:surroundings", **unsafe)
            found = json.loads(await running.line())
            running.close()
            text, _ = await run(client, "escape:role", **unsafe)
            return [running.reply["sandbox"], found, json.loads(text)["attempts"]]

    report, found, attempts = as_ordinary_user(runtime_dir, scene)
    assert set(attempts.values()) == {"EPERM"}
    assert not report["uid"] and report["seccomp"] and report["no_new_privileges"]
    assert found["uid"] == [GUEST_UID] * 3 and found["status"]["Seccomp"] == "2"
    assert {found["status"][name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
    if report["namespaces"]:
        assert report["namespaces"] == ["pid", "mount", "net", "ipc", "uts", "user"]
        assert (report["pivot"], found["pid"], found["folder"]) == (True, 1, "/program")


def test_without_root_roles_work(runtime_dir: Path) -> None:
    async def scene(runtime: Path) -> Any:
        async with keeper_in(runtime) as client:
            roles = {"directory": "/program", "sandbox": "role"}
            with pytest.raises(RemoteError, match="only root may start processes of another uid"):
                await start(client, "small:nothing", uid=5, **roles)
            return await run(client, "small:number", config={"number": 4}, **roles)

    assert as_ordinary_user(runtime_dir, scene) == ["", {"exited": 4}]


def test_without_root_the_probe_says_so(runtime_dir: Path) -> None:
    async def scene(_runtime: Path) -> Any:
        return sandbox.probe()

    checks = {check["name"]: check for check in as_ordinary_user(runtime_dir, scene)}
    assert not checks["started as root"]["ok"] and "start hostd as root" in checks["started as root"]["cure"]
    assert not checks["guest confinement"]["ok"]
    assert checks["sealed memory"]["ok"] and checks["shared memory"]["ok"], checks

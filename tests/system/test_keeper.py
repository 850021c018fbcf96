"""The keeper with real processes: segments, starts, ends, and that nothing is left whichever way it goes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import psutil
import pytest

from hostd import keeper, segments
from hostd.keeper import Keeper
from hostd.keeper_process import CLIENTS_MAX
from hostd.procfs import start_time
from hostd.wire import DESCRIPTORS_MAX, RemoteError, Wire, close_fds
from tests.system.keeping import DEADLINE, GUEST_UID, has_ended, keeper_in, run, start, wait_readable

MIB = 1 << 20
Story = Callable[[Keeper], Coroutine[Any, Any, None]]


def play(runtime: Path, story: Story, **arguments: Any) -> None:
    async def scene() -> None:
        async with keeper_in(runtime, **arguments) as client:
            await story(client)

    asyncio.run(scene())
    assert os.listdir(runtime) == []


def keeper_pid(client: Keeper) -> int:
    assert client.process is not None and client.pid == client.process.pid
    return client.pid


def family(client: Keeper) -> list[psutil.Process]:
    return psutil.Process(keeper_pid(client)).children(recursive=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await asyncio.sleep(0.002)


# ---- life of the keeper ----


def test_one_keeper_per_folder(runtime_dir: Path) -> None:
    async def story(client: Keeper) -> None:
        with pytest.raises(RemoteError, match="another keeper uses this runtime folder") as caught:
            await keeper.launch(runtime_dir)
        assert caught.value.code == "conflict"
        other = await keeper.connect(runtime_dir)
        assert await other.list() == {"segments": [], "processes": []}
        other.close()

    play(runtime_dir, story)


def test_it_is_a_session_of_its_own_with_an_empty_environment(runtime_dir: Path) -> None:
    async def story(client: Keeper) -> None:
        pid = keeper_pid(client)
        assert os.getsid(pid) == pid
        found = psutil.Process(pid)
        assert found.cmdline()[0] == "partvisor: keeper" and found.name() == "pv-keeper"
        assert set(found.environ()) <= {"PATH", "LANG", "PYTHONPATH", "LC_CTYPE"}
        assert oct((runtime_dir / "keeper.sock").stat().st_mode)[-3:] == "600"

    play(runtime_dir, story)


def test_missing_runtime_folder_is_named(tmp_path: Path) -> None:
    async def scene() -> None:
        with pytest.raises(RemoteError, match=re.escape(str(tmp_path / "none"))):
            await keeper.launch(tmp_path / "none")

    asyncio.run(scene())


def test_it_outlives_its_clients(runtime_dir: Path) -> None:
    async def story(client: Keeper) -> None:
        other = await keeper.connect(runtime_dir)
        [(identity, descriptor)] = await other.create_segments([("view", 4096, "kept")])
        os.pwrite(descriptor, b"kept", 0)
        os.close(descriptor)
        other.close()
        [again] = await client.get_segments([identity])
        assert os.pread(again, 4, 0) == b"kept"
        os.close(again)

    play(runtime_dir, story)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_stop_it_in_order(runtime_dir: Path, number: int) -> None:
    async def story(client: Keeper) -> None:
        running = await start(client, "small:wait")
        await running.line()
        others = family(client)
        os.kill(keeper_pid(client), number)
        await client.closed
        assert client.process is not None and client.process.wait(DEADLINE) == 0
        assert not any(process.is_running() for process in others)
        running.close()

    play(runtime_dir, story)


@pytest.mark.parametrize("sandbox", ["none", "role", "guest"])
def test_killed_it_takes_everybody_along(runtime_dir: Path, sandbox: str) -> None:
    """Death signals are tied to the keeper; the next keeper sweeps the files that nobody could remove."""
    if sandbox == "guest" and os.geteuid() != 0:
        pytest.skip("needs root")

    async def scene() -> None:
        client = await keeper.launch(runtime_dir)
        segment = (await client.create_segments([("channel", 4096, "gone")]))[0][1]
        uid = GUEST_UID if sandbox == "guest" else None
        running = await start(client, "small:ignore_termination", sandbox=sandbox, uid=uid)
        await running.line()
        others = family(client)
        assert len(others) == 2, "loader and process"
        os.kill(keeper_pid(client), signal.SIGKILL)
        await running.ended()
        await until(lambda: not any(_is_alive(process) for process in others))
        assert client.process is not None and client.process.wait(DEADLINE) == -signal.SIGKILL
        with pytest.raises(EOFError):
            await client.list()
        running.close()
        os.close(segment)
        client.close()
        assert sorted(os.listdir(runtime_dir)) == ["keeper.lock", "keeper.log", "keeper.sock"]
        async with keeper_in(runtime_dir) as second:
            assert await second.list() == {"segments": [], "processes": []}

    asyncio.run(scene())
    assert os.listdir(runtime_dir) == []


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_stopping_a_dead_keeper_is_no_error(runtime_dir: Path) -> None:
    async def scene() -> None:
        client = await keeper.launch(runtime_dir)
        os.kill(client.pid, signal.SIGKILL)
        await client.stop()
        assert client.process is not None and client.process.returncode == -signal.SIGKILL

    asyncio.run(scene())


def test_keeper_and_loader_map_no_segment_and_have_one_thread(runtime_dir: Path) -> None:
    async def story(client: Keeper) -> None:
        made = await client.create_segments([("memory", MIB, "m"), ("channel", 4096, "c")])
        await run(client, "small:nothing")
        [loader] = family(client)
        for pid in (keeper_pid(client), loader.pid):
            try:
                maps = Path(f"/proc/{pid}/maps").read_text()
            except PermissionError:
                pytest.skip("maps are readable for root only")
            assert "partvisor-" not in maps and "memfd" not in maps
            assert len(os.listdir(f"/proc/{pid}/task")) == 1
        links = [os.readlink(f"/proc/{loader.pid}/fd/{name}") for name in os.listdir(f"/proc/{loader.pid}/fd")]
        assert not any("partvisor-c" in link or "memfd" in link for link in links)
        close_fds(descriptor for _, descriptor in made)

    play(runtime_dir, story)


def test_its_complaints_are_in_a_file(runtime_dir: Path) -> None:
    """Not on hostd's standard error: whoever stops reading that could make the keeper wait."""

    async def story(client: Keeper) -> None:
        with pytest.raises(RemoteError):
            await start(client, "small:nothing")
        assert "ModuleNotFoundError" in (runtime_dir / "keeper.log").read_text()

    play(runtime_dir, story, modules=["no_such_module"])


# ---- segments ----


def test_segments_live_under_ids_that_never_come_back(runtime_dir: Path) -> None:
    async def story(client: Keeper) -> None:
        seen: set[int] = set()
        for kind in sorted(segments.KINDS):
            [(identity, descriptor)] = await client.create_segments([(kind, 5000, "one")])
            segments.check(descriptor, kind, 5000)
            [again] = await client.get_segments([identity])
            segments.check(again, kind, 5000)
            assert os.path.sameopenfile(descriptor, again)
            close_fds([descriptor, again])
            assert (await client.list())["segments"] == [{"id": identity, "kind": kind, "size": 5000, "label": "one"}]
            await client.drop_segments([identity])
            with pytest.raises(RemoteError, match="no segment") as caught:
                await client.get_segments([identity])
            assert caught.value.code == "not_found"
            assert identity not in seen and identity & 0xFFFF == len(seen)
            seen.add(identity)

    play(runtime_dir, story)


def test_many_segments_in_order(runtime_dir: Path) -> None:
    async def story(client: Keeper) -> None:
        count = DESCRIPTORS_MAX * 2 + 3
        made = await client.create_segments([("channel", 4096 + index, f"c{index}") for index in range(count)])
        assert [os.fstat(descriptor).st_size for _, descriptor in made] == [4096 + index for index in range(count)]
        ids = [identity for identity, _ in made]
        found = await client.get_segments(ids[::-1])
        assert [os.fstat(descriptor).st_size for descriptor in found] == [4096 + index for index in range(count)][::-1]
        close_fds([*found, *(descriptor for _, descriptor in made)])
        await client.drop_segments(ids)
        assert (await client.list())["segments"] == []

    play(runtime_dir, story)


def test_creation_is_all_or_nothing(runtime_dir: Path) -> None:
    async def story(client: Keeper) -> None:
        for broken in (("nonsense", 4096, ""), ("view", 0, ""), ("memory", segments.SIZE_MAX, "")):
            with pytest.raises(RemoteError) as caught:
                await client.create_segments([("view", 4096, "first"), broken])
            assert caught.value.code == "conflict"
        assert (await client.list())["segments"] == []

    play(runtime_dir, story)


def test_read_only_segments(runtime_dir: Path) -> None:
    async def story(client: Keeper) -> None:
        [(identity, descriptor)] = await client.create_segments([("view", 4096, "view")])
        [reader] = await client.get_segments([identity], read_only=True)
        with pytest.raises(OSError):
            os.pwrite(reader, b"x", 0)
        close_fds([descriptor, reader])

    play(runtime_dir, story)


def test_a_large_allocation_keeps_nobody_waiting(runtime_dir: Path) -> None:
    """A request that comes later is answered earlier."""

    async def story(client: Keeper) -> None:
        answers: list[str] = []

        async def ask(what: str, question: Coroutine[Any, Any, Any]) -> Any:
            result = await question
            answers.append(what)
            return result

        large = asyncio.create_task(ask("large", client.create_segments([("memory", 256 * MIB, "large")])))
        await asyncio.sleep(0)
        await ask("list", client.list())
        [(_, descriptor)] = await large
        os.close(descriptor)
        assert answers == ["list", "large"]

    play(runtime_dir, story)


def test_the_keeper_leaks_no_descriptor(runtime_dir: Path) -> None:
    async def story(client: Keeper) -> None:
        folder = f"/proc/{keeper_pid(client)}/fd"
        try:
            os.listdir(folder)
        except PermissionError:
            pytest.skip("the keeper's descriptors are readable for root only")

        async def cycle() -> None:
            made = await client.create_segments([("memory", 8192, ""), ("channel", 8192, "")])
            await client.hold("key", [made[0][1]])
            await client.hold("key", [descriptor for _, descriptor in made])
            close_fds(await client.get_held("key") or [])
            await client.release("key")
            close_fds(await client.get_segments([made[0][0]], read_only=True))
            close_fds(descriptor for _, descriptor in made)
            await client.drop_segments([identity for identity, _ in made])
            await run(client, "small:nothing")
            for broken in ({"op": "nonsense"}, {"op": "hold"}, {"op": "start", "spec": {}}, {"op": "start"}):
                with pytest.raises(RemoteError):
                    await client.request(broken, [0, 1])
            other = await keeper.connect(runtime_dir)
            await other.send({"op": "segment.create", "kind": "view", "size": 4096, "seq": 1})
            other.close()

        async def descriptors() -> int:
            await client.list()
            return len(os.listdir(folder))

        await cycle()
        await client.drop_segments([row["id"] for row in (await client.list())["segments"]])
        before = await descriptors()
        for _ in range(20):
            await cycle()
        # A reply that was sent but never read has left its segment: `list` is how hostd finds such.
        left = await client.list()
        await client.drop_segments([row["id"] for row in left["segments"]])
        assert not left["processes"]
        await until(lambda: len(os.listdir(folder)) <= before)

    play(runtime_dir, story)


NAMED = {"name": "a", "type": "b"}


# ---- held descriptors, malformed requests, bad clients ----


def test_held_descriptors_outlive_their_giver(runtime_dir: Path) -> None:
    async def story(client: Keeper) -> None:
        read, write = os.pipe()
        other = await keeper.connect(runtime_dir)
        await other.hold("log store", [read])
        other.close()
        os.close(read)
        os.write(write, b"line")
        held = await client.get_held("log store")
        assert held is not None and os.read(held[0], 10) == b"line"
        close_fds([write, *held])
        await client.release("log store")
        assert await client.get_held("log store") is None

    play(runtime_dir, story)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"op": "nonsense"}, "unsupported"),
        ({"op": 7}, "unsupported"),
        ({}, "unsupported"),
        ({"op": "segment.create_many", "segments": 4}, "invalid"),
        ({"op": "segment.create_many", "segments": [4]}, "invalid"),
        ({"op": "segment.create_many", "segments": [{}] * (DESCRIPTORS_MAX + 1)}, "invalid"),
        ({"op": "segment.create", "kind": [], "size": {}}, "conflict"),
        ({"op": "segment.get", "segments": ["1"]}, "not_found"),
        ({"op": "segment.get", "segments": [0]}, "not_found"),
        ({"op": "segment.get", "segments": None}, "invalid"),
        ({"op": "segment.drop", "segments": [1]}, "not_found"),
        ({"op": "process.get"}, "not_found"),
        ({"op": "process.forget", "process": True}, "not_found"),
        ({"op": "get_held", "key": ["a"]}, "not_found"),
        ({"op": "list", "from": -1}, "invalid"),
        ({"op": "start", "spec": []}, "invalid"),
        ({"op": "start", "spec": {"sandbox": "open"}}, "invalid"),
        *(
            ({"op": "start", "spec": {"sandbox": "none", **spec}}, "invalid")
            for spec in (
                {},
                NAMED,
                {**NAMED, "entry": "no colon"},
                {**NAMED, "argv": []},
                {**NAMED, "argv": ["a"], "entry": "b:c"},
                {**NAMED, "argv": ["/nowhere"]},
                {**NAMED, "entry": "b:c", "uid": True},
                {**NAMED, "entry": "b:c", "color": 1},
                {**NAMED, "entry": "b:c", "fds": ["x"]},
                {**NAMED, "entry": "b:c", "limits": {"x": 1}},
                {**NAMED, "entry": "b:c", "directory": "/none"},
            )
        ),
    ],
)
def test_malformed_requests_have_a_reason(
    keeper_of_all: tuple[asyncio.Runner, Keeper], message: Any, code: str
) -> None:
    runner, client = keeper_of_all

    async def story() -> None:
        with pytest.raises(RemoteError) as caught:
            await client.request(message)
        assert caught.value.code == code, str(caught.value)
        assert (await client.list())["processes"] == []

    runner.run(story())


@pytest.fixture(scope="module")
def keeper_of_all(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One keeper for all malformed requests: it must still serve after each."""
    runtime = tmp_path_factory.mktemp("keeper")
    with asyncio.Runner() as runner:
        scene = keeper_in(runtime)
        client = runner.run(scene.__aenter__())
        yield runner, client
        runner.run(scene.__aexit__(None, None, None))
    assert os.listdir(runtime) == []


def test_broken_packets_are_answered_and_survived(runtime_dir: Path) -> None:
    async def story(client: Keeper) -> None:
        with Wire.connect(runtime_dir / "keeper.sock") as wire:
            for raw in (b"{", b"[]", b"\xff" * 1000, b'{"op": "list", "seq": ' + b"9" * 5000 + b"}"):
                wire.sock.send(raw)
                reply, _ = wire.receive(DEADLINE)
                assert reply["error"]["code"] == "usage"
            assert wire.request({"op": "list"})[0]["segments"] == []

    play(runtime_dir, story)


def test_a_client_that_never_reads_is_cut_off(runtime_dir: Path) -> None:
    async def story(client: Keeper) -> None:
        await client.create_segments([("view", 4096, "x" * 100) for _ in range(60)])
        with Wire.connect(runtime_dir / "keeper.sock") as wire:
            with pytest.raises(Exception, match="closed"):
                for number in range(100_000):
                    wire.send({"op": "list", "seq": number}, timeout=DEADLINE)
            assert (await client.list())["processes"] == [], "others are served"

    play(runtime_dir, story)


def test_many_clients_at_once(runtime_dir: Path) -> None:
    """Beyond its bound it refuses new ones and goes on serving the others."""

    async def story(client: Keeper) -> None:
        socks = []
        for _ in range(80):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            sock.connect(str(runtime_dir / "keeper.sock"))
            socks.append(sock)
        for sock in socks[CLIENTS_MAX - 1 :]:  # one of them is `client`
            await wait_readable(sock.fileno())
            assert sock.recv(1) == b""
        for sock in socks[: CLIENTS_MAX - 1]:
            sock.send(b'{"op": "list", "seq": 1}')
            await wait_readable(sock.fileno())
            assert json.loads(sock.recv(4096))["reply"] == 1
        for sock in socks:
            sock.close()
        await client.list()

    play(runtime_dir, story)


# ---- starts ----


def test_what_a_process_finds_around_itself(runtime_dir: Path) -> None:
    async def story(client: Keeper) -> None:
        os.environ["PARTVISOR_TEST_SECRET"] = "hidden"
        read, write = os.pipe()
        running = await start(
            client,
            "small:surroundings",
            name="around",
            type="device",
            config={"key": [1, None], "nice": True},
            environment={"GIVEN": "yes"},
            processors=[0],
            nice=3,
            fds={"first": read, "second": write},
        )
        close_fds([read, write])
        found = json.loads(await running.line())
        assert (found["name"], found["type"]) == ("around", "device")
        assert found["config"] == {"key": [1, None], "nice": True}
        assert sorted(found["fds"]) == ["first", "second"]
        assert found["open"] == sorted([0, 1, 2, *found["fds"].values()]), "no other descriptor"
        assert found["environment"].pop("GIVEN") == "yes"
        assert set(found["environment"]) <= {"PATH", "LANG", "LC_CTYPE"}
        assert found["folder"] == found["path"] and found["folder"].endswith("programs")
        assert found["pid"] == found["group"] == found["thread"] == running.pid
        assert (found["affinity"], found["nice"], found["input"], found["blocked"]) == ([0], 3, "/dev/null", [])
        assert found["status"]["Name"] == "pv-around"
        assert int(found["status"]["PPid"]) == keeper_pid(client)
        running.close()

    play(runtime_dir, story)


def test_it_is_named_for_people(runtime_dir: Path) -> None:
    async def story(client: Keeper) -> None:
        running = await start(client, "small:wait", name="a-name-of-thirty-one-characters")
        await running.line()
        found = psutil.Process(running.pid)
        assert found.cmdline()[0] == "partvisor: a-name-of-thirty-one-characters"
        assert Path(f"/proc/{running.pid}/comm").read_text() == "pv-a-name-of-th\n"
        assert running.reply["start_time"] == start_time(running.pid)
        running.close()

    play(runtime_dir, story)


@pytest.mark.parametrize(
    ("entry", "config", "status", "text"),
    [
        ("small:nothing", {}, {"exited": 0}, ""),
        ("small:number", {"number": 7}, {"exited": 7}, ""),
        ("small:number", {"number": True}, {"exited": 1}, ""),
        ("small:leave", {"with": 9}, {"exited": 9}, ""),
        ("small:leave", {"with": None}, {"exited": 0}, ""),
        ("small:leave", {"with": "words"}, {"exited": 1}, "words\n"),
        ("small:fail", {}, {"exited": 1}, "RuntimeError: broken on purpose"),
        ("small:absent", {}, {"exited": 1}, "AttributeError"),
        ("nowhere:main", {}, {"exited": 1}, "ModuleNotFoundError"),
        ("small:threads", {}, {"exited": 0}, "thread done"),
        ("small:children", {}, {"exited": 0}, "42"),
    ],
)
@pytest.mark.parametrize("sandbox", ["none", "role"])
def test_exit_status(
    keeper_of_all: tuple[asyncio.Runner, Keeper], entry: str, config: Any, status: Any, text: str, sandbox: str
) -> None:
    runner, client = keeper_of_all
    printed, ended = runner.run(run(client, entry, config=config, sandbox=sandbox))
    assert ended == status
    assert text in printed


def test_unmodified_programs(runtime_dir: Path) -> None:
    async def story(client: Keeper) -> None:
        for sandbox in ("none", "role"):
            shell = ["sh", "-c", "echo $GIVEN; exit 5"]
            text, status = await run(client, shell, environment={"GIVEN": "seen"}, sandbox=sandbox)
            assert (text, status) == ("seen\n", {"exited": 5})
            assert (await run(client, ["sh", "-c", "kill -9 $$"], sandbox=sandbox))[1] == {"signalled": 9}
            with pytest.raises(RemoteError, match="no-such-program: No such file") as caught:
                await run(client, ["no-such-program"], sandbox=sandbox)
            assert caught.value.code == "invalid"
        assert (await client.list())["processes"] == []

    play(runtime_dir, story)


def test_ends_are_told_to_those_who_watch(runtime_dir: Path) -> None:
    events: asyncio.Queue[Any] = asyncio.Queue()

    async def story(client: Keeper) -> None:
        await client.watch()
        running = await start(client, "small:wait", name="killed")
        await running.line()
        process = running.reply["process"]
        seen = await client.get_process(process)
        assert (seen["pid"], seen["status"]) == (running.pid, None) and not has_ended(seen["pidfd"])
        with pytest.raises(RemoteError, match="still runs") as caught:
            await client.forget_process(process)
        assert caught.value.code == "state"
        signal.pidfd_send_signal(seen["pidfd"], signal.SIGKILL)
        event = await asyncio.wait_for(events.get(), DEADLINE)
        assert event == {
            "event": "exit", "process": process, "pid": running.pid, "name": "killed", "status": {"signalled": 9}
        }  # fmt: skip
        after = await client.get_process(process)
        assert (after["status"], after["pidfd"]) == ({"signalled": 9}, None)
        await client.forget_process(process)
        os.close(seen["pidfd"])
        running.close()
        assert events.empty()

    play(runtime_dir, story, on_event=lambda message, fds: events.put_nowait(message))


def test_termination_is_orderly_by_default(runtime_dir: Path) -> None:
    async def story(client: Keeper) -> None:
        running = await start(client, "small:wait")
        await running.line()
        signal.pidfd_send_signal(running.reply["pidfd"], signal.SIGTERM)
        await running.ended()
        await until(lambda: not psutil.pid_exists(running.pid))
        assert (await client.get_process(running.reply["process"]))["status"] == {"exited": 128 + signal.SIGTERM}
        running.close()

    play(runtime_dir, story)


def test_starts_run_side_by_side(runtime_dir: Path) -> None:
    async def story(client: Keeper) -> None:
        results = await asyncio.gather(*(run(client, "small:number", config={"number": n}) for n in range(20)))
        assert [status["exited"] for _, status in results] == list(range(20))

    play(runtime_dir, story)


def test_a_module_that_cannot_be_imported_is_named(runtime_dir: Path) -> None:
    async def story(client: Keeper) -> None:
        with pytest.raises(RemoteError, match="no_such_module") as caught:
            await start(client, "small:nothing")
        assert caught.value.code == "unreachable"

    play(runtime_dir, story, modules=["no_such_module"])


def test_a_module_that_starts_a_thread_is_refused(runtime_dir: Path) -> None:
    async def story(client: Keeper) -> None:
        with pytest.raises(RemoteError, match="tests.system.programs.threading_module starts a thread"):
            await start(client, "small:nothing")

    play(runtime_dir, story, modules=["tests.system.programs.threading_module"])


def test_modules_are_imported_before_the_first_clone(runtime_dir: Path) -> None:
    async def story(client: Keeper) -> None:
        assert await run(client, "colorsys:rgb_to_hsv") != ("", {"exited": 0})  # it is called, with one argument
        assert "colorsys" in (await run(client, "modules:loaded"))[0]

    play(runtime_dir, story, modules=["colorsys"])


def test_the_loader_may_die(runtime_dir: Path) -> None:
    async def story(client: Keeper) -> None:
        running = await start(client, "small:wait")
        await running.line()
        [loader] = [process for process in family(client) if process.name() == "pv-loader"]
        loader.kill()
        await until(lambda: not loader.is_running())
        assert (await run(client, "small:number", config={"number": 3}))[1] == {"exited": 3}
        assert not has_ended(running.reply["pidfd"])
        running.close()

    play(runtime_dir, story)


def test_a_dead_loader_that_nobody_noticed_is_replaced(runtime_dir: Path) -> None:
    """Death and the next request are seen by the keeper in one round."""

    async def story(client: Keeper) -> None:
        await run(client, "small:nothing")
        [loader] = [process for process in family(client) if process.name() == "pv-loader"]
        os.kill(client.pid, signal.SIGSTOP)
        loader.kill()
        await until(lambda: not _is_alive(loader))
        starting = asyncio.create_task(run(client, "small:number", config={"number": 6}))
        await asyncio.sleep(0)
        os.kill(client.pid, signal.SIGCONT)
        assert (await starting)[1] == {"exited": 6}

    play(runtime_dir, story)


def test_a_start_that_the_loader_does_not_survive_fails_with_a_reason(runtime_dir: Path) -> None:
    async def story(client: Keeper) -> None:
        await run(client, "small:nothing")
        [loader] = [process for process in family(client) if process.name() == "pv-loader"]
        loader.suspend()
        starting = asyncio.create_task(run(client, "small:nothing"))
        await asyncio.sleep(0)  # it has sent its request
        await client.list()  # which was read before this one
        loader.kill()
        with pytest.raises(RemoteError, match="not started by the loader") as caught:
            await starting
        assert caught.value.code == "unreachable"
        assert (await run(client, "small:nothing"))[1] == {"exited": 0}

    play(runtime_dir, story)


# ---- nothing is left ----


@pytest.mark.parametrize("detach", [False, True])
def test_daughters_die_with_their_partition(runtime_dir: Path, detach: bool) -> None:
    """Same session or a new one: what a partition leaves behind is found by the subreaper, killed and reaped."""

    async def story(client: Keeper) -> None:
        running = await start(client, "small:daughter", config={"detach": detach, "stay": False})
        stray = int(await running.line())
        await running.ended()
        await until(lambda: not psutil.pid_exists(stray))
        running.close()

    play(runtime_dir, story)


def test_an_orphan_lives_as_long_as_its_partition(runtime_dir: Path) -> None:
    async def story(client: Keeper) -> None:
        running = await start(client, "small:daughter", config={"detach": False, "stay": True})
        orphan = int(await running.line())
        await run(client, "small:nothing")  # the end of another partition
        assert psutil.Process(orphan).ppid() == keeper_pid(client)
        running.close()

    play(runtime_dir, story)


@pytest.mark.parametrize("entry", ["small:ignore_termination", "small:wait"])
def test_stop_ends_all_processes(runtime_dir: Path, entry: str) -> None:
    async def story(client: Keeper) -> None:
        started = [await start(client, entry, name=f"n{number}") for number in range(3)]
        for running in started:
            await running.line()
        daughter = await start(client, "small:daughter", config={"detach": True, "stay": True})
        stray = int(await daughter.line())
        others = family(client)
        await client.stop()
        assert client.process is not None and client.process.returncode == 0
        assert not any(process.is_running() for process in others) and not psutil.pid_exists(stray)
        assert not psutil.pid_exists(keeper_pid(client))
        for running in [*started, daughter]:
            running.close()

    play(runtime_dir, story)


def test_stop_in_the_middle_of_everything(runtime_dir: Path) -> None:
    """Starts and allocations under way are refused or undone; their askers are told."""

    async def story(client: Keeper) -> None:
        other = await keeper.connect(runtime_dir)
        starts = [asyncio.create_task(other.start({"name": "n", "type": "t", "sandbox": "none", "entry": "small:wait"}))
                  for _ in range(8)]  # fmt: skip
        large = asyncio.create_task(other.create_segments([("memory", 512 * MIB, "large")]))
        await other.list()
        await client.stop()
        results = await asyncio.gather(*starts, large, return_exceptions=True)
        for result in results:
            if isinstance(result, dict):
                os.close(result["pidfd"])
            else:  # EOFError for what it had not begun
                assert isinstance(result, EOFError) or (isinstance(result, RemoteError) and result.code == "state")
        other.close()

    play(runtime_dir, story)


def test_adoption(runtime_dir: Path) -> None:
    """A second client, after the first is gone without a word, finds everything and stops it."""

    async def scene() -> None:
        first = await keeper.launch(runtime_dir)
        running = await start(first, "small:wait", name="adopted")
        await running.line()
        first.close()
        second = await keeper.connect(runtime_dir)
        [row] = (await second.list())["processes"]
        assert (row["name"], row["pid"], row["status"]) == ("adopted", running.pid, None)
        await second.request({"op": "stop"})
        await asyncio.wait_for(second.closed, DEADLINE)
        await wait_readable(running.reply["pidfd"])
        assert first.process is not None and first.process.wait(DEADLINE) == 0
        running.close()

    asyncio.run(scene())
    assert os.listdir(runtime_dir) == []


def test_a_new_daemon_leads(runtime_dir: Path) -> None:
    """Whatever its predecessor had sent is done before it is answered, and no start of it comes to life afterwards."""

    async def story(client: Keeper) -> None:
        await client.lead()
        spec = {"name": "late", "type": "t", "sandbox": "none", "entry": "small:wait"}
        orphans = [asyncio.create_task(client.start(spec)) for _ in range(8)]
        held = asyncio.create_task(client.hold("of:the:dead", [0]))
        while not held.done():  # all of them have been sent then
            await asyncio.sleep(0)
        second = await keeper.connect(runtime_dir)
        await second.lead()
        assert await second.list_held() == ["of:the:dead"]
        known = {row["id"] for row in (await second.list())["processes"]}
        later = await start(second, "small:wait", name="later")
        rows = {row["id"] for row in (await second.list())["processes"]}
        assert rows - known == {later.reply["process"]}
        assert client.error is not None  # cut off
        for result in await asyncio.gather(*orphans, return_exceptions=True):
            if isinstance(result, dict):
                os.close(result["pidfd"])
        later.close()
        await second.stop()

    play(runtime_dir, story)

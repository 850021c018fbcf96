"""Ultravisor, command and operations partition as real processes, told nonsense: they answer and go on (rules 31, 35).

Raw packets where a wire would not send such a thing: too short, too long, not JSON, too deep, with descriptors.
"""

from __future__ import annotations

import copy
import json
import os
import random
import socket
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from hostd.wire import MESSAGE_MAX, RemoteError, Wire, pair
from tests.framework.control_plane import MIB, disk, furnish, nic
from tests.framework.servers import Server, Stage, staged


class Plane:
    """The three servers, wired to each other as hostd does it. Each has peers to spare."""

    def __init__(self, stage: Stage) -> None:
        to_command, from_ultravisor = map(Wire, pair())
        operations_end, command_end = map(Wire, pair())
        folder = stage.runtime
        self.servers = {
            "ultravisor": stage.start(
                "ultravisor",
                "partitions.ultravisor.main:main",
                {"database": str(folder / "resources.db")},
                {"keeper": stage.keeper_wire(), "command": to_command},
                peers=8,
            ),
            "operations": stage.start(
                "operations",
                "partitions.operations.main:main",
                {"policies": str(folder / "policies.db")},
                {"command": operations_end},
                peers=8,
            ),
            "command": stage.start(
                "command",
                "partitions.command.main:main",
                {"decisions": str(folder / "decisions.db")},
                {"ultravisor": from_ultravisor, "operations": command_end},
                peers=8,
            ),
        }
        self.servers["ultravisor"].transaction(*furnish(), key="furnish")

    def __getitem__(self, name: str) -> Server:
        return self.servers[name]


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    runtime = tmp_path_factory.mktemp("plane")
    with staged(runtime) as stage:
        plane = Plane(stage)
        yield plane
        for server in plane.servers.values():
            assert server.ask("ping", peer=7)["pid"] == server.pid, server.log()
            assert "Traceback" not in server.log()
            server.kill()


NAMES = ("ultravisor", "command", "operations")

NOT_MESSAGES = [
    b"x",
    b"\0",
    b"{",
    b"[]",
    b"7",
    b"null",
    b'"text"',
    b"\xff\xfe",
    b'{"op": "ping", "seq": 1',
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"op": "' + b"x" * (MESSAGE_MAX - 20) + b'"',
    b"x" * (MESSAGE_MAX + 1),
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("data", NOT_MESSAGES, ids=lambda data: ascii(data[:12]))
def test_what_is_no_message_is_answered(plane: Plane, name: str, data: bytes) -> None:
    wire = plane[name].wires[1]
    wire.sock.send(data)
    reply, _ = wire.receive(10.0)
    assert reply["reply"] is None and reply["error"]["code"] == "usage"
    assert plane[name].ask("ping", peer=1)["name"] == name


NOT_REQUESTS: list[Any] = [
    {},
    {"seq": 1},
    {"op": None, "seq": 1},
    {"op": "", "seq": 1},
    {"op": "nonsense", "seq": 1},
    {"op": ["ping"], "seq": 1},
    {"op": {"op": "ping"}, "seq": 1},
    {"op": "__init__", "seq": 1},
    {"op": "run", "seq": 1},
    {"op": "x" * 100_000, "seq": 1},
    {"op": "\ud800", "seq": 1},
    {"op": "query\0", "seq": 1},
    {"op": "transaction", "seq": "1"},
    {"op": "transaction", "seq": {"deep": [[[]]]}},
    {"op": "transaction", "seq": 1.5},
    {"op": "transaction", "seq": "\ud800"},
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("message", NOT_REQUESTS, ids=lambda message: ascii(message)[:30])
def test_what_is_no_request_is_refused(plane: Plane, name: str, message: dict[str, Any]) -> None:
    wire = plane[name].wires[1]
    wire.sock.send(json.dumps(message).encode())
    if "seq" in message:
        reply, _ = wire.receive(10.0)
        assert "error" in reply
        assert reply["reply"] == (message["seq"] if type(message["seq"]) is int else None)
    assert plane[name].ask("ping", peer=1)["name"] == name


def refused(server: Server, op: str, **fields: Any) -> RemoteError:
    with pytest.raises(RemoteError) as caught:
        server.ask(op, peer=1, **fields)
    return caught.value


BAD_REQUESTS = [
    ("ultravisor", "query", {}),
    ("ultravisor", "query", {"what": "everything"}),
    ("ultravisor", "query", {"what": "partitions", "limit": 0}),
    ("ultravisor", "query", {"what": "partitions", "limit": 10**9}),
    ("ultravisor", "query", {"what": "partitions", "after": -1}),
    ("ultravisor", "query", {"what": "partition"}),
    ("ultravisor", "query", {"what": "partitions", "where": "1=1"}),
    ("ultravisor", "query", {"what": "transactions", "key": ["k"]}),
    ("ultravisor", "reconcile", {"processes": {}}),
    ("ultravisor", "reconcile", {"processes": [7]}),
    ("ultravisor", "reconcile", {"processes": [{"pid": 0, "start_time": 1}]}),
    ("ultravisor", "reconcile", {"processes": [{"pid": 1, "start_time": 1}] * 4097}),
    ("ultravisor", "check", {"surprise": 1}),
    ("ultravisor", "transaction", {"operations": [{"op": "partition.create"}] * 10_000, "key": "k"}),
    ("command", "place", {}),
    ("command", "place", {"request": []}),
    ("command", "place", {"request": {"name": "a", "type": "guest", "memory": 4096, "surprise": 1}}),
    ("command", "place", {"request": {"name": "a", "type": "guest"}, "zone": "NO"}),
    ("command", "place", {"request": {"name": "a", "type": "guest"}, "key": "k" * 101}),
    ("command", "place", {"request": {"name": "a", "type": "guest", "program": {"deep": [[[[[[[]]]]]]]}, "uid": "0"}}),
    ("command", "remove", {}),
    ("command", "remove", {"partition": {"name": "a"}}),
    ("command", "explain", {"decision": "first"}),
    ("command", "explain", {"limit": 21}),
    ("command", "replay", {}),
    ("command", "query", {"what": "everything"}),
    ("command", "policy.set", {"policy": {}}),
    ("operations", "policy.get", {"zone": ""}),
    ("operations", "policy.get", {"zone": "default", "version": "new"}),
    ("operations", "policy.set", {}),
    ("operations", "policy.set", {"policy": {"name": "default", "memory_limit": -1}}),
    ("operations", "policy.list", {"zone": "default"}),
]


@pytest.mark.parametrize(("name", "op", "fields"), BAD_REQUESTS, ids=lambda value: ascii(value)[:40])
def test_a_bad_request_is_refused_with_its_field(plane: Plane, name: str, op: str, fields: dict[str, Any]) -> None:
    refusal = refused(plane[name], op, **fields)
    assert refusal.code == "invalid" and len(refusal.message) < 400


@pytest.mark.parametrize("name", NAMES)
def test_unexpected_descriptors_are_closed(plane: Plane, name: str) -> None:
    process = psutil.Process(plane[name].pid)
    before = process.num_fds()
    wire = plane[name].wires[2]
    spare, other = socket.socketpair()
    for number in range(50):
        wire.send({"op": "ping", "seq": number}, [spare.fileno()] * 60)
        wire.receive(10.0)
        socket.send_fds(wire.sock, [b"no message"], [spare.fileno()] * 60)
        wire.receive(10.0)
    assert process.num_fds() == before
    spare.close()
    other.close()


@pytest.mark.parametrize("name", NAMES)
def test_a_peer_that_does_not_read_is_cut_off_and_blocks_nobody_for_long(plane: Plane, name: str) -> None:
    wire = plane[name].wires[3]
    wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sent = 0
    while sent < 200_000:
        try:
            wire.send({"op": "nonsense" * 1000, "seq": sent}, timeout=0)
        except Exception:  # full or closed; the answers are never read
            break
        sent += 1
    assert plane[name].ask("ping", peer=4)["name"] == name
    wire.close()


@pytest.mark.parametrize("name", NAMES)
def test_a_peer_that_goes_in_the_middle_harms_nobody(plane: Plane, name: str) -> None:
    wire = plane[name].wires[5]
    for number in range(20):
        wire.send({"op": "ping", "seq": number})
    wire.close()
    assert plane[name].ask("ping", peer=4)["name"] == name


def test_an_answer_that_is_too_long_is_a_short_refusal(plane: Plane) -> None:
    """Nothing that may be stored may make an answer impossible for ever: fewer rows can always be asked for."""
    text = "x" * 60_000
    for number in range(20):
        asked = {"name": f"long{number}", "type": "guest", "program": {"text": text}}
        plane["command"].ask("place", request=asked, key=f"long{number}")
    refusal = refused(plane["command"], "explain", limit=20)
    assert refusal.code == "invalid" and "bytes" in refusal.message
    assert len(plane["command"].ask("explain", limit=1)["records"]) == 1
    for number in range(20):
        plane["command"].ask("remove", partition=f"long{number}", key=f"long{number}")


def test_a_storm_of_mutated_requests_changes_nothing(plane: Plane, long: bool) -> None:
    """Good requests with one or two fields replaced by something else, in random order."""
    seed = int(os.environ.get("PARTVISOR_SEED", random.randrange(1 << 32)))
    print(f"seed {seed} (set PARTVISOR_SEED to repeat)")
    choice = random.Random(seed)
    junk: list[Any] = [None, True, -1, 0, 1 << 62, 1 << 70, 1.5, "", "x", "\ud800", "\n", "a" * 5000]
    junk += [[], {}, [[]], {"op": "x"}]
    good: list[tuple[str, str, dict[str, Any]]] = [
        ("ultravisor", "transaction", {"operations": [{"op": "partition.remove", "partition": "nobody"}], "key": "z"}),
        ("ultravisor", "query", {"what": "partition", "partition": "nobody"}),
        ("ultravisor", "query", {"what": "audit", "after": 0, "limit": 1}),
        ("command", "place", {"request": {"name": "s", "type": "guest", "memory": 1 << 50, "endpoints": [disk()]}}),
        ("command", "explain", {"partition": "nobody"}),
        ("command", "replay", {"decision": 1 << 40}),
        ("operations", "policy.get", {"zone": "default", "version": 77}),
    ]  # fmt: skip
    closed = {"name": "default", "partitions_limit": 0}  # some mutants are good requests
    plane["operations"].ask("policy.set", policy=closed, key=f"close-{seed}")
    before = plane["ultravisor"].ask("query", peer=4, what="partitions")["partitions"]
    for _ in range(100_000 if long else 1500):
        name, op, fields = choice.choice(good)
        message = json.loads(json.dumps(fields))
        for _ in range(choice.randint(1, 2)):
            mutate(message, choice, junk)
        try:
            plane[name].wires[4].sock.send(json.dumps({"op": op, "seq": 1, **message}).encode())
            reply, _ = plane[name].wires[4].receive(10.0)
        except OSError as error:
            raise AssertionError(f"{name} cut the wire after {message}") from error
        assert reply.get("error", {}).get("code") != "internal", (message, reply)
    assert plane["ultravisor"].ask("query", peer=4, what="partitions")["partitions"] == before
    assert plane["ultravisor"].ask("check", peer=4)["violations"] == []
    plane["operations"].ask("policy.set", policy={"name": "default"}, key=f"open-{seed}")


def mutate(value: Any, choice: random.Random, junk: list[Any]) -> None:
    """Replaces, adds or removes something somewhere inside."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        key = choice.choice(keys)
        if isinstance(value[key], dict | list) and choice.random() < 0.6:
            value = value[key]
            continue
        if isinstance(value, dict) and choice.random() < 0.2:
            value[choice.choice(["op", "seq", "key", "surprise"])] = copy.deepcopy(choice.choice(junk))
        else:
            value[key] = copy.deepcopy(choice.choice(junk))
        return


def test_the_story_of_a_placement_through_all_three(plane: Plane) -> None:
    command = plane["command"]
    policy = {"name": "default", "memory_limit": 4 * MIB}
    version = command.ask("policy.set", policy=policy, key="p1", actor="alice")["policy"]["version"]
    asked = {"name": "store", "type": "guest", "memory": 3 * MIB, "endpoints": [disk(file="s.img"), nic()]}
    placed = command.ask("place", request=asked, key="place-store", actor="alice")
    assert command.ask("place", request=asked, key="place-store", actor="alice")["replayed"]
    refusal = refused(command, "place", request={**asked, "name": "second", "endpoints": []}, key="place-second")
    assert (refusal.code, refusal.details["rule"]) == ("not_placed", "memory_limit")
    [record] = command.ask("explain", partition="second")["records"]
    assert record["decision"] == refusal.details["decision"] and record["policy"]["version"] == version
    for decision in (placed["decision"], record["decision"]):
        replay = command.ask("replay", decision=decision)
        assert replay["same"] and replay["code"]["then"] == replay["code"]["now"]
    actors = {row["actor"] for row in audit(plane["ultravisor"])}
    assert "alice" in actors
    command.ask("remove", partition="store", key="remove-store")
    assert command.ask("policy.set", policy={"name": "default"}, key="p2")["policy"]["version"] == version + 1


def audit(server: Server) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    while page := server.ask("query", what="audit", after=rows[-1]["sequence"] if rows else 0)["audit"]:
        rows += page
    return rows

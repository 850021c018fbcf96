"""One key, one effect (rule 34, rule test 36): every mutating request is sent three times, over connections that are
cut before, between and after request and answer."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hostd.wire import RemoteError
from tests.framework.control_plane import MIB, disk, furnish, guest, nic
from tests.framework.servers import Server, Stage, staged

PEERS = 40  # two of them may be used up by each request of the story


@pytest.fixture
def stage(runtime_dir: Path) -> Iterator[Stage]:
    with staged(runtime_dir) as stage:
        yield stage


# Every mutating operation, in an order in which each is legal; (operations, what proves that it happened once).
STORY: list[list[dict[str, Any]]] = [
    furnish(64 * MIB),
    [{"op": "partition.create", "name": "command", "type": "command"}],
    [guest("one", memory_maximum=4 * MIB, endpoints=[disk()])],
    [{"op": "endpoint.attach", "partition": "one", **nic()}],
    [{"op": "endpoint.path", "partition": "one", "name": "vda", "path": "direct"}],
    [{"op": "endpoint.path_settle", "partition": "one", "name": "vda", "path": "direct"}],
    [{"op": "endpoint.grow", "partition": "one", "name": "vda", "length": 8 * MIB}],
    [{"op": "endpoint.detach", "partition": "one", "name": "vda"}],
    [{"op": "memory.assign", "partition": "one", "extents": [{"frame": 70000, "frames": 256}]}],
    [{"op": "memory.release", "partition": "one", "memory": MIB}],
    [{"op": "memory.revoke", "partition": "one", "gpa": 0, "size": 4096}],
    [{"op": "memory.settle", "partition": "one", "gpa": 0, "state": "freed"}],
    [{"op": "memory.grant", "partition": "one", "gpa": 0}],
    [{"op": "partition.processors", "partition": "one", "processors": [0]}],
    [{"op": "channel.create", "client": "command", "server": "io-a", "service": "command"}],
    [{"op": "epoch.reserve", "partition": "io-a", "count": 7}],
    [{"op": "process.record", "partition": "one", "pid": 4000, "start_time": 5}],
    [{"op": "partition.state", "partition": "one", "state": "running"}],
    [{"op": "partition.state", "partition": "one", "state": "stopped"}],
    [{"op": "device.create", "name": "nic9", "kind": "nic", "class": "shared", "partition": "nic0"}],
    [{"op": "device.remove", "device": "nic9"}],
    [{"op": "machine.buses", "buses": [{"number": 3, "name": "back"}]}],
    [{"op": "partition.remove", "partition": "one"}],
]


def send(server: Server, peers: list[int], how: str, key: str, operations: list[dict[str, Any]]) -> Any:
    """One sending; the connection is used up where it is cut. Returns the answer if it was read."""
    message = {"op": "transaction", "seq": 1, "operations": operations, "key": key}
    if how == "answered":
        return server.ask("transaction", peer=peers[-1], operations=operations, key=key)
    wire = server.wires[peers.pop()]
    if how != "before":
        wire.send(message)
    if how == "between":
        wire.receive(20.0)  # the answer arrives and is thrown away
    wire.close()
    return None


def test_each_request_acts_once_whatever_happens_to_its_connections(stage: Stage) -> None:
    seed = int(os.environ.get("PARTVISOR_SEED", random.randrange(1 << 32)))
    print(f"seed {seed} (set PARTVISOR_SEED to repeat)")
    choice = random.Random(seed)
    server = stage.ultravisor(peers=PEERS)
    free = list(range(PEERS))
    for number, operations in enumerate(STORY):
        before = server.ask("query", peer=free[0], what="resources")["version"]
        for _ in range(2):
            send(server, free, choice.choice(["before", "after", "between", "answered"]), f"k{number}", operations)
        answer = send(server, free, "answered", f"k{number}", operations)
        again = send(server, free, "answered", f"k{number}", operations)
        assert again["replayed"] and again["results"] == answer["results"]
        after = server.ask("query", peer=free[0], what="resources")["version"]
        assert after == before + 1, f"{operations[0]['op']} had {after - before} effects"
    assert server.ask("check", peer=free[0])["violations"] == []
    partitions = server.ask("query", peer=free[0], what="partitions")["partitions"]
    assert [row["name"] for row in partitions] == ["io-a", "io-b", "nic0", "disk0", "command"]
    audit = server.ask("query", peer=free[0], what="audit")["audit"]
    assert [row["key"] for row in audit] == [f"k{number}" for number in range(len(STORY))]
    server.kill()


def test_every_operation_is_in_the_story() -> None:
    from partitions.ultravisor.operations import OPERATIONS

    told = {operation["op"] for operations in STORY for operation in operations}
    assert told == OPERATIONS.keys() - {"channel.remove"}, "channel.remove needs an id that only an answer knows"


def test_a_removed_channel_is_removed_once(stage: Stage) -> None:
    server = stage.ultravisor()
    server.transaction(*furnish(64 * MIB), {"op": "partition.create", "name": "command", "type": "command"}, key="a")
    creation = {"op": "channel.create", "client": "command", "server": "io-a", "service": "command"}
    channel = server.transaction(creation, key="b")["results"][0]["channel"]
    answers = [server.transaction({"op": "channel.remove", "channel": channel}, key="c") for _ in range(3)]
    assert [answer["replayed"] for answer in answers] == [False, True, True]
    with pytest.raises(RemoteError, match="no channel"):
        server.transaction({"op": "channel.remove", "channel": channel}, key="d")
    server.stop()

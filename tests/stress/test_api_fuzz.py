"""The API under a flood of broken requests (rules.md, test 34): it answers or closes, leaks nothing, and goes on."""

import json
import os
import random
import socket
import time
from pathlib import Path

import psutil
import pytest

from hostd.paths import Paths
from tests.framework.fake_supervisor import FakeHost, running
from tools.client import Client

REQUESTS, REQUESTS_LONG = 3_000, 1_000_000
SPEC = {"name": "g", "program": ["x:main"], "disks": [{"name": "vda", "size": "1MiB"}], "environment": {"A": "é\n"}}
SEEDS = [
    (method, path, json.dumps(body).encode() if body is not None else b"")
    for method, path, body in (
        ("GET", "/v1/status", None), ("GET", "/v1/events?since=0", None),
        ("GET", "/v1/explain?decision=1&replay=1", None),
        ("POST", "/v1/partitions", SPEC), ("DELETE", "/v1/partitions/g?force=true", None),
        ("POST", "/v1/partitions/g/stop", {"timeout": 0}),
        ("POST", "/v1/partitions/g/wait", {"state": "failed", "timeout": 0}),
        ("PUT", "/v1/partitions/g/endpoints/vda/path", {"path": "direct", "timeout": 0}),
        ("PUT", "/v1/host/attribution", {"on": True}),
        ("POST", "/v1/chaos", {"role": "disk0", "stage": "device", "seconds": 0}),
        ("POST", "/v1/plan", {"version": 1, "partitions": [SPEC]}),
        ("POST", "/v1/validate", {"text": "version: 1\npartitions: [{name: g}]\n"}),
    )
]
SPLICES = [
    b"", b"\0", b"\xff\xfe", b"\r\n", b"\r\n\r\n", b"[" * 40, b'{"a":' * 40, b"9" * 30, b"-1", b"1e999", b"NaN",
    b"null", b'"', b"\\u0000", b"\\ud800", b"%00", b"%2e%2e%2f", b"x" * 5000, b"ffffffffffffffff\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n", b"Expect: 100-continue\r\n",
    b"Content-Type: text/plain\r\n", b"Upgrade: websocket\r\nConnection: upgrade\r\n",
]


def request(random: random.Random) -> bytes:
    """A request of the list, damaged in a few places."""
    method, path, body = random.choice(SEEDS)
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
    data = bytearray(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
    for _ in range(random.randrange(4)):
        place = random.randrange(len(data) + 1)
        kind = random.randrange(4)
        if kind == 0:
            data[place:place] = random.choice(SPLICES)
        elif kind == 1:
            del data[place : place + random.randrange(1, 30)]
        elif kind == 2 and place < len(data):
            data[place] = random.randrange(256)
        else:
            data = data[:place]
    return bytes(data)


def send(host: FakeHost, data: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(10)
        connection.connect(str(host.socket))
        answer = b""
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)  # a half request ends here, and its server must notice
            while chunk := connection.recv(65536):
                answer += chunk
        except (BrokenPipeError, ConnectionResetError):
            pass  # it was refused before it was read
        return answer


def test_broken_requests_leave_the_api_as_it_was(runtime_dir: Path, long: bool) -> None:
    seed = int(os.environ.get("PARTVISOR_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"PARTVISOR_SEED={seed} repeats this run")
    source = random.Random(seed)
    own = psutil.Process()
    with running(runtime_dir) as host:
        client = Client(Paths(host.runtime, host.runtime / "state"), 10.0)
        statuses: dict[bytes, int] = {}
        slowest = 0.0
        memory = 0
        count = REQUESTS_LONG if long else REQUESTS
        for number in range(count):
            data = request(source)
            begin = time.perf_counter()
            answer = send(host, data)
            slowest = max(slowest, time.perf_counter() - begin)
            status = answer[9:12]
            statuses[status] = statuses.get(status, 0) + 1
            if status >= b"400" and data.startswith((b"GET", b"POST", b"PUT", b"DELETE")):
                body = answer.partition(b"\r\n\r\n")[2].decode()
                # What is left over after one request may be read as a second one, with an answer of its own.
                assert set(json.JSONDecoder().raw_decode(body)[0]) == {"error"}, (data, answer)
            assert status != b"500", (data, answer)
            if number == count // 3:  # caches are warm by now
                memory, descriptors = own.memory_info().rss, own.num_fds()
        assert slowest < 5.0, f"one request kept the API busy for {slowest:.1f} s"
        assert client.get("/v1/version")["api"] == 1
        deadline = time.monotonic() + 5
        while own.num_fds() > descriptors and time.monotonic() < deadline:
            client.get("/v1/version")  # the last connections are being closed
        assert own.num_fds() <= descriptors
        assert own.memory_info().rss - memory < 16 << 20
    assert {b"200", b"400", b"404", b"422"} <= set(statuses), f"the requests were not as varied as meant: {statuses}"


@pytest.mark.parametrize("cut", [0, 1, 20, 60])
def test_callers_that_leave_in_the_middle(runtime_dir: Path, cut: int) -> None:
    with running(runtime_dir) as host:
        data = request(random.Random(1))
        for _ in range(100):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.connect(str(host.socket))
                connection.sendall(data[:cut])
        assert Client(Paths(host.runtime, host.runtime / "state"), 10.0).get("/v1/version")["api"] == 1

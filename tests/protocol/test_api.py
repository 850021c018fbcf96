"""The API over its socket: every route, one error shape, limits against hostile callers, and no idle work."""

import asyncio
import ctypes
import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hostd import api_guard, api_server
from hostd.errors import HostError
from hostd.paths import Paths
from hostd.wire import RemoteError
from tests.framework.fake_supervisor import FakeHost, running
from tools.client import Client

SPEC = {"name": "store", "program": ["x:main"], "disks": [{"name": "vda", "size": "1MiB"}]}


@pytest.fixture
def host(runtime_dir: Path) -> Iterator[FakeHost]:
    with running(runtime_dir) as host:
        yield host


@pytest.fixture
def client(host: FakeHost) -> Client:
    return Client(Paths(host.runtime, host.runtime / "state"), 10.0)


def raw(host: FakeHost, data: bytes, timeout: float = 10.0) -> tuple[int, dict[str, Any]]:
    """Send bytes, read to the end of the connection: (status, JSON body)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        connection.connect(str(host.socket))
        try:
            connection.sendall(data)
        except BrokenPipeError:
            pass  # refused before it took everything, which is what large bodies ask for
        return response(connection)


def response(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    return answer.status, json.loads(answer.read())


def post(path: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Connection: close", "Content-Type: application/json",
             f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def refused(client: Client, method: str, path: str, body: Any = None, **arguments: Any) -> HostError:
    with pytest.raises(HostError) as caught:
        client.request(method, path, body, **arguments)
    return caught.value


def check_shape(document: dict[str, Any], code: str) -> str:
    assert set(document) == {"error"} and set(document["error"]) == {"code", "message", "details"}
    assert document["error"]["code"] == code
    return str(document["error"]["message"])


# ---- routes ----


def test_a_partition_from_start_to_end(client: Client, host: FakeHost) -> None:
    started = client.post("/v1/partitions", SPEC)
    assert set(started) == {"name", "id", "pid", "seconds"} and started["name"] == "store"
    assert [row["name"] for row in client.get("/v1/partitions")["partitions"]] == ["store"]
    assert client.get("/v1/partitions/store")["endpoints"][0]["device"] == "disk0"
    assert client.get("/v1/partitions/store/view")["believed"]["endpoints"][0]["name"] == "vda"
    assert client.get("/v1/partitions/store/logs") == {"name": "store", "log": "first line\nsecond line\n"}
    assert client.post("/v1/partitions/store/wait", {"state": "running", "timeout": 1})["state"] == "running"
    assert refused(client, "DELETE", "/v1/partitions/store").code == "state"
    assert client.post("/v1/partitions/store/stop", {"timeout": 1})["exit_status"] == {"exited": 0}
    assert client.post("/v1/partitions/store/stop")["state"] == "stopped", "the body is optional"
    assert client.request("DELETE", "/v1/partitions/store", query={"force": True}) == {"name": "store"}
    assert [event["kind"] for event in client.lines("/v1/events")] == ["started", "stopped", "stopped", "removed"]
    assert [event["sequence"] for event in client.lines("/v1/events", since=3)] == [4]
    assert all(actor == f"uid {os.geteuid()} pid {os.getpid()}" for *_, actor in host.supervisor.calls)


def test_facts_of_the_host(client: Client, host: FakeHost) -> None:
    version = client.get("/v1/version")
    assert version["name"] == "partvisor" and version["api"] == 1 and version["pid"] == os.getpid()
    assert set(client.get("/v1/status")) == {"host", "processes", "checks"}
    assert client.get("/v1/explain", partition="p", replay=True)["decisions"][0]["replay"] == {"same": True}
    assert {check["name"] for check in client.get("/v1/doctor")["checks"]} > {"processors", "memory"}
    paths = client.get("/v1/openapi.json")["paths"]
    assert set(paths["/v1/partitions"]) == {"get", "post"} and "/v1/partitions/{name}/wait" in paths


def test_manifests_over_the_api(client: Client, host: FakeHost) -> None:
    document = client.get("/v1/export")
    assert document == {"version": 1, "devices": [{"name": "nic0", "kind": "nic"}, {"name": "disk0", "kind": "disk"}]}
    document["partitions"] = [SPEC]
    assert [change["name"] for change in client.post("/v1/plan", document)["changes"]] == ["store"]
    assert not host.supervisor.calls, "a plan changes nothing"
    assert client.post("/v1/apply", document)["applied"] == 1
    assert client.post("/v1/apply", document) == {"changes": [], "applied": 0}
    assert client.post("/v1/plan", client.get("/v1/export"))["changes"] == [], "an export is what runs"
    found = client.post("/v1/validate", {"text": "version: 2\nhots: {}", "file": "h.yaml"})["problems"]
    assert [(problem["file"], problem["line"]) for problem in found] == [("h.yaml", 1), ("h.yaml", 2)]
    assert client.post("/v1/validate", {"text": "version: 1"}) == {"problems": []}
    error = refused(client, "POST", "/v1/apply", {"version": 1, "partitions": [{"name": "A"}]})
    assert error.code == "invalid" and {problem["path"] for problem in error.details["problems"]} == {
        "partitions.0.name", "partitions.0.program"}


def test_paths_over_the_api(client: Client, host: FakeHost) -> None:
    client.post("/v1/partitions", SPEC)
    url = "/v1/partitions/store/endpoints/vda/path"
    assert client.request("PUT", url, {"path": "direct", "timeout": 1})["before"] == "redirect"
    assert client.get("/v1/partitions/store")["endpoints"][0]["path"] == "direct"
    key = {"Idempotency-Key": "p1"}
    first = client.request("PUT", url, {"path": "copy"}, headers=key)
    assert client.request("PUT", url, {"path": "copy"}, headers=key) == first, "a retry gets the first answer"
    assert [call[:2] for call in host.supervisor.calls].count(("set_path", "store.vda")) == 2
    for body in ({"path": "up"}, {}, {"path": "copy", "timeout": -1}, {"path": "copy", "timeout": 601}, {"path": None}):
        assert refused(client, "PUT", url, body).code == "invalid", body
    assert refused(client, "PUT", "/v1/partitions/store/endpoints/vdb/path", {"path": "copy"}).code == "not_found"
    assert refused(client, "PUT", "/v1/partitions/nobody/endpoints/vda/path", {"path": "copy"}).code == "not_found"


def test_measuring_over_the_api(client: Client, host: FakeHost) -> None:
    assert client.request("PUT", "/v1/host/attribution", {"on": False}) == {"on": False}
    fault = {"role": "disk0", "stage": "device", "seconds": 0.005}
    assert client.post("/v1/chaos", fault) == fault
    assert [call[1] for call in host.supervisor.calls] == ["False", "disk0 device 0.005"]
    assert refused(client, "PUT", "/v1/host/attribution", {"on": "no"}).code == "invalid"
    for body in (fault | {"seconds": 1.1}, fault | {"seconds": -1}, fault | {"role": 3}, {"role": "disk0"}):
        assert refused(client, "POST", "/v1/chaos", body).code == "invalid", body


def test_down_is_answered_before_it_happens(client: Client, host: FakeHost) -> None:
    assert client.post("/v1/down") == {"pid": os.getpid()}
    assert host.supervisor.went_down.wait(5)


def test_events_are_followed_as_they_happen(client: Client, host: FakeHost) -> None:
    host.call(host.supervisor.events.publish, "first")
    stream = client.lines("/v1/events", follow=True)
    assert next(stream)["kind"] == "first"
    for number in range(5):
        host.call(host.supervisor.events.publish, f"n{number}")
        assert next(stream)["kind"] == f"n{number}"
    host.call(host.supervisor.events.close)
    assert list(stream) == []


# ---- errors ----


def test_errors_have_one_shape_whoever_finds_them(host: FakeHost) -> None:
    cases = [
        (b"GET /v1/nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404, "not_found"),
        (b"PUT /v1/version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 405, "usage"),
        (b"GET /v1/partitions/none HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404, "not_found"),
        (b"GET /v1/events?since=-1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 400, "usage"),
        (b"GET /v1/explain?decision=x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 400, "usage"),
        (post("/v1/partitions", b"{"), 400, "usage"),
        (post("/v1/partitions", b"\xff\xfe"), 400, "usage"),
        (post("/v1/partitions", b"[]"), 422, "invalid"),
        (post("/v1/partitions", b""), 422, "invalid"),
        (post("/v1/partitions", b"null"), 422, "invalid"),
        (post("/v1/partitions", b'{"name": NaN, "memory": -Infinity}'), 422, "invalid"),
        (post("/v1/partitions", b'{"name": "\\ud800", "\\udfff": 1}'), 422, "invalid"),
        (post("/v1/partitions", b"{}").replace(b"application/json", b"text/plain"), 422, "invalid"),
        (post("/v1/partitions/x/stop", b'{"timeout": "soon"}'), 422, "invalid"),
        (post("/v1/partitions/x/wait", b'{"state": "asleep"}'), 422, "invalid"),
        (b"nonsense\r\n\r\n", 400, "usage"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "usage"),
        (b"GET /" + b"x" * 20000 + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404, "not_found"),
        (b"GET /" + b"x" * 2_000_000, 400, "usage"),
    ]
    for data, status, code in cases:
        got, document = raw(host, data)
        assert got == status, (data[:60], got, document)
        assert len(check_shape(document, code)) < 500, "an error does not repeat what was sent"


def test_errors_of_the_supervisor_keep_their_code(client: Client, host: FakeHost) -> None:
    for failure, code in (
        (HostError("not_placed", "no memory is left", rule="first-fit"), "not_placed"),
        (RemoteError("conflict", "frames 7 to 9 are taken", {"rows": [1]}), "conflict"),
        (TimeoutError(), "timeout"),
    ):
        host.supervisor.failure = failure
        assert refused(client, "POST", "/v1/partitions", SPEC).code == code
    host.supervisor.failure = RuntimeError("secret of another partition")
    error = refused(client, "POST", "/v1/partitions", SPEC)
    assert error.code == "internal" and "secret" not in json.dumps(error.document())
    host.supervisor.failure = None
    client.post("/v1/partitions", SPEC)


# ---- limits ----


def test_the_body_may_have_a_mebibyte(host: FakeHost) -> None:
    fits = b'{"text": "version: 1", "file": "%s"}'
    fits = fits % (b"x" * (api_guard.BODY_BYTES_MAX - len(fits) + 2))
    assert len(fits) == api_guard.BODY_BYTES_MAX
    assert raw(host, post("/v1/validate", fits))[0] == 200
    status, document = raw(host, post("/v1/validate", fits + b" "))
    assert status == 413 and "larger than" in check_shape(document, "usage")
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"  # without a declared length
    head = b"POST /v1/validate HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert raw(host, head + chunk * 17 + b"0\r\n\r\n")[0] == 413
    assert raw(host, post("/v1/validate", b"", "Content-Length: " + "9" * 30))[0] in (400, 413)


def test_a_huge_body_is_refused_before_it_is_read(host: FakeHost) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(5)
        connection.connect(str(host.socket))
        connection.sendall(b"POST /v1/validate HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n")
        status, document = response(connection)
        assert status == 413 and "larger than" in check_shape(document, "usage")


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_the_body_may_be_nested_32_levels(host: FakeHost, opening: bytes) -> None:
    closing = b"]" if opening == b"[" else b"}"
    limit = api_guard.DEPTH_MAX
    inner = b"1" if opening != b"[" else b""
    assert raw(host, post("/v1/plan", opening * limit + inner + closing * limit))[0] == 422
    status, document = raw(host, post("/v1/plan", opening * (limit + 1) + inner + closing * (limit + 1)))
    assert status == 400 and "deeper than 32" in check_shape(document, "usage")
    assert raw(host, post("/v1/plan", opening * 150000))[0] == 400


@pytest.mark.parametrize(
    ("body", "levels"),
    [(b"", 0), (b"1", 0), (b"[]", 1), (b"[[],[]]", 2), (b'{"[[[": "]}"}', 1), (b'["\\"[[["]', 1), (b'["\\\\", [1]]', 2),
     (b'"\\', 0), (b"]]]][", 0), (b'{"a": [{"b": {}}]}', 4)],
)
def test_depth_counts_brackets_outside_strings(body: bytes, levels: int) -> None:
    assert api_guard.depth(body) == levels


def test_depth_takes_linear_time() -> None:
    for body in (b'"\\' * 500_000, b"[" * 1_000_000, b'\\"' * 500_000, b"[]," * 340_000):
        begin = time.process_time()
        api_guard.depth(body)
        assert time.process_time() - begin < 1.0


def test_a_body_may_not_trickle(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_guard, "BODY_SECONDS_MAX", 0.2)
    status, document = raw(host, b"POST /v1/plan HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n[")
    assert status == 408
    check_shape(document, "timeout")


@pytest.mark.parametrize("begin", [b"", b"GET /v1/version HTT"])
def test_a_head_may_not_trickle(runtime_dir: Path, monkeypatch: pytest.MonkeyPatch, begin: bytes) -> None:
    monkeypatch.setattr(api_server, "HEADER_SECONDS_MAX", 0.2)
    with running(runtime_dir) as host:
        status, document = raw(host, begin)
        assert status == 408
        check_shape(document, "timeout")
        # Nor the head of a second request on the same connection.
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(5)
            connection.connect(str(host.socket))
            connection.sendall(b"GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n")
            assert response(connection)[0] == 200
            connection.sendall(b"GET /v1/ver")
            assert response(connection)[0] == 408


def test_only_so_many_requests_are_at_work(host: FakeHost, client: Client) -> None:
    client.post("/v1/partitions", SPEC)
    waiting: list[socket.socket] = []
    body = json.dumps({"state": "stopped", "timeout": 30}).encode()
    try:
        for _ in range(api_guard.OUTSTANDING_MAX):
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            waiting.append(connection)
            connection.settimeout(10)
            connection.connect(str(host.socket))
            connection.sendall(post("/v1/partitions/store/wait", body))
        status = 200
        deadline = time.monotonic() + 10
        while status == 200 and time.monotonic() < deadline:  # until the last of them has been taken
            status, document = raw(host, b"GET /v1/version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert status == 429
        check_shape(document, "denied")
        host.call(lambda: asyncio.ensure_future(host.supervisor.stop("store", 0, key=None, actor="")))
        assert [response(connection)[0] for connection in waiting] == [200] * len(waiting)
    finally:
        for connection in waiting:
            connection.close()
    assert client.get("/v1/version")["api"] == 1


def test_only_so_many_connections_are_held(host: FakeHost, client: Client) -> None:
    held: list[socket.socket] = []
    try:
        for _ in range(api_server.CONNECTIONS_MAX):
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            held.append(connection)
            connection.connect(str(host.socket))
        status, document = raw(host, b"")
        assert status == 503
        check_shape(document, "denied")
    finally:
        for connection in held:
            connection.close()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            assert client.get("/v1/version")
            break
        except HostError as error:
            assert error.code in ("denied", "unreachable")
    else:
        pytest.fail("the connections were not given back")


def test_a_follower_that_never_reads_costs_no_memory(host: FakeHost, client: Client) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(str(host.socket))
        connection.sendall(b"GET /v1/events?follow=true HTTP/1.1\r\nHost: x\r\n\r\n")
        for _ in range(20):
            for _ in range(200):
                host.call(lambda: host.supervisor.events.publish("burst", text="x" * 1000))
            assert client.get("/v1/version")["api"] == 1, "others are served meanwhile"
        assert len(host.supervisor.events.history()) <= 65


def test_an_unread_answer_does_not_delay_the_end(runtime_dir: Path) -> None:
    with running(runtime_dir) as host, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(str(host.socket))
        connection.sendall(b"GET /v1/events?follow=true HTTP/1.1\r\nHost: x\r\n\r\n")
        begin = time.monotonic()
        host.call(host.supervisor.events.publish, "x")
    assert time.monotonic() - begin < 5


# ---- identity ----


def test_the_socket_is_the_owners_alone(host: FakeHost) -> None:
    assert host.socket.stat().st_mode & 0o777 == 0o600


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to take another uid")
def test_another_user_is_refused_by_its_credentials(host: FakeHost) -> None:
    """Also where somebody opened up folder and socket: the kernel says who connects."""
    host.runtime.chmod(0o755)
    host.socket.chmod(0o666)
    answers: list[tuple[int, dict[str, Any]]] = []

    def as_nobody() -> None:
        # The system call itself changes this thread alone; the library's function would change all.
        number = 117 if os.uname().machine == "x86_64" else 147  # setresuid
        assert ctypes.CDLL(None).syscall(number, 65534, 65534, 65534) == 0
        answers.append(raw(host, b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n"))

    thread = threading.Thread(target=as_nobody)
    thread.start()
    thread.join(10)
    [(status, document)] = answers
    assert status == 403 and "uid 65534" in check_shape(document, "denied")
    assert not host.supervisor.calls


def test_a_living_socket_is_respected_and_a_dead_one_replaced(host: FakeHost, runtime_dir: Path) -> None:
    with pytest.raises(HostError) as caught:
        api_server.listen(host.socket)
    assert caught.value.code == "conflict"
    dead = runtime_dir / "dead.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        left.bind(str(dead))
    api_server.listen(dead).close()


def test_the_socket_goes_with_the_daemon(runtime_dir: Path) -> None:
    with running(runtime_dir) as host:
        assert host.socket.exists()
    assert not host.socket.exists()


# ---- idempotency ----


def test_one_key_has_one_effect(client: Client, host: FakeHost) -> None:
    headers = {"Idempotency-Key": "k1"}
    answers = [client.request("POST", "/v1/partitions", SPEC, headers=headers) for _ in range(3)]
    assert answers[0] == answers[1] == answers[2] and len(host.supervisor.calls) == 1
    assert host.supervisor.calls[0][2] == "k1", "the key goes on to the ultravisor"
    error = refused(client, "POST", "/v1/partitions", {**SPEC, "name": "other"}, headers=headers)
    assert error.code == "conflict"
    for _ in range(3):
        client.request("DELETE", "/v1/partitions/store", query={"force": True}, headers={"Idempotency-Key": "k2"})
    assert len(host.supervisor.calls) == 2
    assert refused(client, "POST", "/v1/partitions", SPEC, headers={"Idempotency-Key": "x" * 200}).code == "usage"


def test_a_caller_that_leaves_gets_its_answer_by_the_key(client: Client, host: FakeHost) -> None:
    gate = asyncio.Event()
    host.supervisor.gate = gate
    request = post("/v1/partitions", json.dumps(SPEC).encode(), "Idempotency-Key: k")
    for _ in range(3):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(str(host.socket))
            connection.sendall(request)
    host.call(gate.set)
    assert client.request("POST", "/v1/partitions", SPEC, headers={"Idempotency-Key": "k"})["name"] == "store"
    assert len(host.supervisor.calls) == 1 and len(client.get("/v1/partitions")["partitions"]) == 1


# ---- cost ----


def test_nobody_calling_costs_nothing(host: FakeHost, client: Client) -> None:
    """The whole idle host has one per cent of a processor; a server that ticks would take a good part of it."""
    client.get("/v1/version")
    own = threading.get_native_id()
    others = [task for task in os.listdir("/proc/self/task") if int(task) != own]

    def wakes() -> int:
        total = 0
        for task in others:
            try:
                status = Path(f"/proc/self/task/{task}/status").read_text()
            except OSError:
                continue  # a thread of an earlier test has ended
            total += int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
        return total

    before, cpu = wakes(), time.process_time()
    time.sleep(2)
    assert wakes() - before <= 4, "uvicorn alone would wake twenty times"
    assert time.process_time() - cpu < 0.004

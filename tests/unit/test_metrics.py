"""The metrics page: names, zeros, sums, histograms, and two judges that are not ours: promtool and Prometheus."""

import http.client
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from hostd import metrics_server, metrics_table
from hostd.errors import HostError
from hostd.metrics import HostCollector, fold, statistics_rows
from hostd.metrics_server import MetricsServer
from pyx import abi, statistics

STORE, SENDER = abi.make_id(5, 1), abi.make_id(6, 3)


def partition(name: str, identity: int, **fields: Any) -> dict[str, Any]:
    endpoints = [
        {"index": 0, "name": "vda", "kind": "disk", "device": "disk0", "path": "redirect", "mac": None},
        {"index": 1, "name": "eth0", "kind": "nic", "device": "nic0", "path": "redirect", "mac": "02:00:00:00:00:01"},
    ]
    return {
        "name": name, "id": identity, "type": "guest", "state": "running", "pid": os.getpid(), "start_time": 1.7e9,
        "cpu_seconds": 0.0, "memory": 64 << 20, "world": 1, "exit_status": None, "restarts": 0, "sandbox": "full",
        "endpoints": endpoints, **fields,
    }


def row(kind: str, owner: int, endpoint: int = 0, histograms: Any = None, **counters: Any) -> dict[str, Any]:
    histograms = histograms or {}
    return {"kind": kind, "partition": owner, "endpoint": endpoint, "counters": counters, "histograms": histograms}


class Page:
    """A page over lists that the test may change between scrapes."""

    def __init__(self) -> None:
        self.partitions = [partition("store", STORE), partition("sender", SENDER)]
        self.rows: list[dict[str, Any]] = []
        self.statistics: Callable[[], list[dict[str, Any]]] = lambda: self.rows
        collector = HostCollector(lambda: self.statistics(), lambda: self.partitions, "0.1.0")
        self.server = MetricsServer("127.0.0.1:0", collector).start()

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.server.url.split("/")[2].rpartition(":")
        return host, int(port)

    def get(self, accept: str = "") -> tuple[str, str]:
        request = urllib.request.Request(self.server.url, headers={"Accept": accept})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.headers["Content-Type"], answer.read().decode()

    def values(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        return {
            (sample.name.removeprefix("partvisor_"), frozenset(sample.labels.items())): sample.value
            for family in parse_text(self.get()[1])
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        return self.values()[name, frozenset(labels.items())]


@pytest.fixture
def page() -> Iterator[Page]:
    page = Page()
    yield page
    page.server.stop()


DISK = {"partition": "store", "device": "disk0", "endpoint": "vda"}
NIC = {"partition": "store", "device": "nic0", "endpoint": "eth0"}


def test_known_series_are_zero_before_anything_happened(page: Page) -> None:
    values = page.values()
    for name, labels in (
        ("io_requests_total", DISK),
        ("io_operations_completed_total", DISK | {"op": "read"}),
        ("io_operations_completed_total", NIC | {"op": "send"}),
        ("io_refused_total", DISK | {"reason": "address_range"}),
        ("disk_read_bytes_total", DISK),
        ("disk_flushes_completed_total", DISK),
        ("network_receive_drops_total", NIC | {"reason": "no_buffer"}),
        ("network_transmit_packets_total", NIC),
        ("system_calls_total", {"partition": "store", "call": "connect", "result": "done"}),
        ("system_calls_total", {"partition": "store", "call": "unknown", "result": "call_unknown"}),
        ("host_copied_bytes_total", {"partition": "store", "process": "monitor"}),
        ("disk_io_now", DISK),
        ("io_stage_duration_seconds_count", DISK | {"stage": "device"}),
        ("disk_request_duration_seconds_bucket", DISK | {"le": "+Inf"}),
    ):
        assert values[name, frozenset(labels.items())] == 0, (name, labels)
    sends = frozenset((DISK | {"op": "send"}).items())
    assert ("io_operations_completed_total", sends) not in values, "a disk sends no frames"


def test_what_only_others_do_has_no_zeros_at_guests(page: Page) -> None:
    page.partitions += [partition("io-a", abi.make_id(1, 1), type="io", endpoints=[]),
                        partition("keeper", 0, type="keeper", endpoints=[])]
    refused = {"call": "submit", "result": "address_range"}
    assert page.value("system_calls_total", partition="io-a", **refused) == 0
    names = page.values()
    assert ("system_calls_total", frozenset({"partition": "store", **refused}.items())) not in names
    assert not any(name == "translations_total" and ("partition", "io-a") in labels for name, labels in names)
    assert not any(name == "system_calls_total" and ("partition", "keeper") in labels for name, labels in names)
    page.rows = [row("monitor", STORE, calls={"submit": {"address_range": 2}})]
    assert page.value("system_calls_total", partition="store", **refused) == 2, "but what happens is shown"


def test_counters_reach_the_page_by_name(page: Page) -> None:
    page.rows = [
        row("io", STORE, 0, requests=10, completions=7, operations={"read": 4, "write": 2, "send": 0},
            bytes={"read": 4096}, refused={"read_only": 1}, copied_bytes=0),
        row("disk", STORE, 0, reads=4, read_bytes=4096, fenced=2, errors={"medium_full": 3}),
        row("nic", STORE, 1, transmit_frames=9, transmit_bytes=900, transmit_dropped={"no_destination": 5}, fenced=1),
        row("monitor", STORE, calls={"connect": {"done": 3, "service_denied": 2}, "unknown": {"call_unknown": 6}}),
        {"kind": "thread", "process": "io-a", "thread": "0",
         "counters": dict.fromkeys(abi.THREAD_COUNTERS, 2_000_000_000)},
    ]
    for name, value, labels in (
        ("io_requests_total", 10, DISK),
        ("disk_io_now", 3, DISK),
        ("io_operations_completed_total", 4, DISK | {"op": "read"}),
        ("io_bytes_total", 4096, DISK | {"op": "read"}),
        ("io_refused_total", 1, DISK | {"reason": "read_only"}),
        ("disk_reads_completed_total", 4, DISK),
        ("disk_errors_total", 3, DISK | {"reason": "medium_full"}),
        ("device_fenced_requests_total", 2, DISK),
        ("device_fenced_requests_total", 1, NIC),
        ("network_transmit_packets_total", 9, NIC),
        ("network_transmit_drops_total", 5, NIC | {"reason": "no_destination"}),
        ("system_calls_total", 3, {"partition": "store", "call": "connect", "result": "done"}),
        ("system_calls_total", 2, {"partition": "store", "call": "connect", "result": "service_denied"}),
        ("system_calls_total", 6, {"partition": "store", "call": "unknown", "result": "call_unknown"}),
        ("thread_seconds_total", 2, {"process": "io-a", "thread": "0", "mode": "busy"}),
        ("thread_sleeps_total", 2e9, {"process": "io-a", "thread": "0"}),
    ):
        assert page.value(name, **labels) == value, name


def test_two_servers_of_one_endpoint_are_one_series(page: Page) -> None:
    page.rows = [row("io", STORE, 0, requests=10), row("io", STORE, abi.make_id(0, 9), requests=5)]
    assert page.value("io_requests_total", **DISK) == 15


def test_a_reason_that_nobody_expected_appears(page: Page) -> None:
    page.rows = [row("nic", STORE, 1, transmit_dropped={"queue_broken": 1, "medium_full": 0})]
    assert page.value("network_transmit_drops_total", reason="queue_broken", **NIC) == 1
    assert not any(("reason", "medium_full") in labels and name == "network_transmit_drops_total"
                   for name, labels in page.values())


def test_a_guest_can_not_make_series(page: Page) -> None:
    """Rows of partitions or endpoints that the supervisor does not know are not shown (rule 38)."""
    before = len(page.values())
    page.rows = [row("io", abi.make_id(99, 1), 0, requests=1), row("io", STORE, 31, requests=1),
                 row("io", abi.make_id(5, 2), 0, requests=1), row("monitor", abi.make_id(99, 1), calls={})]
    assert len(page.values()) == before


def test_every_counter_of_the_layout_has_a_line() -> None:
    """A counter added to abi.h must be exported, or left out here with a reason."""
    names = {"io": abi.IO_COUNTERS, "monitor": abi.MONITOR_COUNTERS, "nic": abi.NIC_COUNTERS, "disk": abi.DISK_COUNTERS,
             "thread": abi.THREAD_COUNTERS}
    for kind, counters in names.items():
        kept_back = {"associations"} if kind == "nic" else set()  # falls, too: for the next process of the device
        assert {c.counter for c in metrics_table.COUNTERS if c.kind == kind} | kept_back == set(counters), kind
    for counter in metrics_table.COUNTERS:
        help = next(c.help for c in metrics_table.COUNTERS if c.metric == counter.metric)
        assert help.endswith("."), counter.metric
        labels = {c.labels for c in metrics_table.COUNTERS if c.metric == counter.metric}
        assert len(labels) == 1, f"{counter.metric} would have series with different labels: {labels}"


def test_state_and_facts(page: Page) -> None:
    page.partitions[0].update(state="stopped", pid=None, exit_status={"exited": 0})
    values = page.values()
    states = {dict(labels)["state"]: value for (name, labels), value in values.items()
              if name == "partition_state" and ("partition", "store") in labels}
    assert states == {"defined": 0, "starting": 0, "running": 0, "stopping": 0, "stopped": 1, "failed": 0}
    assert page.value("sandbox_state", partition="sender", state="full") == 1
    assert page.value("sandbox_state", partition="sender", state="off") == 0
    assert page.value("resident_memory_bytes", partition="store") == 64 << 20
    assert page.value("partition_start_timestamp_seconds", partition="store") == 1.7e9
    assert any(name == "build_info" and ("version", "0.1.0") in labels for name, labels in values)
    assert page.value("endpoint_info", kind="nic", path="redirect", mac="02:00:00:00:00:01", **NIC) == 1
    in_force = {path: page.value("endpoint_path", path=path, **NIC) for path in ("copy", "redirect", "direct")}
    assert in_force == {"copy": 0, "redirect": 1, "direct": 0}


def test_a_stopped_partition_keeps_its_series_until_it_is_removed(page: Page) -> None:
    page.rows = [row("io", SENDER, 0, requests=8)]
    labels = {"partition": "sender", "device": "disk0", "endpoint": "vda"}
    cpu = page.value("cpu_seconds_total", partition="sender", mode="user")
    assert cpu > 0
    page.partitions[1].update(state="stopped", pid=None)
    assert page.value("io_requests_total", **labels) == 8
    assert page.value("cpu_seconds_total", partition="sender", mode="user") >= cpu
    del page.partitions[1]
    assert not any(("partition", "sender") in found for _, found in page.values())


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to choose the pid of a process")
def test_the_time_of_another_process_with_the_same_pid_is_not_taken(page: Page) -> None:
    with subprocess.Popen(["sleep", "60"]) as first:
        page.partitions[0].update(pid=first.pid)
        assert page.value("cpu_seconds_total", partition="store", mode="user") < 0.5
        first.kill()
    for _ in range(50):  # others start processes too
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(first.pid - 1))
        second = subprocess.Popen(["/bin/sh", "-c", "while :; do :; done"])
        try:
            if second.pid == first.pid:
                time.sleep(1)
                assert page.value("cpu_seconds_total", partition="store", mode="user") < 0.5
                return
        finally:
            second.kill()
            second.wait()
    pytest.skip("the pid was taken by others each time")


def test_the_time_of_a_process_that_ended_stays(page: Page) -> None:
    child = subprocess.Popen(["/bin/sh", "-c", "while :; do :; done"])
    try:
        page.partitions[0].update(pid=child.pid)
        deadline = time.monotonic() + 10
        while page.value("cpu_seconds_total", partition="store", mode="user") == 0 and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        child.kill()
        child.wait()
    last = page.value("cpu_seconds_total", partition="store", mode="user")
    assert last > 0
    assert page.value("cpu_seconds_total", partition="store", mode="user") == last, "it ended, its time stays"


def test_folding_is_exact_and_monotone() -> None:
    fine = [(512 / 1e9, 2), (1024 / 1e9, 5), (1280 / 1e9, 6), (2048 / 1e9, 9), (4e9 / 1e9, 11)]
    counts = fold(fine, 11)
    assert len(counts) == len(metrics_table.BUCKETS) + 1
    assert counts[:3] == [5, 9, 9] and counts[-2:] == [9, 11]
    assert counts == sorted(counts)
    assert fold([], 0)[-1] == 0
    assert fold(fine, 3)[-1] == 11, "a total read before its parts must not fall below them"


def test_histograms_agree_with_the_shared_statistics(page: Page) -> None:
    buckets = [(64 / 1e9, 3), (1024 / 1e9, 5), ((1 << 30) / 1e9, 6)]
    page.rows = [row("io", STORE, 0, {"total": {"buckets": buckets, "sum": 1.5, "count": 6}}),
                 row("io", STORE, 0, {"total": {"buckets": buckets, "sum": 1.5, "count": 6}})]
    stage = DISK | {"stage": "total"}
    for name, labels in (("io_stage_duration_seconds", stage), ("disk_request_duration_seconds", DISK)):
        assert page.value(f"{name}_count", **labels) == 12
        assert page.value(f"{name}_sum", **labels) == 3
        assert page.value(f"{name}_bucket", le="1.024e-06", **labels) == 10
        assert page.value(f"{name}_bucket", le="2.147483648", **labels) == 12


def test_real_segments_are_read() -> None:
    counters, histograms = abi.STATISTICS_SHAPES["io"]
    size = abi.statistics_size(4, counters, histograms)
    fd = os.memfd_create("statistics")
    try:
        os.ftruncate(fd, size)
        statistics.initialize(fd, "io", 4)
        reader = statistics.Reader(fd, size)
        rows = statistics_rows([("io-a", reader), ("io-a", reader)])
        assert [(found["kind"], found["process"], found["thread"]) for found in rows] == [
            ("thread", "io-a", "0"), ("thread", "io-a", "1")]
        assert set(rows[0]["counters"]) == set(abi.THREAD_COUNTERS)
        reader.detach()
    finally:
        os.close(fd)


def test_statistics_that_can_not_be_read_do_not_hide_the_host(page: Page) -> None:
    def broken() -> list[dict[str, Any]]:
        raise ValueError("no statistics segment of this version")

    page.statistics = broken
    assert page.value("statistics_errors_total") == 1
    assert page.value("partition_state", partition="store", type="guest", state="running") == 1


# ---- the server ----


def test_both_formats_by_what_the_scraper_asks_for(page: Page) -> None:
    kind, text = page.get()
    assert kind.startswith("text/plain; version=") and "partvisor_io_requests_total" in text
    kind, text = page.get("application/openmetrics-text; version=1.0.0; charset=utf-8")
    assert kind.startswith("application/openmetrics-text") and text.endswith("# EOF\n")
    names = {family.name for family in parse_openmetrics(text)}
    assert {"partvisor_io_requests", "partvisor_io_stage_duration_seconds", "partvisor_build_info"} <= names


def raw(page: Page, data: bytes) -> bytes:
    with socket.create_connection(page.address, 10) as connection:
        connection.sendall(data)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
        return answer


def test_other_requests_get_short_answers(page: Page) -> None:
    assert raw(page, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").endswith(metrics_server.INDEX)
    assert b" 404 " in raw(page, b"GET /secret HTTP/1.1\r\nHost: x\r\n\r\n").splitlines()[0]
    assert b" 501 " in raw(page, b"POST /metrics HTTP/1.1\r\nHost: x\r\n\r\n").splitlines()[0]
    assert b" 414 " in raw(page, b"GET /" + b"x" * 70000 + b" HTTP/1.1\r\n\r\n").splitlines()[0]
    head = raw(page, b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"Content-Length: " in head and head.endswith(b"\r\n\r\n")
    assert b"Python" not in head


def test_scrapers_that_do_not_speak_are_bounded(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server._Handler, "timeout", 1.0)
    silent = [socket.create_connection(page.address, 10) for _ in range(metrics_server.CONNECTIONS_MAX)]
    try:
        with pytest.raises((http.client.HTTPException, OSError)):
            page.get()  # closed at once, without a thread
        assert silent[0].recv(10) == b"", "the silent ones are sent away"
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            try:
                assert page.get()
                break
            except (http.client.HTTPException, OSError):
                time.sleep(0.05)  # the last of them is being sent away
        else:
            pytest.fail("the page did not come back")
    finally:
        for connection in silent:
            connection.close()


def test_the_address_is_given_back_and_a_taken_one_refused(page: Page) -> None:
    address = page.server.url.split("/")[2]
    with pytest.raises(HostError, match="host.metrics of the manifest") as caught:
        MetricsServer(address, HostCollector(list, list, "0"))
    assert caught.value.code == "conflict"
    begin = time.monotonic()
    page.server.stop()
    assert time.monotonic() - begin < 1
    MetricsServer(address, HostCollector(list, list, "0")).start().stop()


def test_ipv6_has_brackets() -> None:
    try:
        server = MetricsServer("[::1]:0", HostCollector(list, list, "0")).start()
    except HostError as error:
        pytest.skip(f"no IPv6 loopback here: {error}")
    assert server.url.startswith("http://[::1]:")
    server.stop()


# ---- judges ----


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (package prometheus)")
def test_promtool_finds_nothing(page: Page) -> None:
    page.rows = [row("io", STORE, 0, {"total": {"buckets": [(1e-6, 3)], "sum": 1.5, "count": 6}}, requests=3)]
    text = page.get()[1]
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    planted = text + "# HELP partvisor_planted_ms Planted.\n# TYPE partvisor_planted_ms gauge\npartvisor_planted_ms 1\n"
    done = subprocess.run(["promtool", "check", "metrics"], input=planted, capture_output=True, text=True, timeout=60)
    assert done.returncode == 3 and "partvisor_planted_ms" in done.stderr, "the judge must be able to object"


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed (package prometheus)")
def test_a_real_prometheus_scrapes_it(page: Page, tmp_path: Path) -> None:
    page.rows = [row("io", STORE, 0, {"total": {"buckets": [(1024 / 1e9, 3)], "sum": 1.5, "count": 6}}, requests=12345)]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    target = page.server.url.split("/")[2]
    (tmp_path / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s}\n"
        f"scrape_configs: [{{job_name: partvisor, static_configs: [{{targets: ['{target}']}}]}}]\n")
    server = subprocess.Popen(
        ["prometheus", f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data",
         f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def query(expression: str) -> list[dict[str, Any]]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", f"/api/v1/query?query={expression}")
            return json.loads(connection.getresponse().read())["data"]["result"]
        except (OSError, ValueError, http.client.HTTPException):
            return []  # it is still starting
        finally:
            connection.close()

    try:
        deadline = time.monotonic() + 60
        found: list[dict[str, Any]] = []
        while not found and time.monotonic() < deadline and server.poll() is None:
            found = query('partvisor_io_requests_total{partition="store",endpoint="vda"}')
            time.sleep(0.1)
        assert [sample["value"][1] for sample in found] == ["12345"]
        assert query("up")[0]["value"][1] == "1"
        [bucket] = query('partvisor_disk_request_duration_seconds_bucket{partition="store",le="1.024e-06"}')
        assert bucket["value"][1] == "3"
    finally:
        server.terminate()
        server.wait(20)

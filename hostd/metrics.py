"""The collector: statistics rows and the supervisor's rows, as Prometheus metrics at the time of a scrape.

It runs on the metrics server's thread, reads shared memory only and asks no process, so a scrape
blocks nobody and works while the data plane hangs. Rows with the same labels are added up: two
servers of one endpoint, or two workers of the monitor, are one series. All known series exist from
the start with value 0, and those of a stopped partition stay until it is removed.
"""

import logging
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from hostd.interface import SANDBOX_STATES, STATES, Row
from hostd.metrics_connections import of_connections, of_takeovers
from hostd.metrics_table import (
    BUCKETS,
    COUNTERS,
    DISK_HELP,
    DISK_METRIC,
    ENDPOINT,
    PREFIX,
    STAGES_HELP,
    STAGES_METRIC,
    TOTAL_STAGE,
    Counter,
)
from hostd.metrics_wires import of_wires
from hostd.takeovers import Pauses
from hostd.vectors import HARDWARE
from pyx.abi import ENDPOINT_HARDWARE, PATHS, STAGES, slot_of

log = logging.getLogger("hostd.metrics")

STARTED_AGAIN = ("monitor", "io", "ultravisor", "operations", "command")  # types of roles
Labels = tuple[str, ...]
Values = dict[str, dict[Labels, float]]
_KINDS = {kind: [counter for counter in COUNTERS if counter.kind == kind] for kind in {c.kind for c in COUNTERS}}
_ENDPOINT_ROWS = {"disk": ("io", "disk", "vector"), "nic": ("io", "nic", "vector")}


def statistics_rows(readers: Iterable[tuple[str, Any]]) -> list[dict[str, Any]]:
    """All rows of (process name, pyx.statistics.Reader) pairs, with a row of kind `thread` for each reader and one of
    kind `charge` for each partition that it works for."""
    rows: list[dict[str, Any]] = []
    threads: dict[str, int] = {}
    for process, reader in readers:
        number = threads[process] = threads.get(process, -1) + 1
        rows += [{**row, "process": process} for row in reader.rows()]
        rows += [
            {"kind": "charge", "process": process, "partition": partition, "counters": {"cpu_ns": spent}}
            for partition, spent in reader.charges().items()
        ]
        name = getattr(reader, "thread_name", "") or str(number)
        rows.append({"kind": "thread", "process": process, "thread": name, "counters": reader.thread()})
    return rows


class HostCollector(Collector):
    """Metrics of one host. `statistics` and `partitions` are called on every scrape, from its thread.

    `statistics()` gives rows as `statistics_rows` does; `partitions()` rows as Supervisor.list() does; `refusals()`
    counts by type of partition, device and its class; `wires()` names by device and port; `pauses()` of takeovers.
    """

    def __init__(
        self,
        statistics: Callable[[], list[dict[str, Any]]],
        partitions: Callable[[], Sequence[Row]],
        version: str,
        refusals: Callable[[], Mapping[Labels, int]] = dict,
        wires: Callable[[], Mapping[tuple[str, int], str]] = dict,
        pauses: Callable[[], Mapping[tuple[str, str], Pauses]] = dict,
    ) -> None:
        self._pauses = pauses
        self._refusals = refusals
        self._wires = wires
        self._statistics = statistics
        self._partitions = partitions
        self._version = version
        self._errors = 0
        self._cpu = _CpuTimes()

    def describe(self) -> list[Metric]:
        return []  # so that registering does not scrape

    def collect(self) -> Iterator[Metric]:
        began = time.perf_counter()
        partitions = self._partitions()
        statistics = self._read_statistics()
        yield from _counters(partitions, statistics)
        yield from _histograms(partitions, statistics)
        yield from of_wires(statistics, self._wires())
        yield from of_connections(partitions)
        yield from of_takeovers(self._pauses())
        yield from _processes(partitions, self._cpu)
        refused = CounterMetricFamily(
            PREFIX + "device_refused", "Partitions kept from a device by its class.", labels=["type", "device", "class"]
        )
        for labels, count in self._refusals().items():
            refused.add_metric(labels, count)
        yield refused
        yield from self._host(time.perf_counter() - began)

    def _read_statistics(self) -> list[dict[str, Any]]:
        try:
            return self._statistics()
        except Exception:  # a segment that can not be read must not hide the host's state
            self._errors += 1
            log.exception("statistics can not be read")
            return []

    def _host(self, seconds: float) -> Iterator[Metric]:
        labels = {"version": self._version, "python": platform.python_version(), "kernel": os.uname().release}
        build = GaugeMetricFamily(PREFIX + "build_info", "What runs here; always 1.", labels=list(labels))
        build.add_metric(list(labels.values()), 1)
        yield build
        yield CounterMetricFamily(
            PREFIX + "statistics_errors", "Scrapes that could not read the statistics segments.", self._errors
        )
        yield GaugeMetricFamily(
            PREFIX + "scrape_duration_seconds", "Time that collecting the values of this page took.", seconds
        )


def _counters(partitions: Sequence[Row], statistics: list[dict[str, Any]]) -> Iterator[Metric]:
    values: Values = {counter.metric: {} for counter in COUNTERS}
    _add_zeros(values, partitions)
    names = _Names(partitions)
    for row in statistics:
        owner = names.of(row)
        if owner is not None:
            for counter in _KINDS[row["kind"]]:
                _add(values[counter.metric], counter, owner, row["counters"])
    described: set[str] = set()
    for counter in COUNTERS:
        if counter.metric not in described:
            described.add(counter.metric)
            family = CounterMetricFamily(PREFIX + counter.metric, counter.help, labels=counter.labels)
            for labels, value in values[counter.metric].items():
                family.add_metric(labels, value)
            yield family
    yield from _in_flight(values, partitions)


def _add_zeros(values: Values, partitions: Sequence[Row]) -> None:
    """Series that are known without any row: a rate over a series that begins late would miss its start."""
    for row in partitions:
        for counter in (*_KINDS["monitor"], *_KINDS["view"], *_KINDS["trap"]):
            if row["type"] == "guest" or (counter.everyone and row["id"]):  # keeper and hostd have no call ring
                _zero(values, counter, (row["name"],), row["type"])
        if row["type"] == "guest":
            for counter in _KINDS["vector"]:
                _zero(values, counter, _hardware(row), "guest")
        for endpoint in row["endpoints"]:
            owner = (row["name"], endpoint["device"], endpoint["name"])
            for kind in _ENDPOINT_ROWS[endpoint["kind"]]:
                for counter in _KINDS[kind]:
                    _zero(values, counter, owner, endpoint["kind"])


def _hardware(row: Row) -> Labels:
    """Labels of the vector that tells a guest of changes of its hardware, at no device."""
    return row["name"], "", HARDWARE


def _zero(values: Values, counter: Counter, owner: Labels, kind: str) -> None:
    base = (*owner[: len(counter.by)], *counter.fixed.values())
    for nested in (*counter.known, *counter.known_for.get(kind, ())):
        values[counter.metric].setdefault((*base, *nested), 0)


def _add(series: dict[Labels, float], counter: Counter, owner: Labels, counters: Mapping[str, Any]) -> None:
    found = counters.get(counter.counter)
    if found is None:
        return
    base = (*owner[: len(counter.by)], *counter.fixed.values())
    for nested, value in _leaves(found, len(counter.nested)):
        if nested and not counter.chosen(nested[0]):
            continue
        labels = (*base, *map(counter.named, nested))
        if value or labels in series or not counter.nested:
            series[labels] = series.get(labels, 0) + value * counter.scale


def _leaves(found: Any, depth: int) -> Iterator[tuple[Labels, float]]:
    if depth == 0:
        yield (), found
    else:
        for key, value in found.items():
            for nested, leaf in _leaves(value, depth - 1):
                yield (str(key), *nested), leaf


class _Names:
    """Label values for the owner of a row; None for one that the supervisor does not know (any more)."""

    def __init__(self, partitions: Sequence[Row]) -> None:
        self._partitions = {row["id"]: row["name"] for row in partitions}
        self._endpoints = {
            (row["id"], endpoint["index"]): (row["name"], endpoint["device"], endpoint["name"])
            for row in partitions
            for endpoint in row["endpoints"]
        } | {(row["id"], ENDPOINT_HARDWARE): _hardware(row) for row in partitions if row["type"] == "guest"}

    def of(self, row: dict[str, Any]) -> Labels | None:
        if row["kind"] == "thread":
            return row["process"], row["thread"]
        if row["kind"] in ("monitor", "view", "trap"):
            name = self._partitions.get(row["partition"])
            return None if name is None else (name,)
        if row["kind"] == "charge":
            name = self._partitions.get(row["partition"])
            return None if name is None else (row["process"], name)
        return self._endpoints.get((row["partition"], slot_of(row["endpoint"])))


def _in_flight(values: Values, partitions: Sequence[Row]) -> Iterator[Metric]:
    completions = values["io_completions"]
    for kind, noun in (("disk", "disk"), ("nic", "network")):
        family = GaugeMetricFamily(f"{PREFIX}{noun}_io_now", "Requests in flight.", labels=list(ENDPOINT))
        for labels in _endpoints(partitions, kind):
            # The two words are read one after the other: never below zero.
            flying = values["io_requests"].get(labels, 0) - completions.get(labels, 0)
            family.add_metric(labels, max(0, flying))
        yield family


def _endpoints(partitions: Sequence[Row], kind: str) -> Iterator[Labels]:
    for row in partitions:
        for endpoint in row["endpoints"]:
            if endpoint["kind"] == kind:
                yield row["name"], endpoint["device"], endpoint["name"]


def _histograms(partitions: Sequence[Row], statistics: list[dict[str, Any]]) -> Iterator[Metric]:
    stages = HistogramMetricFamily(PREFIX + STAGES_METRIC, STAGES_HELP, labels=[*ENDPOINT, "stage"])
    disks = HistogramMetricFamily(PREFIX + DISK_METRIC, DISK_HELP, labels=list(ENDPOINT))
    disk_owners = set(_endpoints(partitions, "disk"))
    folded: dict[Labels, tuple[list[float], float]] = {
        (*owner, stage): ([0] * (len(BUCKETS) + 1), 0)
        for owner in (*sorted(disk_owners), *_endpoints(partitions, "nic"))
        for stage in STAGES
    }
    names = _Names(partitions)
    for row in statistics:
        owner = names.of(row) if row.get("histograms") else None
        if owner is not None:
            for stage, histogram in row["histograms"].items():
                counts, total = folded[(*owner, stage)]
                added = fold(histogram["buckets"], histogram["count"])
                folded[(*owner, stage)] = (
                    [a + b for a, b in zip(counts, added, strict=True)],
                    total + histogram["sum"],
                )
    for labels, (counts, total) in folded.items():
        buckets = [(_go(bound), count) for bound, count in zip((*BUCKETS, float("inf")), counts, strict=True)]
        stages.add_metric(labels, buckets, total)
        if labels[-1] == TOTAL_STAGE and labels[:-1] in disk_owners:
            disks.add_metric(labels[:-1], buckets, total)
    yield stages
    yield disks


def fold(fine: Sequence[tuple[float, int]], count: int) -> list[float]:
    """Cumulative counts at BUCKETS and at infinity, of cumulative counts at fine bounds."""
    result: list[float] = []
    index, reached = 0, 0
    for bound in BUCKETS:
        while index < len(fine) and fine[index][0] <= bound:
            reached = fine[index][1]
            index += 1
        result.append(reached)
    # The writer goes on while we read: the total must not be below a part of it.
    return [*result, max(count, fine[-1][1] if fine else 0)]


def _go(bound: float) -> str:
    return "+Inf" if bound == float("inf") else repr(bound)


def _processes(partitions: Sequence[Row], cpu: "_CpuTimes") -> Iterator[Metric]:
    state = GaugeMetricFamily(
        PREFIX + "partition_state", "1 for the state that a partition has.", labels=["partition", "type", "state"]
    )
    sandbox = GaugeMetricFamily(
        PREFIX + "sandbox_state", "1 for how far a process is confined.", labels=["partition", "state"]
    )
    info = GaugeMetricFamily(
        PREFIX + "partition_info", "Facts of a partition; always 1.", labels=["partition", "type", "id", "pid"]
    )
    endpoint_info = GaugeMetricFamily(
        PREFIX + "endpoint_info", "Facts of an endpoint; always 1.", labels=[*ENDPOINT, "kind", "path", "mac"]
    )
    path = GaugeMetricFamily(
        PREFIX + "endpoint_path", "1 for the path that is in force for an endpoint.", labels=[*ENDPOINT, "path"]
    )
    memory = GaugeMetricFamily(PREFIX + "resident_memory_bytes", "Resident memory of a process.", labels=["partition"])
    quarantine = GaugeMetricFamily(
        PREFIX + "quarantine_bytes", "What was revoked and a holder has not let go of yet.", labels=["partition"]
    )
    started = GaugeMetricFamily(
        PREFIX + "partition_start_timestamp_seconds", "Unix time of the last start.", labels=["partition"]
    )
    restarts = CounterMetricFamily(
        PREFIX + "restarts", "Times that the process of a role was started again.", labels=["partition"]
    )
    times = CounterMetricFamily(PREFIX + "cpu_seconds", "Processor time of a process.", labels=["partition", "mode"])
    for row in partitions:
        name = row["name"]
        for known in STATES:
            state.add_metric([name, row["type"], known], row["state"] == known)
        for known in SANDBOX_STATES:
            sandbox.add_metric([name, known], row["sandbox"] == known)
        info.add_metric([name, row["type"], str(row["id"]), str(row["pid"] or "")], 1)
        for end in row["endpoints"]:
            facts = [name, end["device"], end["name"], end["kind"], end.get("path") or "", end.get("mac") or ""]
            endpoint_info.add_metric(facts, 1)
            for known in PATHS:
                path.add_metric([name, end["device"], end["name"], known], end.get("path") == known)
        memory.add_metric([name], row["memory"] or 0)
        if row["type"] == "guest":
            quarantine.add_metric([name], row.get("quarantine") or 0)
        if row["start_time"] is not None:
            started.add_metric([name], row["start_time"])
        if row["type"] in STARTED_AGAIN:
            restarts.add_metric([name], row["restarts"])
        for mode, value in cpu.of(row).items():
            times.add_metric([name, mode], value)
    cpu.keep({(row["name"], row["id"]) for row in partitions})
    yield from (state, sandbox, info, endpoint_info, path, memory, quarantine, started, restarts, times)


class _CpuTimes:
    """CPU time by the kernel's word; the last one of a process that ended stays."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], tuple[Any, dict[str, float], dict[str, float]]] = {}

    def of(self, row: Row) -> dict[str, float]:
        import psutil  # on the first scrape, not at the start of the daemon

        key = (row["name"], row["id"])
        zero = {"user": 0.0, "system": 0.0}
        process, before, last = self._known.get(key, (None, zero, zero))
        try:
            if row["pid"] is not None:
                if process is None or process.pid != row["pid"]:
                    process, before = psutil.Process(row["pid"]), last  # a role that was started again goes on counting
                if process.is_running():  # false for another process with the same pid
                    now = process.cpu_times()
                    last = {
                        "user": before["user"] + now.user + now.children_user,
                        "system": before["system"] + now.system + now.children_system,
                    }
        except psutil.Error:
            pass  # ended since the row was made
        self._known[key] = (process, before, last)
        return last

    def keep(self, keys: set[tuple[str, int]]) -> None:
        """Forget all others, for ids never come back."""
        self._known = {key: value for key, value in self._known.items() if key in keys}

"""What `tools/run` shows: the host's metrics page, scraped and read like any other client would."""

from __future__ import annotations

import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from hostd.units import show_size

Labels = dict[str, str]


class Page:
    """Samples of one scrape: name -> [(labels, value)]."""

    def __init__(self, text: str) -> None:
        self.samples: dict[str, list[tuple[Labels, float]]] = defaultdict(list)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self.samples[sample.name].append((sample.labels, sample.value))

    @classmethod
    def scrape(cls, url: str) -> Page:
        with urllib.request.urlopen(url, timeout=10) as response:
            return cls(response.read().decode())

    def total(self, name: str, **labels: str) -> int:
        return int(sum(value for found, value in self.samples[name] if labels.items() <= found.items()))

    def partitions(self) -> list[dict[str, Any]]:
        """One entry per partition and endpoint."""
        name = "partvisor_io_requests_total"
        return [self._endpoint(labels) for labels, _ in self.samples[name]]

    def _endpoint(self, labels: Labels) -> dict[str, Any]:
        key = {name: labels[name] for name in ("partition", "device", "endpoint")}
        refused = {
            found["reason"]: int(value)
            for found, value in self.samples["partvisor_io_refused_total"]
            if value and key.items() <= found.items()
        }
        stages: dict[str, dict[str, dict[str, float | None]]] = {}
        for queue, stage in self._histograms(key):
            stages.setdefault(queue, {})[stage] = {
                "p50": self._quantile(0.5, key, queue, stage),
                "p99": self._quantile(0.99, key, queue, stage),
            }
        return {
            **key,
            "bytes": self.total("partvisor_io_bytes_total", **key),
            "requests": self.total("partvisor_io_requests_total", **key),
            "refused": refused,
            "host_copied_bytes": self.total("partvisor_host_copied_bytes_total", partition=key["partition"]),
            "stages": stages,
        }

    def _histograms(self, key: Labels) -> Iterator[tuple[str, str]]:
        for found, value in self.samples["partvisor_io_stage_duration_seconds_count"]:
            if value and key.items() <= found.items():
                yield found.get("queue", ""), found["stage"]

    def _quantile(self, wanted: float, key: Labels, queue: str, stage: str) -> float | None:
        """Upper bound of the bucket that holds the quantile, in seconds."""
        match = {**key, "stage": stage} | ({"queue": queue} if queue else {})
        buckets = sorted(
            (float(found["le"]), value)
            for found, value in self.samples["partvisor_io_stage_duration_seconds_bucket"]
            if match.items() <= found.items()
        )
        if not buckets or not buckets[-1][1]:
            return None
        return next(limit for limit, count in buckets if count >= wanted * buckets[-1][1])


def microseconds(value: float | None) -> str:
    return "-" if value is None else f"{value * 1e6:.0f}"


def lines(result: dict[str, Any], page: Page, reports: dict[str, Any]) -> Iterator[str]:
    """The tables for people."""
    rate = result["bytes"] / result["seconds"]
    yield ""
    yield "PARTITION  DEVICE  ENDPOINT        BYTES  REQUESTS  COPIED BY HOST  REFUSED"
    for row in result["partitions"]:
        refused = ", ".join(f"{reason} {count}" for reason, count in row["refused"].items()) or "0"
        yield (
            f"{row['partition']:<9}  {row['device']:<6}  {row['endpoint']:<8}  {show_size(row['bytes']):>11}"
            f"  {row['requests']:>8}  {row['host_copied_bytes']:>14}  {refused}"
        )
    yield ""
    yield "Latency by stage, microseconds (upper bound of the bucket): p50 / p99"
    names = ("queue", "validation", "post", "device", "completion", "interrupt", "total")
    yield "PARTITION  QUEUE          " + "".join(f"{name:>16}" for name in names)
    for row in result["partitions"]:
        for queue, stages in row["stages"].items():
            cells = (stages.get(name, {"p50": None, "p99": None}) for name in names)
            shown = "".join(f"{microseconds(cell['p50']) + ' / ' + microseconds(cell['p99']):>16}" for cell in cells)
            yield f"{row['partition']:<9}  {row['endpoint'] + ' ' + queue:<13}  {shown}"
    sender, receiver = reports["sender"], reports["receiver"]
    yield ""
    yield f"archive     {result['bytes']} bytes, SHA-256 {', '.join(result['sha256'])}"
    yield (
        f"network     {receiver['frames']} frames in order, {sender['retransmitted']} sent again,"
        f" {receiver['out_of_order']} out of order"
    )
    yield f"checksums   {'equal at every end' if result['checksums_equal'] else 'DIFFERENT'}"
    yield f"memory maps {'as granted' if not result['checks_failed'] else 'WRONG: ' + str(result['checks_failed'])}"
    yield f"metrics     {result['metrics_url']}"
    yield f"time        {result['seconds']:.1f} s ({show_size(rate)}/s of archive from start to end)"

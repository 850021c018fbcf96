"""Metrics of wires: what came in from one, what went out to it, and what was dropped, by reason.

They count in rows of their own in the statistics segment of their device (pyx.statistics.WIRES).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prometheus_client.core import CounterMetricFamily, Metric

from hostd.metrics_table import PREFIX
from pyx.statistics import WIRES

PORTS = 0xFF0000  # where the owner of a row has the port of its wire
LABELS = ["device", "wire"]
COUNTED = [
    ("transmit_frames", "wire_receive_packets", "Frames that came in from a wire."),
    ("transmit_bytes", "wire_receive_bytes", "Bytes that came in from a wire."),
    ("receive_frames", "wire_transmit_packets", "Frames that went out to a wire."),
    ("receive_bytes", "wire_transmit_bytes", "Bytes that went out to a wire."),
]
DROPPED = [("transmit_dropped", "in"), ("receive_dropped", "out")]


def of_wires(statistics: Sequence[Mapping[str, Any]], names: Mapping[tuple[str, int], str]) -> Iterator[Metric]:
    """`names`: of wires, by device and port; those without a name are gone."""
    rows = []
    for row in statistics:
        owner = row.get("partition") or 0
        if row["kind"] == "nic" and owner & ~PORTS == WIRES:
            name = names.get((row["process"], (owner & PORTS) >> 16))
            if name is not None:
                rows.append(([row["process"], name], row["counters"]))
    for counter, metric, text in COUNTED:
        family = CounterMetricFamily(PREFIX + metric, text, labels=LABELS)
        for labels, counters in rows:
            family.add_metric(labels, counters[counter])
        yield family
    text = "Frames that were dropped: from a wire (in), or to it (out)."
    drops = CounterMetricFamily(PREFIX + "wire_drops", text, labels=[*LABELS, "direction", "reason"])
    for labels, counters in rows:
        for counter, direction in DROPPED:
            for reason, count in counters[counter].items():
                if count:
                    drops.add_metric([*labels, direction, reason], count)
    yield drops

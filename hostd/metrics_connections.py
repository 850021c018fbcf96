"""Metrics of connections and takeovers (rules.md 38): state, age and cause of each endpoint's, and the pauses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from hostd.connections import STATES
from hostd.metrics_table import BUCKETS, ENDPOINT, PREFIX
from hostd.takeovers import Pauses


def of_connections(partitions: Sequence[Mapping[str, Any]]) -> Iterator[Metric]:
    """Of rows as Supervisor.list() gives them. All states are 0 for an endpoint whose guest has ended."""
    state = GaugeMetricFamily(
        PREFIX + "endpoint_connection", "1 for the state that a connection has.", labels=[*ENDPOINT, "state"]
    )
    age = GaugeMetricFamily(
        PREFIX + "endpoint_connection_age_seconds", "Time since the connection has its state.", labels=list(ENDPOINT)
    )
    cause = GaugeMetricFamily(
        PREFIX + "endpoint_connection_cause", "1 for the cause of the state.", labels=[*ENDPOINT, "cause"]
    )
    changes = CounterMetricFamily(
        PREFIX + "endpoint_connection_changes", "Times that a connection came to a state.", labels=[*ENDPOINT, "state"]
    )
    failovers = CounterMetricFamily(
        PREFIX + "failovers", "Takeovers of the server of an endpoint, by its path.", labels=[*ENDPOINT, "path"]
    )
    for row in partitions:
        for endpoint in row["endpoints"]:
            labels = [row["name"], endpoint["device"], endpoint["name"]]
            found = endpoint.get("connection")
            for known in STATES:
                state.add_metric([*labels, known], found is not None and found["state"] == known)
            if found is not None:
                age.add_metric(labels, found["age"])
                cause.add_metric([*labels, found["cause"]], 1)
                for known, count in found["changes"].items():
                    changes.add_metric([*labels, known], count)
                for path, count in found["failovers"].items():
                    failovers.add_metric([*labels, path], count)
    yield from (state, age, cause, changes, failovers)


def of_takeovers(pauses: Mapping[tuple[str, str], Pauses]) -> Iterator[Metric]:
    """By I/O partition whose clients waited, and cause."""
    family = HistogramMetricFamily(
        PREFIX + "takeover_pause_seconds",
        "Time from the notice that nobody serves the clients of an I/O partition until another one does.",
        labels=["office", "cause"],
    )
    bounds = [*map(repr, BUCKETS), "+Inf"]
    for labels, one in pauses.items():
        family.add_metric(labels, list(zip(bounds, one.cumulative(), strict=True)), one.sum)
    yield family

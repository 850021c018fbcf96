"""Histograms of load generators: buckets, quantiles and merging, against plain sorting."""

import random

import pytest

from pyx import latency
from tools.measure.histogram import Histogram


def recorded(values: list[int]) -> latency.Histogram:
    histogram = latency.Histogram()
    for value in values:
        histogram.observe(value)
    return histogram


@pytest.mark.parametrize("ns", [0, 1, 31, 32, 33, 63, 64, 65, 127, 128, 1000, 10**6, 10**9 + 1, 2**39 - 1, 2**41 - 1])
def test_a_bucket_holds_its_value_and_is_narrow(ns: int) -> None:
    index = latency.bucket(ns)
    assert 0 <= index < latency.BUCKETS
    assert ns <= latency.limit(index) <= ns + ns / 32
    assert index == 0 or latency.limit(index - 1) < ns


def test_buckets_follow_each_other() -> None:
    limits = [latency.limit(index) for index in range(latency.BUCKETS)]
    assert limits == sorted(set(limits))
    assert [latency.bucket(limit) for limit in limits] == list(range(latency.BUCKETS))


@pytest.mark.parametrize("ns", [2**41, 2**63, 2**64 - 1])
def test_what_is_too_long_falls_into_the_last_bucket(ns: int) -> None:
    assert latency.bucket(ns) == latency.BUCKETS - 1


@pytest.mark.parametrize("seed", range(5))
def test_quantiles_are_those_of_the_sorted_values(seed: int) -> None:
    draw = random.Random(seed)
    values = [int(draw.lognormvariate(10, 2)) for _ in range(5000)]
    found = Histogram([recorded(values[:2000]).document(), recorded(values[2000:]).document()])
    ordered = sorted(values)
    for q in (0.001, 0.5, 0.9, 0.99, 0.999):
        exact = ordered[max(0, -(-int(q * 10**6) * len(values) // 10**6) - 1)]
        assert exact <= found.quantile(q) * 1e9 + 1e-3 and found.quantile(q) * 1e9 <= exact * 33 / 32 + 1
    assert found.quantile(1.0) * 1e9 == pytest.approx(ordered[-1])
    assert found.mean * 1e9 == pytest.approx(sum(values) / len(values))
    assert found.count == len(values)


def test_an_empty_histogram_has_no_quantile() -> None:
    with pytest.raises(ValueError, match="no latencies"):
        Histogram().quantile(0.5)
    assert latency.Histogram().document() == {"count": 0, "sum": 0, "min": 0, "max": 0, "buckets": []}


def test_clear_forgets() -> None:
    histogram = recorded([5, 10])
    assert (histogram.least, histogram.most, histogram.sum) == (5, 10, 15)
    histogram.clear()
    histogram.observe(7)
    assert histogram.document() == {"count": 1, "sum": 7, "min": 7, "max": 7, "buckets": [[7, 1]]}

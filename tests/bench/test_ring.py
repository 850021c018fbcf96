"""`hostctl bench ring`: the document, and under --long the promised ratios."""

import pytest

from tests.framework.bench_document import bench, only


def test_document() -> None:
    document = bench("ring", "--seconds", "0.5")
    names = [(result["name"], result["parameters"]) for result in document["results"]]
    assert names == [
        ("throughput", {"batch": 32}), ("throughput", {"batch": 1}),
        ("throughput_polling", {"batch": 32}), ("throughput_polling", {"batch": 1}), ("round_trip", {}),
    ]
    assert all(result["baseline"]["name"] == "ideal ring" for result in document["results"])
    assert only(document, "throughput", batch=32)["unit"] == "requests/s"
    assert only(document, "round_trip")["unit"] == "seconds"


@pytest.mark.long
def test_ratios() -> None:
    """On a machine that does nothing else: 0.8 and 0.5 of the ideal ring, a round trip at most 1.5 times its."""
    document = bench("ring", "--seconds", "30")
    assert only(document, "throughput", batch=32)["ratio"] >= 0.8
    assert only(document, "throughput", batch=1)["ratio"] >= 0.5
    assert only(document, "round_trip")["ratio"] <= 1.5

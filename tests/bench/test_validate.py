"""`hostctl bench validate`: the document, and under --long the promised rate."""

import pytest

from tests.framework.bench_document import bench, only


def test_document() -> None:
    document = bench("validate", "--seconds", "0.5", "--seed", "7")
    for frames in ("contiguous", "scattered"):
        rate, cost = only(document, "throughput", frames=frames), only(document, "cost", frames=frames)
        flags = {"frames": frames, "length": 4096, "invalid": 0.01, "seed": 7}
        assert rate["parameters"] == flags == cost["parameters"]
        assert (rate["unit"], cost["unit"]) == ("requests/s", "seconds")
        assert rate["max"] * cost["max"] >= 1 >= rate["min"] * cost["min"]


@pytest.mark.long
def test_rate() -> None:
    """On a machine that does nothing else: 30 million requests a second on one processor."""
    document = bench("validate", "--seconds", "20")
    assert all(result["value"] >= 30e6 for result in document["results"] if result["name"] == "throughput")

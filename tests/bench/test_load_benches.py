"""The benchmarks of paths: latency, sharing, sweep and search give their documents, for every path."""

import pytest

from pyx import esp
from tests.framework.bench_document import bench, only

PATHS = ("copy", "redirect", "direct")


def test_latency() -> None:
    document = bench("latency", "--seconds", "1", deadline=180)
    for path in PATHS:
        for load in ("net", "disk"):
            for neighbours in (0, len(document["environment"]["processors"])):
                given = {"path": path, "load": load, "neighbours": neighbours}
                half = only(document, "round_trip", quantile=0.5, **given)
                assert 0 < half["value"] <= only(document, "round_trip", quantile=0.99, **given)["value"]
    environment = document["environment"]
    assert environment["guest_class"] and environment["neighbour_class"] and environment["data_plane_class"]


def test_sharing() -> None:
    document = bench("sharing", "--guests", "3", "--size", "1500", "--seconds", "1", deadline=180)
    for path in PATHS:
        for result in (only(document, "rate", path=path, size=1500), only(document, "iops", path=path, block=4096)):
            assert result["baseline"]["name"] == "one guest" and result["parameters"]["guests"] == 3
            assert result["ratio"] > 0


def test_receive() -> None:
    """Both ways in one document, and the host's counter shows which one a frame took."""
    document = bench("receive", "--size", "1500", "--seconds", "4", deadline=60)
    hosting, straight = (only(document, "rate", size=1500, path=path) for path in ("copy", "direct"))
    assert hosting["baseline"]["name"] == "guest buffers" and hosting["ratio"] > 0
    assert straight["baseline"] is None and straight["value"] > 0
    parts = {path: only(document, "copied", size=1500, path=path) for path in ("copy", "direct")}
    assert parts["direct"]["max"] == 0 and parts["copy"]["min"] > 0.99 and parts["copy"]["max"] < 1.01
    assert only(document, "cpu_per_byte", size=1500, path="copy")["value"] > 0


def test_esp() -> None:
    """What goes sealed, beside the bare library; how much of it is left, a quiet machine shows."""
    if esp.missing():
        pytest.skip(f"no ESP here: {esp.missing()}")
    document = bench("esp", "--seconds", "1", deadline=60)
    found = only(document, "throughput", size=1400)
    assert found["baseline"]["value"] > 0 and found["ratio"] > 0


def test_stalled() -> None:
    """The others' rate does not suffer; how exactly it is kept, a quiet machine shows."""
    document = bench("stalled", "--seconds", "3", deadline=180)
    for path in PATHS:
        kept = only(document, "rate_kept", path=path)
        assert kept["min"] <= kept["value"] <= kept["max"] and kept["value"] > 0.7
        assert only(document, "latency_kept", path=path)["parameters"]["rate"] > 0


def test_sweep() -> None:
    document = bench("sweep", "--size", "64", "--size", "1500", "--block", "4096", "--depth", "1", "--depth", "8",
                     "--guests", "2", "--seconds", "1", deadline=180)  # fmt: skip
    for path in PATHS:
        for depth in (1, 8):
            for size in (64, 1500):
                rate = only(document, "rate", path=path, size=size, depth=depth, guests=4)
                throughput = only(document, "throughput", path=path, size=size, depth=depth)
                assert throughput["value"] == pytest.approx(rate["value"] * size)
            assert only(document, "iops", path=path, block=4096, depth=depth, guests=2)["value"] > 0
            assert only(document, "cpu_per_byte", path=path, block=4096, depth=depth)["unit"] == "seconds/byte"


@pytest.mark.parametrize("path", ["redirect", "direct"])
def test_search(path: str) -> None:
    document = bench("search", "--path", path, "--seconds", "2")
    found = only(document, "no_drop_rate")
    assert found["parameters"]["path"] == path and 0 < found["ratio"] <= 2
    assert only(document, "latency", quantile=0.5)["value"] <= only(document, "latency", quantile=1.0)["value"]


def test_worlds() -> None:
    document = bench("worlds", "--seconds", "3", deadline=180)
    for mechanism in ("stop", "class"):
        cost = only(document, "switch_cost", mechanism=mechanism)
        assert cost["value"] > 0 and cost["baseline"]["value"] > 0
        assert 0 <= only(document, "share_error", mechanism=mechanism)["value"] < 1
        assert 0 < only(document, "overhead", mechanism=mechanism)["value"] < 1


def test_revoke() -> None:
    """Every receipt says what it must; a stopped device's comes at the deadline of 100 ms, not before."""
    document = bench("revoke", "--count", "20", "--seconds", "3", deadline=180)
    for holder in ("cooperating", "stopped guest"):
        found = only(document, "revoke", holder=holder)
        assert found["samples"] == 20 and 0 < found["min"] <= found["value"] <= found["max"]
    assert only(document, "revoke", holder="stopped device")["min"] >= 0.1


def test_failover() -> None:
    """Nothing is lost or repeated; the figures of a quiet machine are a few milliseconds (rules.md test 21)."""
    document = bench("failover", "--cause", "planned", "--cause", "kill", deadline=180)
    for cause in ("planned", "kill"):
        gap = only(document, "gap", cause=cause)
        assert gap["samples"] >= 20 and 0 < gap["min"] <= gap["value"] < 1.0
        assert only(document, "lost", cause=cause)["value"] == only(document, "duplicated", cause=cause)["value"] == 0


def test_restart() -> None:
    """hostd dies once while guests sleep and once while they work, and the next one has every process."""
    document = bench("restart", "--count", "1")
    assert only(document, "start")["value"] > 0
    for load in ("none", "busy"):
        assert 0 < only(document, "adopted", load=load)["value"] < only(document, "answers", load=load)["value"]

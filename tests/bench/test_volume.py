"""`hostctl bench volume`: the document, and the promised times of a clone and of opening."""

from tests.framework.bench_document import bench, only

CLONE_MOST = 0.050  # seconds: a disk of 100 GiB with 10 GiB allocated
OPEN_MOST = 0.200  # seconds: a volume with 1,000 disks


def test_document() -> None:
    document = bench("volume", "--seconds", "0.5", "--size", "4GiB", "--allocated", "1GiB", "--disks", "10")
    clone, opening = only(document, "clone_time"), only(document, "open_time")
    assert clone["parameters"] == {"size": 4 << 30, "allocated": 1 << 30}
    assert clone["baseline"]["name"] == "same writes" and opening["parameters"] == {"disks": 10}
    assert only(document, "lookup_time", op="read")["min"] < only(document, "lookup_time", op="write")["max"]


def test_large_volume_in_time() -> None:
    """The best of the samples: the machine may be busy with other things, and a flush is as slow as its disk."""
    document = bench("volume", "--seconds", "2")
    assert only(document, "clone_time")["min"] <= CLONE_MOST
    assert only(document, "open_time")["min"] <= OPEN_MOST

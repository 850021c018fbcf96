"""Stage attribution: a delay of 5 ms in one stage, at depth 1, moves that stage's times and no other's, and the stages
sum to the whole (H6, A7). Under --long there are requests enough for the 99th percentile, otherwise for the 90th: on a
busy machine one request in 45 is without its processor for a while, in whatever stage it is."""

import pytest

from tests.framework.host import Host
from tests.framework.metrics import Metrics
from tests.framework.puppet import Puppet
from tests.framework.streams import PATHS

DELAY = 0.005  # seconds
LONG = 0.004  # of a stage: above it is the delay, below it is not
METRIC = "io_stage_duration_seconds"
#: who is in each stage of a request to a disk, by path
PLACES = [
    ("copy", "io-a", "queue"), ("copy", "monitor", "copy"), ("copy", "disk0", "device"), ("copy", "io-a", "completion"),
    ("redirect", "io-a", "queue"), ("redirect", "monitor", "validation"), ("redirect", "disk0", "post"),
    ("redirect", "disk0", "device"), ("redirect", "io-a", "completion"),
    ("direct", "disk0", "queue"), ("direct", "disk0", "validation"), ("direct", "disk0", "device"),
    ("direct", "disk0", "completion"),
]  # fmt: skip
OUTSIDE = ("queue", "interrupt", "total")  # before the pick-up, behind the completion, and the whole
QUANTILE, SECONDS, QUANTILE_LONG, SECONDS_LONG = 0.9, 0.25, 0.99, 6.0
ATTEMPTS = 4


def quantiles(before: Metrics, after: Metrics, quantile: float) -> dict[str, float]:
    """Upper bound in seconds of the bucket that holds the quantile of each stage, of what came between."""
    counts: dict[str, dict[float, float]] = {}
    for labels, count in after.changes(before, f"{METRIC}_bucket").items():
        named = dict(labels)
        stage = counts.setdefault(named["stage"], {})
        stage[float(named["le"])] = stage.get(float(named["le"]), 0) + count
    return {stage: min(le for le, count in of.items() if count >= quantile * of[float("inf")])
            for stage, of in counts.items()}  # fmt: skip


def sums(before: Metrics, after: Metrics) -> dict[str, float]:
    found: dict[str, float] = {}
    for labels, seconds in after.changes(before, f"{METRIC}_sum").items():
        stage = dict(labels)["stage"]
        found[stage] = found.get(stage, 0) + seconds
    return found


def measured(host: Host, guest: Puppet, seconds: float) -> tuple[Metrics, Metrics]:
    """Metrics around lone requests, one after the other."""
    guest.call("load:disk", disk="vda", depth=1, seconds=0.02)
    before = host.metrics()
    result = guest.call("load:disk", disk="vda", depth=1, seconds=seconds)
    assert result["errors"] == 0

    def complete() -> Metrics | None:
        after = host.metrics()
        count = sum(after.changes(before, f"{METRIC}_count").get(labels, 0)
                    for labels in after.series(f"{METRIC}_count", stage="device"))  # fmt: skip
        return after if count >= result["requests"] else None

    return before, host.until(complete)  # histograms are written behind the answers


def start(host: Host, path: str) -> Puppet:
    guest = host.guest("timed", disks=[{"name": "vda", "size": "1MiB", "path": path}])
    guest.call("disk:write", disk="vda", length=4096, seed=1)
    host.until(lambda: host.path("timed", "vda") == path)
    return guest


@pytest.mark.parametrize(("path", "role", "stage"), PLACES)
def test_a_delay_moves_its_stage_alone(host: Host, path: str, role: str, stage: str, long: bool) -> None:
    """Measured again where another stage took 4 ms."""
    guest = start(host, path)
    quantile, seconds = (QUANTILE_LONG, SECONDS_LONG) if long else (QUANTILE, SECONDS)
    for _ in range(ATTEMPTS):
        calm = quantiles(*measured(host, guest, 0.1), quantile)
        host.delay(role, stage, DELAY)
        try:
            delayed = quantiles(*measured(host, guest, seconds), quantile)
        finally:
            host.delay(role, stage, 0)
        others = [name for name in delayed if name not in (stage, "total")]
        if max(calm.values()) <= LONG * 1.1 and all(delayed[name] <= LONG * 1.1 for name in others):
            break
    else:
        raise AssertionError(f"calm {calm}, delayed {delayed}")
    assert delayed[stage] > DELAY, delayed
    assert (delayed["total"] > DELAY) == (stage not in OUTSIDE), delayed


@pytest.mark.parametrize("path", PATHS)
def test_stages_sum_to_the_whole(host: Host, path: str) -> None:
    guest = start(host, path)
    found = sums(*measured(host, guest, 0.2))
    parts = sum(seconds for stage, seconds in found.items() if stage not in OUTSIDE)
    assert parts == pytest.approx(found["total"], rel=0.02), found

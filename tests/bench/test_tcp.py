"""bench tcp: one short run of both sides, and what its ends must agree upon."""

import os
import shutil

import click
import pytest

from tests.framework.bench_document import bench
from tools.bench.tcp import figure


def test_ends_that_disagree_are_an_error() -> None:
    with pytest.raises(click.ClickException, match="bytes"):
        figure({"bytes": 1, "counted": 1, "seconds": 1.0}, {"bytes": 2}, 1.0)
    with pytest.raises(click.ClickException, match="connections"):
        figure({"count": 1}, {"count": 2}, 1.0)


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ip"), reason="network namespaces need root and ip")
def test_both_sides_move_data() -> None:
    results = {one["name"]: one for one in bench("tcp", "--path", "redirect", "--seconds", "0.5")["results"]}
    assert set(results) == {"throughput", "rate"}
    assert all(one["value"] > 0 and one["baseline"]["name"] == "veth" for one in results.values())

"""bench iperf: its figures out of iperf3's documents, and one short run of both sides."""

import json
import os
import shutil

import click
import pytest

from tools.bench.host import bench_host
from tools.bench.iperf import arrived, between_partitions, over_veth, veth


def test_figures_are_those_of_the_receiver() -> None:
    tcp = {"end": {"sum_sent": {"bits_per_second": 9e9}, "sum_received": {"bits_per_second": 8e9}}}
    assert arrived("a remark\n" + json.dumps(tcp)) == 1e9
    udp = {"end": {"sum": {"bytes": 1000, "seconds": 2.0, "lost_percent": 25.0}}}
    assert arrived(json.dumps(udp)) == 375.0


@pytest.mark.parametrize("text", ["no document", json.dumps({"error": "unable to connect"})])
def test_a_run_that_failed_is_an_error(text: str) -> None:
    with pytest.raises(click.ClickException, match="iperf3"):
        arrived(text)


@pytest.mark.skipif(not (shutil.which("iperf3") and shutil.which("ip")), reason="iperf3 or ip is not installed")
@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
def test_both_sides_move_data() -> None:
    with bench_host() as host, veth(1500) as names:
        large = between_partitions(host, "direct", True, 1500, [])(1)
        datagrams = between_partitions(host, "redirect", True, 1500, ["-u", "-b", "1M", "-l", "64"])(1)
        assert large > 10e6 and datagrams > 10e3 and over_veth(names, [])(1) > 10e6
    assert not set(names) & set(os.listdir("/run/netns") if os.path.isdir("/run/netns") else ())

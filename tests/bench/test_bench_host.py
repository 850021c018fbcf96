"""tools/bench/host.py: what a benchmark reads of its host, against other readers; and that nothing is left of it."""

from pathlib import Path

import psutil
import pytest

from tools.bench.crew import crew
from tools.bench.host import bench_host
from tools.job_table import Page
from tools.measure.processor_time import by_role


def lives(pid: int) -> bool:
    """The daemon is a child of whoever started it, and stays in the table until that one ends."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_host_of_a_benchmark() -> None:
    names = ("partvisor_thread_sleeps_total", "partvisor_io_stage_duration_seconds_count",
             "partvisor_io_requests_total")  # fmt: skip
    with bench_host(medium="null") as host, crew(host) as guests:
        guest = guests.start("load", disks=[{"name": "vda", "size": 1 << 20}])
        guest.call("open_disk", bytes_in_flight=4096)
        guest.call("disk", op="read", block=4096, depth=1, seconds=0.05)
        found, page = host.metrics(*names), Page.scrape(host.metrics_url)
        for name in names:
            read = [(tuple(sorted(labels.items())), value) for labels, value in found[name]]
            other = [(tuple(sorted(labels.items())), value) for labels, value in page.samples[name]]
            assert [labels for labels, _ in read] == [labels for labels, _ in other]
            if "sleeps" not in name:  # threads go on sleeping between two scrapes
                assert read == other
        processes = host.processes()
        assert {"guest", "control", "monitor", "io-a", "io-b", "nic0", "disk0"} == processes.keys()
        assert all(Path(f"/proc/{pid}").exists() for pids in processes.values() for pid in pids)
        times = psutil.Process(processes["guest"][0]).cpu_times()
        assert by_role(processes)["guest"] == pytest.approx(times.user + times.system, abs=0.03), "its ticks are 10 ms"
        folder, program = host.paths.runtime.parent, guests.folder
        pids = [pid for found_pids in processes.values() for pid in found_pids]
    assert not folder.exists() and not program.exists()
    assert [pid for pid in pids if lives(pid)] == []


def test_manifest_hash_is_that_of_the_host() -> None:
    """Not of the folder that it is in; another medium is another host."""
    prints = []
    for medium in ("null", "null", "ram"):
        with bench_host(medium=medium) as host:
            prints.append(host.fingerprint)
    assert prints[0] == prints[1] != prints[2]

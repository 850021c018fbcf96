"""Many guests on one disk device and one NIC device at once (U7)."""

from tests.framework.host import Host

GUESTS = 8
ROUNDS = 100  # of each: a block to the disk and back, eight frames


def test_guests_share_both_devices(host: Host) -> None:
    names = [f"g{number}" for number in range(GUESTS)]
    guests = [host.guest(name, disks=[{"name": "vda", "size": "1MiB"}], nics=["eth0", "eth1"]) for name in names]
    calls = [guest.begin("work:verified", seed=number, most=ROUNDS) for number, guest in enumerate(guests)]
    results = [call.result() for call in calls]
    metrics = host.metrics()
    for name, result, guest in zip(names, results, guests, strict=True):
        assert (result["rounds"], result["dropped"]) == (ROUNDS, {})
        assert metrics.value("disk_writes_completed_total", partition=name) == ROUNDS
        assert metrics.value("disk_reads_completed_total", partition=name) == ROUNDS
        assert metrics.value("network_receive_packets_total", partition=name) == ROUNDS * 8
        assert all(queue["foreign"] == 0 for queue in guest.counts().values())
    assert metrics.by("reason", "io_refused_total") == {}
    assert metrics.value("host_copied_bytes_total") == 0
    assert host.failed_checks() == []

"""What guests counted themselves equals the host's metrics exactly, and each hop passes on what it took (design.md
section 12)."""

import pytest

from tests.framework.host import Host
from tests.framework.metrics import Metrics
from tests.framework.streams import PATHS

GUESTS = 3
ROUNDS = 60
ENDPOINTS = 5  # of each guest


def busy(host: Host, path: str) -> dict[str, dict[str, dict[str, int]]]:
    """Guests with traffic of every kind, good and bad; then silence. Their own counts."""
    disks = [{"name": "vda", "size": "1MiB", "path": path},
             {"name": "vdb", "size": "64KiB", "read_only": True, "path": path}]  # fmt: skip
    nics = [{"name": name, "path": path} for name in ("eth0", "eth1", "eth2")]
    names = [f"g{number}" for number in range(GUESTS)]
    guests = {name: host.guest(name, disks=disks, nics=nics, memory="4MiB") for name in names}
    addresses = {name: guest.call("nic:open", nic="eth2", buffers=8, size=512) for name, guest in guests.items()}
    calls = [guest.begin("work:verified", seed=number, most=ROUNDS) for number, guest in enumerate(guests.values())]
    for call in calls:
        call.result()
    for number, guest in enumerate(guests.values()):
        to = addresses[f"g{(number + 1) % GUESTS}"]
        for _ in range(number + 1):
            guest.call("disk:write", disk="vda", length=65536, seed=1)
            assert guest.call("disk:attempt", disk="vdb", operation="write", offset=0, length=512)
            assert guest.call("disk:attempt", disk="vda", operation="read", offset=1 << 20, length=512)
            guest.call("nic:send", nic="eth2", to=to, frames=[(64, 1), (513, 2), (512, 3)])  # the second is too long
            guest.call("nic:send", nic="eth2", to="02aaaaaaaaaa", frames=[(64, 1)] * 4)
            guest.call("nic:send", nic="eth2", to=to, source=to, frames=[(64, 1)])
        guest.call("load:disk", disk="vda", depth=32, seconds=0.1)
    for number, guest in enumerate(guests.values()):  # what their neighbours sent waits in their rings
        frames = 2 * ((number - 1) % GUESTS + 1)
        assert len(guest.call("nic:receive", nic="eth2", count=frames)) == frames
    return {name: guest.counts() for name, guest in guests.items()}


@pytest.mark.parametrize("path", PATHS)
def test_totals(host: Host, path: str) -> None:
    before = host.metrics()
    counts = busy(host, path)
    metrics = host.metrics()
    for name, queues in counts.items():
        for endpoint in ("vda", "vdb", "eth0", "eth1", "eth2"):
            mine = [queue for key, queue in queues.items() if key.startswith(f"{endpoint}.")]
            own = {field: sum(queue[field] for queue in mine) for field in mine[0]}
            labels = {"partition": name, "endpoint": endpoint}
            if path == "direct":  # the device takes a receive buffer off the pair when it has a frame for it
                own["submitted"] = own["completed"]
            assert own == {
                "submitted": metrics.value("io_requests_total", **labels),
                "completed": metrics.value("io_completions_total", **labels),
                "bytes": metrics.value("io_bytes_total", **labels),
                "refused": metrics.value("io_refused_total", **labels),
                "failed": metrics.value("io_failed_total", **labels),
                "cancelled": metrics.value("io_cancelled_total", **labels),
                "recalled": metrics.value("io_recalled_total", **labels),
                "foreign": 0,
            }, labels
    requests_are_conserved(metrics)
    passed_on(path, metrics, before)
    frames_are_conserved(metrics)
    histograms_are_complete(host, path)


def requests_are_conserved(metrics: Metrics) -> None:
    """What servers and devices took from the guests, they answered, or hold as receive buffers; the disks did it."""
    total = metrics.value
    posted = total("network_buffers_posted_total") - total("network_buffers_returned_total")
    done = total("io_operations_completed_total") + total("io_failed_total") + total("io_cancelled_total")
    assert total("io_completions_total") == done + total("io_recalled_total") + total("io_refused_total")
    assert total("io_requests_total") == total("io_completions_total") + posted
    for operation, device in (("read", "disk_reads"), ("write", "disk_writes"), ("flush", "disk_flushes")):
        completed = total("io_operations_completed_total", op=operation)
        assert completed == total(f"{device}_completed_total") > 0, operation
    assert total("io_bytes_total", op="read") == total("disk_read_bytes_total")
    assert total("io_bytes_total", op="write") == total("disk_written_bytes_total")


def passed_on(path: str, metrics: Metrics, before: Metrics) -> None:
    """Server, monitor and device, each against the next, as the path has it."""
    total = metrics.value

    def calls(name: str) -> float:
        found = metrics.changes(before, "system_calls_total")
        return sum(count for labels, count in found.items() if {("call", name), ("result", "done")} <= labels)

    changes = total("io_operations_completed_total", op="path")
    assert calls("path") == changes == (0 if path == "redirect" else GUESTS * ENDPOINTS)
    assert calls("submit") == total("translations_total")
    refused = total("translations_refused_total")
    assert total("io_submitted_total") == total("translations_total") + refused + changes
    data = sum(total("io_operations_completed_total", op=op) for op in ("read", "write", "send", "receive"))
    copied = data if path == "copy" else 0
    assert calls("copy") == copied
    moved = total("io_bytes_total") if path == "copy" else 0
    assert total("host_copied_bytes_total") == total("io_copied_bytes_total") == moved
    if path == "direct":
        assert total("translations_total") == refused == 0
        return
    posted = total("network_buffers_posted_total") - total("network_buffers_returned_total")
    assert total("translations_total") == total("io_operations_completed_total") - changes + posted


def frames_are_conserved(metrics: Metrics) -> None:
    """Sent = received + dropped, by reason; these guests send no broadcasts."""
    total = metrics.value
    sent = total("io_operations_completed_total", op="send")
    assert sent == total("network_transmit_packets_total") + total("network_transmit_drops_total")
    at_receiver = total("network_receive_drops_total", reason="buffer_small")
    assert total("network_transmit_packets_total") == total("network_receive_packets_total") + at_receiver
    assert total("network_receive_packets_total") == total("io_operations_completed_total", op="receive")
    assert total("io_bytes_total", op="receive") == total("network_receive_bytes_total")
    assert metrics.by("reason", "network_transmit_drops_total") == {"no_destination": 24, "frame_source": 6}
    assert metrics.by("reason", "network_receive_drops_total") == {"buffer_small": 6}


def histograms_are_complete(host: Host, path: str) -> None:
    """One observation of each stage for each request that went well; they are written behind the answers."""
    def complete() -> bool:
        metrics = host.metrics()
        wanted = metrics.value("io_operations_completed_total")
        stages = {stage for key in metrics.series("io_stage_duration_seconds_count")
                  for label, stage in key if label == "stage"}  # fmt: skip
        assert len(stages) == 8
        stages.remove("interrupt")  # the guest tells it with a later request: never of all
        if path == "direct":  # nothing is copied or posted, and buffers are not waited for in a queue
            stages -= {"copy", "post", "queue"}
        return all(metrics.value("io_stage_duration_seconds_count", stage=stage) == wanted for stage in stages)

    host.until(complete)

"""NICs with several queue pairs: frames are spread by flow; a flow keeps its order, also while their number changes."""

import random
import time

import pytest

from hostd.errors import HostError
from tests.framework.host import Host
from tests.framework.streams import PATHS

SEED = 20261121
SECONDS, SECONDS_LONG = 1.2, 30.0
QUEUES = 4
FLOWS = 24  # of tests/system/guests/flows.py


@pytest.mark.parametrize("path", PATHS)
def test_a_flow_keeps_its_order_while_queues_come_and_go(host: Host, path: str, long: bool) -> None:
    """Stamped frames of many flows; all arrive, each flow's in order, and every pair had some."""
    generator = random.Random(SEED)
    sender = host.guest("sender", nics=[{"name": "eth0", "path": path, "queues": 2}])
    receiver = host.guest("receiver", nics=[{"name": "eth0", "path": path, "queues": QUEUES}])
    address = receiver.call("flows:open", nic="eth0")
    sender.call("flows:open", nic="eth0")
    while {(row["path"], row["wanted"]) for row in host.row("receiver")["endpoints"]} != {(path, path)}:
        time.sleep(0.01)  # all have gone over, and the host is told of it one by one
    taking = receiver.begin("flows:receive", nic="eth0", seed=SEED)
    sending = sender.begin("flows:send", nic="eth0", peer=address, seed=SEED)
    end = time.monotonic() + (SECONDS_LONG if long else SECONDS)
    before, changes = QUEUES, 0
    while time.monotonic() < end:
        count = generator.choice([one for one in range(1, QUEUES + 1) if one != before])
        answer = host.set_queues("receiver", "eth0", count)
        assert (answer["before"], answer["queues"], answer["made"]) == (before, count, QUEUES)
        before, changes = count, changes + 1
        time.sleep(generator.random() * 0.05)
    sent = sending.finish()
    took = taking.finish()
    assert sent["dropped"] == {}
    assert took["disordered"] == 0 and took["next"] == sent["sent"], (SEED, changes, took)
    assert changes > 10 and sum(sent["sent"]) > 1000 and min(sent["sent"]) > 0, (changes, sent)
    assert all(taken > 50 for taken in took["taken"]), took
    assert {host.path("receiver", name) for name in ("eth0", "eth0-q1", "eth0-q3")} == {path}


def test_frames_go_to_the_pairs_in_use(host: Host) -> None:
    """A change that its guest does not let happen changes nothing."""
    sender = host.guest("one", nics=[{"name": "eth0"}])
    receiver = host.guest("many", nics=[{"name": "eth0", "queues": 3}])
    address = receiver.call("flows:open", nic="eth0")
    sender.call("flows:open", nic="eth0")
    for count, used in ((3, 3), (1, 1), (2, 2)):
        host.set_queues("many", "eth0", count)
        taking = receiver.begin("flows:receive", nic="eth0", seed=1)
        sending = sender.begin("flows:send", nic="eth0", peer=address, seed=count)
        time.sleep(0.2)
        sent = sum(sending.finish()["sent"])
        taken = taking.finish()["taken"]
        assert [number for number, frames in enumerate(taken) if frames] == list(range(used)), (count, taken)
        assert sum(taken) == sent and sent > FLOWS
    sending = sender.begin("flows:send", nic="eth0", peer=address, seed=9)
    time.sleep(0.2)  # its frames fill the buffers of a guest that does not look
    with pytest.raises(HostError) as refused:
        host.set_queues("many", "eth0", 3, timeout=0.2)
    assert refused.value.code == "timeout" and "2 queue pairs stay" in refused.value.message
    sending.finish()
    with pytest.raises(HostError) as refused:
        host.set_queues("many", "eth0", 4)
    assert "made with 3" in refused.value.message
    with pytest.raises(HostError) as refused:
        host.detach("many", "eth0-q1")
    assert refused.value.code == "unsupported"
    with pytest.raises(HostError) as refused:
        host.spawn("program", ["sleep", "9"], nics=[{"name": "eth0", "queues": 2}])
    assert refused.value.code == "unsupported" and "one queue pair" in refused.value.message

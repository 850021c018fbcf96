"""NICs with several queue pairs: frames are spread by flow; a flow keeps its order, also while their number changes."""

import json
import random
import time
from contextlib import suppress

import pytest

from hostd.errors import HostError
from tests.framework import packets
from tests.framework.host import Host
from tests.framework.streams import PATHS

ECHO = """
import json, socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('10.95.0.2', 7000))
print('ready', flush=True)
following, disordered = {}, 0
while True:
    data, peer = s.recvfrom(2000)
    if data == b'end':
        break
    number = int(data[:9])
    disordered += number != following.get(peer, 0)
    following[peer] = number + 1
    s.sendto(data, peer)
print(json.dumps({'flows': len(following), 'disordered': disordered, 'taken': sum(following.values())}))
"""
ASK = """
import json, select, socket, time
flows = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(24)]
sent, back, disordered = [0] * 24, [0] * 24, 0
for one in flows:
    one.connect(('10.95.0.2', 7000))
flows[0].send(b'%09d' % 0)  # what waits for its address to be found may be dropped
flows[0].settimeout(10)
flows[0].recv(99)
sent[0] = back[0] = 1
end = time.monotonic() + {seconds}
quiet = 0
while quiet < 20 and (time.monotonic() < end or sent != back):
    for at, one in enumerate(flows):
        while time.monotonic() < end and sent[at] - back[at] < 4:
            one.send(b'%09d' % sent[at] + bytes(91))
            sent[at] += 1
    ready = select.select(flows, [], [], 0.1)[0]
    quiet = 0 if ready else quiet + 1
    for one in ready:
        at = flows.index(one)
        number = int(one.recv(2000)[:9])
        disordered += number != back[at]
        back[at] = number + 1
for _ in range(3):
    flows[0].send(b'end')
print(json.dumps({{'sent': sum(sent), 'back': sum(back), 'disordered': disordered}}))
"""
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
    assert changes > 3 and sum(sent["sent"]) > 1000 and min(sent["sent"]) > 0, (changes, sent)
    assert changes <= 10 or all(taken > 10 for taken in took["taken"]), took  # a slow machine changes seldom
    assert {host.path("receiver", name) for name in ("eth0", "eth0-q1", "eth0-q3")} == {path}


@pytest.mark.parametrize("path", PATHS)
def test_nothing_changes_before_all_was_taken(host: Host, path: str) -> None:
    """Frames that lie at a guest, or on their way to it, came before those of another pair do."""
    sender = host.guest("sender", nics=[{"name": "eth0", "path": path}])
    receiver = host.guest("receiver", nics=[{"name": "eth0", "path": path, "queues": 2}])
    address = receiver.call("offloads:open", nic="eth0", buffers=16, size=256)
    source = sender.call("offloads:open", nic="eth0", buffers=16, size=256)
    for name in ("sender", "receiver"):
        host.until(lambda name=name: all(one["path"] == one["wanted"] for one in host.row(name)["endpoints"]))
    host.set_queues("receiver", "eth0", 1)
    frames = [bytes(packets.frame(b"%04d" % number, protocol="udp", source=source, to=address)) for number in range(8)]
    sender.call("offloads:send", nic="eth0", frames=[one.hex() for one in frames], headed=False)
    with pytest.raises(HostError, match="did not take its frames"):
        host.set_queues("receiver", "eth0", 2, timeout=0.1)
    assert receiver.call("offloads:receive", nic="eth0", count=8) == [one.hex() for one in frames]
    assert host.set_queues("receiver", "eth0", 2)["before"] == 1


def test_the_number_outlives_the_process_of_the_device(host: Host) -> None:
    """A flow stays at its pair, and waits for it while the next process gets the pairs one by one."""
    host.guest("many", nics=[{"name": "eth0", "queues": 3}])
    host.set_queues("many", "eth0", 2)
    host.restart("nic0")
    assert host.set_queues("many", "eth0", 2)["before"] == 2


def test_frames_go_to_the_pairs_in_use(host: Host) -> None:
    """A change that its guest does not let happen changes nothing."""
    sender = host.guest("one", nics=[{"name": "eth0"}])
    receiver = host.guest("many", nics=[{"name": "eth0", "queues": 3}])
    address = receiver.call("flows:open", nic="eth0")
    sender.call("flows:open", nic="eth0")
    lost = 0
    for count, used in ((3, 3), (1, 1), (2, 2)):
        host.set_queues("many", "eth0", count)
        taking = receiver.begin("flows:receive", nic="eth0", seed=1)
        sending = sender.begin("flows:send", nic="eth0", peer=address, seed=count)
        time.sleep(0.2)
        given = sending.finish()
        sent, late = sum(given["sent"]), sum(given["dropped"].values()) - lost  # nobody looked in time
        lost += late
        taken = taking.finish()["taken"]
        assert [number for number, frames in enumerate(taken) if frames] == list(range(used)), (count, taken)
        assert sum(taken) == sent - late > FLOWS, given
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


@pytest.mark.parametrize("offloads", [True, False])
def test_a_program_has_several_queues(host: Host, offloads: bool, long: bool) -> None:
    """Datagrams of many flows between two unmodified programs, there and back, while queue pairs come and go: each
    flow in order, nothing lost, and all pairs at work."""
    seconds, generator = SECONDS_LONG if long else SECONDS, random.Random(SEED)
    ends = [
        {"name": "eth0", "path": "direct", "queues": queues, "offloads": offloads, "addresses": [address]}
        for address, queues in (("10.95.0.2/24", QUEUES), ("10.95.0.1/24", 2))
    ]
    host.spawn("echo", ["python3", "-c", ECHO], nics=[ends[0]], memory="64MiB")
    host.until(lambda: "ready" in host.log("echo"))
    host.spawn("ask", ["python3", "-c", ASK.format(seconds=seconds)], nics=[ends[1]], memory="64MiB")
    changes = 0
    with suppress(HostError):  # one of a program that has ended
        while True:
            for name, made in (("echo", QUEUES), ("ask", 2)):
                answer = host.set_queues(name, "eth0", generator.randint(1, made))
                changes += answer["queues"] != answer["before"]
            time.sleep(generator.random() * 0.05)
    for name in ("ask", "echo"):
        host.wait_for_end(name)
    asked, echoed = json.loads(host.log("ask")), json.loads(host.log("echo").split("ready", 1)[1])
    assert asked["disordered"] == echoed["disordered"] == 0, (asked, echoed)
    assert echoed["flows"] == FLOWS and asked["sent"] == asked["back"] == echoed["taken"] > 500, (asked, echoed)
    assert changes > 3
    given = host.metrics().by("endpoint", "network_transmit_packets_total", partition="echo")
    assert len(given) == QUEUES, given

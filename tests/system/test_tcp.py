"""Connections that the NIC's device ends for its guests, spoken to by plain sockets and by each other (A2, A5)."""

import glob
import hashlib
import os
import random
import signal
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import psutil
import pytest

from hostd.errors import HostError
from hostd.manifest_wires import WIRES_MAX
from pyx.abi import OPERATIONS, tcp_address
from tests.framework.host import Host
from tests.framework.packets import frame
from tests.framework.puppet import Puppet

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
OPEN, SEND, RECEIVE, END = (OPERATIONS[f"tcp_{name}"] for name in ("open", "send", "receive", "end"))
PATHS = ("copy", "redirect", "direct")
GUEST, PEER, HOST = "10.77.0.2", "10.77.0.3", "10.77.0.1"


def talker(
    host: Host, name: str = "talker", address: str = GUEST, path: str = "direct", memory: str = "16MiB", **more: Any
) -> Puppet:
    tcp = {key: more.pop(key) for key in ("connections", "ports") if key in more}
    nic = {"name": "eth0", "path": path, "addresses": [f"{address}/24"], "tcp": tcp, **more}
    return host.guest(name, nics=[nic], memory=memory)


def exposed(host: Host, path: str = "direct", **more: Any) -> Puppet:
    return talker(host, path=path, expose={"addresses": [f"{HOST}/24"]}, **more)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A plain socket of the host; it can be bound to the way to a guest only once that guest runs."""
    with socket.socket() as one:
        one.settimeout(10.0)
        yield one


def taken(listener: socket.socket, guest: Puppet, name: str = "c") -> socket.socket:
    """A connection of the guest's to the host."""
    listener.bind((HOST, 0))
    listener.listen()
    assert guest.call("tcp:connect", name=name, address=HOST, port=listener.getsockname()[1]) is None
    one, _ = listener.accept()
    one.settimeout(10.0)
    return one


def drained_of(one: socket.socket, total: int) -> str:
    digest = hashlib.sha256()
    while total:
        data = one.recv(min(total, 1 << 16))
        assert data
        digest.update(data)
        total -= len(data)
    return digest.hexdigest()


@pytest.mark.parametrize("path", PATHS)
def test_data_arrives_whole_at_a_plain_socket_and_back(host: Host, listener: socket.socket, path: str) -> None:
    total = 3_000_001
    guest = exposed(host, path)
    with taken(listener, guest) as peer:
        sending = guest.begin("tcp:send", name="c", seed=1, total=total)
        assert drained_of(peer, total) == sending.result()
        data = random.Random(2).randbytes(total)
        receiving = guest.begin("tcp:receive", name="c", total=total)
        peer.sendall(data)
        assert receiving.result() == [hashlib.sha256(data).hexdigest(), total]


def test_two_guests_reach_each_other_and_end_half_by_half(host: Host) -> None:
    """Over IPv4 and IPv6; one side ends, the other goes on sending."""
    server, client = talker(host, "server", PEER, "redirect"), talker(host)
    assert server.call("tcp:listen", name="l", port=80) is None
    assert client.call("tcp:connect", name="c", address=PEER, port=80) is None
    assert server.call("tcp:accept", listener="l", name="s")[0] == GUEST
    sent = client.call("tcp:send", name="c", seed=1, total=500_000)
    assert client.call("tcp:end", name="c", how="shutdown") is None
    assert server.call("tcp:receive", name="s") == [sent, 500_000]
    assert client.call("tcp:send", name="c", seed=1, total=1) == ["failed", "connection_reset"]
    back = server.begin("tcp:send", name="s", seed=2, total=700_000)
    assert client.call("tcp:receive", name="c", total=700_000) == [back.result(), 700_000]
    assert server.call("tcp:end", name="s", how="close") is None
    assert client.call("tcp:receive", name="c")[1] == 0
    rows = host.client.get("/v1/partitions/talker/capabilities")["capabilities"]
    assert [(row["granted"], row["withheld_by"], row["proved"]) for row in rows if row["capability"] == "tcp"] == [
        (True, [], True)]  # fmt: skip


def test_ipv6(host: Host) -> None:
    server, client = talker(host, "server", "fd77::3"), talker(host, address="fd77::2")
    assert server.call("tcp:listen", name="l", port=80, address="::") is None
    assert client.call("tcp:connect", name="c", address="fd77::3", port=80) is None
    assert server.call("tcp:accept", listener="l", name="s")[0] == "fd77::2"


def test_a_reset_is_a_status(host: Host, listener: socket.socket) -> None:
    guest = exposed(host)
    with taken(listener, guest) as peer:
        waiting = guest.begin("tcp:receive", name="c", total=1)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert waiting.result() == ["failed", "connection_reset"]
    assert guest.call("tcp:end", name="c", how="close") is None
    assert guest.call("tcp:connect", name="d", address=HOST, port=1) == ["failed", "connection_refused"]
    assert guest.call("tcp:connect", name="d", address="192.0.2.1", port=1) == ["failed", "connection_route"]
    assert guest.call("tcp:connect", name="e", address=HOST, port=listener.getsockname()[1]) is None
    one, _ = listener.accept()
    with one:
        assert guest.call("tcp:end", name="e", how="reset") is None
        with pytest.raises(ConnectionResetError):
            one.recv(1)


@pytest.mark.parametrize("path", PATHS)
def test_who_does_not_receive_stops_the_sender_alone(host: Host, listener: socket.socket, path: str) -> None:
    guest = exposed(host, path)
    with taken(listener, guest) as peer:
        filled = guest.call("tcp:fill", name="c")
        assert 0 < filled < 64 << 20  # both socket buffers, and no more
        assert guest.call("tcp:connect", name="d", address=HOST, port=listener.getsockname()[1]) is None
        other, _ = listener.accept()
        with other:
            sending = guest.begin("tcp:send", name="d", seed=3, total=400_000)
            assert drained_of(other, 400_000) == sending.result()
        waited = host.metrics().value("network_tcp_waited_requests_total", partition="talker")
        assert waited >= 1
        going = guest.begin("tcp:go_on", name="c")
        drained_of(peer, filled + 65536)
        assert going.result() is None


@pytest.mark.parametrize("path", PATHS)
def test_a_full_socket_holds_up_nobody_else(host: Host, listener: socket.socket, path: str) -> None:
    """Neither frames of the same NIC, nor connections of another guest at the same device and server."""
    guest, other = exposed(host, path), talker(host, "other", PEER, path)
    ear = host.guest("ear", nics=[{"name": "eth0", "path": path}], memory="8MiB")
    source, to = (end.call("offloads:open", nic="eth0", buffers=128) for end in (guest, ear))
    with taken(listener, guest) as peer:
        filled = guest.call("tcp:fill", name="c")
        assert other.call("tcp:connect", name="d", address=HOST, port=listener.getsockname()[1]) is None
        theirs, _ = listener.accept()
        theirs.settimeout(10.0)
        with theirs:
            sending = other.begin("tcp:send", name="d", seed=4, total=2_000_000)
            frames = [bytes(frame(bytes([number]) * 200, source=source, to=to)).hex() for number in range(60)]
            assert guest.call("offloads:send", nic="eth0", frames=frames, headed=False) == {}
            heard = ear.call("offloads:receive", nic="eth0", count=100, timeout=0.3)  # what goes to all, too
            assert [one for one in heard if one in frames] == frames
            assert drained_of(theirs, 2_000_000) == sending.result()
        going = guest.begin("tcp:go_on", name="c")  # it waited all the time
        drained_of(peer, filled + 65536)
        assert going.result() is None


def test_a_change_of_path_keeps_connections(host: Host, listener: socket.socket) -> None:
    """A request to receive that waits moves along; nothing of the stream is lost or repeated."""
    guest = exposed(host)
    data = random.Random(5).randbytes(900_000)
    with taken(listener, guest) as peer:
        for at, path in enumerate(("redirect", "copy", "direct")):
            waiting = guest.begin("tcp:receive", name="c", total=300_000)
            assert host.set_path("talker", "eth0", path)
            part = data[at * 300_000 : (at + 1) * 300_000]
            peer.sendall(part)
            assert waiting.result() == [hashlib.sha256(part).hexdigest(), 300_000]


def test_a_thousand_connections(host: Host) -> None:
    """Of one guest, all open at once, each with data of its own back and forth."""
    guest = exposed(host)
    assert guest.call("tcp:listen", name="l", port=80, backlog=1000) is None
    serving = guest.begin("tcp:echo", listener="l", ends=1000)
    clients = []
    for _ in range(1000):
        clients.append(socket.create_connection((GUEST, 80), 10.0))
    for number, client in enumerate(clients):
        client.sendall(b"%6d" % number)
    for number, client in enumerate(clients):
        assert client.recv(6, socket.MSG_WAITALL) == b"%6d" % number
    for client in clients:
        client.close()
    assert serving.result() == {"accepted": 1000, "most": 1000, "echoed": 6000}
    metrics = host.metrics()
    assert metrics.value("network_tcp_accepted_total", partition="talker") == 1000
    guest.call("tcp:end", name="l", how="close")


def test_limits_are_refused_by_name(host: Host) -> None:
    guest = talker(host, connections=2, ports=["80", "8000-8009"])
    assert guest.call("tcp:listen", name="a", port=81) == ["refused", "connection_port"]
    assert guest.call("tcp:connect", name="a", address=PEER, port=8010) == ["refused", "connection_port"]
    assert guest.call("tcp:listen", name="a", port=80) is None
    assert guest.call("tcp:listen", name="b", port=80) == ["refused", "connection_port"]  # it is in use
    assert guest.call("tcp:listen", name="b", port=8009) is None
    assert guest.call("tcp:listen", name="c", port=8000) == ["refused", "connection_limit"]
    assert guest.call("tcp:end", name="b", how="close") is None
    assert guest.call("tcp:listen", name="c", port=8000) is None
    plain = host.guest("plain", nics=["eth0"])
    assert plain.call("tcp:listen", name="a", port=80) == ["refused", "offload_withheld"]


@pytest.mark.parametrize("path", PATHS)
def test_hostile_requests_are_refused_and_counted(host: Host, path: str) -> None:
    victim, guest = talker(host, "victim", PEER), talker(host, path=path)
    assert victim.call("tcp:listen", name="l", port=80) is None
    assert guest.call("tcp:listen", name="l", port=80) is None  # slot 0, number 1, of both
    mine, last = 1 << 16, 0xFFFF_FFFF
    address = tcp_address(4, 80, 0, socket.inet_aton(PEER))
    cases = [
        ([OPEN, 5, 24, 0], "connection_unknown"),  # number 0
        ([OPEN, 1024 | 1 << 16, 24, 0], "connection_unknown"),  # slot too high
        ([OPEN, 5 | 1 << 16 | 1 << 40, 24, 0], "connection_unknown"),
        ([OPEN, mine, 24, 0], "connection_state"),  # in use
        ([OPEN, 5 | 1 << 16, 23, 0], "length_alignment"),
        ([OPEN, 5 | 1 << 16, 24, 2], "flags_unknown"),
        ([OPEN, 5 | 1 << 16, 24, 1], "offload_invalid"),  # listening without a backlog
        ([SEND, mine, 100, 0], "connection_state"),  # a listener
        ([SEND, 2 << 16, 100, 0], "connection_unknown"),  # another life
        ([SEND, 7 | 1 << 16, 100, 0], "connection_unknown"),
        ([SEND, mine, last, 0], "length_limit"),
        ([SEND, mine, 0, 0], "length_zero"),
        ([SEND, mine, 100, 1], "flags_unknown"),
        ([RECEIVE, mine, 100, 0], "connection_state"),
        ([RECEIVE, mine, last, 0], "length_limit"),
        ([RECEIVE, mine, 100, 1], "length_alignment"),
        ([RECEIVE, mine | 9 << 32, 24, 1], "connection_unknown"),  # the new one's number 0
        ([RECEIVE, mine, 64, 3], "flags_unknown"),
        ([RECEIVE, mine, 64, 2], "connection_state"),  # events are of no connection
        ([RECEIVE, 0, 63, 2], "length_alignment"),
        ([END, mine, 0, 0], "flags_unknown"),
        ([END, mine, 0, 1], "connection_state"),
        ([END, mine, 8, 2], "address_alignment"),
        ([END, 7 | 1 << 16, 0, 2], "connection_unknown"),
    ]
    guest.call("tcp:write", data=address.hex())
    if path == "copy":  # longer than all the buffers that the host may hold for it: looked at first
        cases = [(case, "budget" if case[2] == last else reason) for case, reason in cases]
    answers = guest.call("tcp:raw", requests=[case for case, _ in cases])
    assert [answer[1] for answer in answers] == [reason for _, reason in cases]
    assert {answer[0] for answer in answers} == {"refused"}
    refused = host.metrics().by("reason", "io_refused_total", partition="talker")
    wanted = Counter(reason for _, reason in cases)
    assert {reason: refused[reason] for reason in wanted} == wanted
    # A second request of a direction, beside one that waits.
    assert guest.call("tcp:raw", requests=[[RECEIVE, mine | 9 << 32 | 1 << 48, 24, 1]], timeout=0.1) == ["waits"]
    assert guest.call("tcp:raw", requests=[[RECEIVE, mine | 9 << 32 | 1 << 48, 24, 1]]) == [
        ["refused", "connection_state"]]  # fmt: skip
    assert victim.call("tcp:connect", name="c", address=GUEST, port=80) is None  # all is well with both


def namespaces(process: psutil.Process) -> set[str]:
    """Network namespaces that a process holds, by its threads and by its descriptors."""
    places = glob.glob(f"/proc/{process.pid}/task/*/ns/net") + glob.glob(f"/proc/{process.pid}/fd/*")
    found = set()
    for path in places:
        with suppress(OSError):
            found.add(os.readlink(path))
    return {name for name in found if name.startswith("net:")}


def test_a_killed_guest_leaves_nothing(host: Host, listener: socket.socket) -> None:
    """Its peers are reset at once; no socket and no descriptor of its is left in the device, and no interface."""
    nic = psutil.Process(host.pids()["nic0"])
    before, spaces = nic.num_fds(), namespaces(nic)
    guest = exposed(host)
    with taken(listener, guest) as peer:
        for number in range(20):
            assert guest.call("tcp:connect", name=f"{number}", address=HOST, port=listener.getsockname()[1]) is None
        assert nic.num_fds() > before + 20 and len(namespaces(nic)) == len(spaces) + 1
        waiting = guest.begin("tcp:receive", name="c", total=1)
        host.kill("talker")
        with pytest.raises(ConnectionResetError):
            peer.recv(1)
        with pytest.raises(EOFError):
            waiting.result()
    host.until(lambda: nic.num_fds() == before)
    assert namespaces(nic) == spaces
    assert not [one for one in socket.if_nameindex() if one[1] == "pv-talker"]


def test_an_unplugged_nic_takes_its_connections_along(host: Host, listener: socket.socket) -> None:
    guest = exposed(host)
    with taken(listener, guest) as peer:
        assert host.detach("talker", "eth0")["endpoint"] == "eth0"
        with pytest.raises(ConnectionResetError):
            peer.recv(1)
    assert not [one for one in socket.if_nameindex() if one[1] == "pv-talker"]
    with pytest.raises(HostError, match="from the start on"):
        host.attach("talker", nic={"name": "eth1", "addresses": [f"{GUEST}/24"], "tcp": {}})


def test_a_vlan_holds_for_connections(host: Host) -> None:
    server, inside = talker(host, "server", PEER, vlan=5), talker(host, "inside", vlan=5)
    outside = talker(host, "outside", "10.77.0.4", vlan=6)
    assert server.call("tcp:listen", name="l", port=80) is None
    assert inside.call("tcp:connect", name="c", address=PEER, port=80) is None
    assert outside.call("tcp:connect", name="c", address=PEER, port=80, timeout=0.5) == "timeout"


def test_a_takeover_keeps_streams(host: Host, listener: socket.socket) -> None:
    """The I/O partition in charge is killed while requests wait for their peers: nothing is lost or comes twice."""
    guest, total = exposed(host, "redirect"), 600_000
    data = random.Random(7).randbytes(total)
    with taken(listener, guest) as peer:
        waiting = guest.begin("tcp:receive", name="c", total=total)
        peer.sendall(data[:1000])
        os.kill(host.row("io-a")["pid"], signal.SIGKILL)
        peer.sendall(data[1000:])
        assert waiting.result() == [hashlib.sha256(data).hexdigest(), total]
        host.until(lambda: host.row("io-a")["state"] == "running")
        sending = guest.begin("tcp:send", name="c", seed=8, total=8_000_000)  # more than the sockets take
        os.kill(host.row("io-b")["pid"], signal.SIGKILL)
        assert drained_of(peer, 8_000_000) == sending.result()


def test_device_and_monitor_die_at_once(host: Host, listener: socket.socket) -> None:
    """The next process of each asks for the other: none waits for the one that waits for it."""
    guest = exposed(host)
    before = {name: host.row(name) for name in ("nic0", "monitor")}
    for row in before.values():
        os.kill(row["pid"], signal.SIGKILL)
    host.until(lambda: all(host.row(name)["restarts"] > row["restarts"] for name, row in before.items()))
    with taken(listener, guest):
        pass


def test_one_wire_too_many_is_refused_and_leaves_nothing(host: Host) -> None:
    for number in range(WIRES_MAX):
        talker(host, f"g{number}", f"10.77.0.{10 + number}", memory="4MiB")
    with pytest.raises(HostError, match="16 wires"):
        talker(host, "more")
    assert "more" not in host.rows()
    assert host.failed_checks() == []

"""Wires of a NIC device, spoken to by others: the host's stack, Linux's vxlan, a veth pair, tshark, scapy (U9, H7)."""

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hostd.errors import HostError
from tests.framework.host import Host, running
from tests.system.test_commands import DONE, hostctl
from tests.system.test_program_network import FETCH, needs, nic, run, serve

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="wires need root")
REPLAYED = "02:aa:aa:aa:aa:01"
# A veth pair never sums what a tunnel carries over it, as an adapter would: so the tunnel's own link does (SIOCETHTOOL,
# ETHTOOL_STXCSUM).
SUM_BEFORE_SENDING = """
import array, fcntl, socket, struct
value = array.array("I", [0x17, 0])
fcntl.ioctl(socket.socket(), 0x8946, struct.pack("16sP16x", b"vx0", value.buffer_info()[0]))
"""


def ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr.strip()}"
    return done.stdout


@contextmanager
def namespace() -> Iterator[str]:
    """A network namespace with a veth pair into it: pvw0 here, pvw1 there."""
    name = f"partvisor-test-{os.getpid()}-wire"
    ip("netns", "add", name)
    try:
        ip("link", "add", "pvw0", "type", "veth", "peer", "pvw1", "netns", name)
        try:
            ip("link", "set", "pvw0", "up")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", "pvw1", "up")
            yield name
        finally:
            # The kernel takes a namespace's own interfaces away some time after it is deleted: that might be after the
            # next pvw0 is made.
            ip("link", "del", "pvw0")
    finally:
        ip("netns", "del", name)


def host_of(*wires: dict[str, Any]) -> dict[str, Any]:
    return {
        "version": 1,
        "host": {"memory": "1GiB", "metrics": "127.0.0.1:0"},
        "devices": [{"name": "nic0", "kind": "nic", "wires": list(wires)}],
    }


def wire(host: Host, name: str) -> dict[str, Any]:
    return next(one for one in host.status()["host"]["wires"] if one["name"] == name)


def test_an_exposed_partition_and_the_host_talk(host: Host) -> None:
    """And the interface is named, listed, and gone with the partition."""
    links = set(os.listdir("/sys/class/net"))
    serve(host, expose={"addresses": ["10.97.0.1/24", "fd97::1/64"]}, addresses=("10.97.0.2/24", "fd97::2/64"))
    assert set(os.listdir("/sys/class/net")) - links == {"pv-web"}
    for url in ("http://10.97.0.2/", "http://[fd97::2]/"):
        subprocess.run(["curl", "-sSf", "--max-time", "10", url], check=True, capture_output=True)
    state = wire(host, "eth0")
    assert (state["partition"], state["interface"], state["kind"]) == ("web", "pv-web", "tap")
    assert state["frames_in"] > 5 and state["frames_out"] > 5 and state["learned"] == 1 and state["drops"] == {}
    assert state["addresses"] == ["10.97.0.1/24", "fd97::1/64"] and "reply" not in state
    shown = hostctl(host, "status")
    assert shown.status == DONE, shown.errors
    assert "pv-web 10.97.0.1/24 fd97::1/64" in shown.output
    with pytest.raises(HostError, match="10.97.0.1 belongs to eth0 of web"):
        host.spawn("other", ["sleep", "9"], nics=nic("10.97.0.1/24"))
    twice = {"name": "twice", "kind": "tap", "interface": "pvx2", "addresses": ["10.97.0.1/24"]}
    with pytest.raises(HostError, match="10.97.0.1/24 is an address of the host's pv-web already"):
        host.client.post("/v1/devices/nic0/wires", twice)
    host.remove("web")
    assert set(os.listdir("/sys/class/net")) == links
    assert host.status()["host"]["wires"] == []


def test_the_way_to_the_host_is_in_the_vlans_of_its_partition(host: Host) -> None:
    """And in no other one: of what the host asks there, a partition outside hears nothing."""
    host.spawn("outside", ["sleep", "60"], nics=nic("10.97.0.9/24", offloads=False), memory="16MiB")  # no probe frames
    serve(host, expose={"addresses": ["10.97.0.1/24"]}, addresses=("10.97.0.2/24",), vlan=5, trunk=[6, 7])
    subprocess.run(["curl", "-sSf", "--max-time", "10", "http://10.97.0.2/"], check=True, capture_output=True)
    state = wire(host, "eth0")
    assert (state["vlan"], state["trunk"]) == (5, [6, 7])
    assert state["frames_in"] > 5 and state["drops"] == {}
    assert host.metrics().value("network_receive_packets_total", partition="outside") == 0


@needs("iperf3")
def test_large_frames_go_to_the_host_and_back(host: Host) -> None:
    """TCP both ways between a partition and the host's stack, with offloads there and without."""
    for number, offloads in enumerate((True, False)):
        name = f"far{number}"
        host.spawn(name, ["iperf3", "-s", "-1", "--forceflush"], memory="32MiB",
                   nics=nic("10.97.0.2/24", offloads=offloads, expose={"addresses": ["10.97.0.1/24"]}))  # fmt: skip
        host.until(lambda name=name: "listening" in host.log(name))
        client = ["iperf3", "-J", "--bidir", "-t", "1", "-c", "10.97.0.2"]
        done = json.loads(subprocess.run(client, capture_output=True, text=True, timeout=20).stdout)
        assert "error" not in done
        assert done["end"]["sum_received"]["bytes"] > 1e6 and done["end"]["sum_received_bidir_reverse"]["bytes"] > 1e6
        host.remove(name)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What a wire saw of two fetches: over a tunnel whose other end is Linux's own, and between two partitions."""
    trace = tmp_path_factory.mktemp("wires") / "trace.pcap"
    with namespace() as name:
        ip("addr", "add", "198.18.55.1/24", "dev", "pvw0")
        ip("-n", name, "addr", "add", "198.18.55.2/24", "dev", "pvw1")
        tunnel = "id 42 remote 198.18.55.1 local 198.18.55.2 dstport 4789 dev pvw1"
        ip("-n", name, "link", "add", "vx0", "type", "vxlan", *tunnel.split())
        ip("-n", name, "addr", "add", "10.97.0.5/24", "dev", "vx0")
        subprocess.run(["ip", "netns", "exec", name, "python3", "-c", SUM_BEFORE_SENDING], check=True)
        ip("-n", name, "link", "set", "vx0", "mtu", "1450", "up")
        wires = (
            {"name": "far", "kind": "vxlan", "remote": "198.18.55.2:4789", "vni": 42},
            {"name": "trace", "kind": "pcap", "file": str(trace), "watches": True},
        )
        with running(host_of(*wires)) as host:
            serve(host, addresses=("10.97.0.2/24",), mtu=1450)
            fetch = ["ip", "netns", "exec", name, "python3", "-c", FETCH.format("http://10.97.0.2/")]
            subprocess.run(fetch, check=True, capture_output=True, timeout=20)
            run(host, "client", ["python3", "-c", FETCH.format("http://10.97.0.2/")], addresses=("10.97.0.9/24",))
            far = wire(host, "far")
            assert far["learned"] == 1 and far["frames_in"] > 5 and far["frames_out"] > 5
    yield trace


@needs("tshark")
def test_tshark_reads_what_was_recorded(recorded: Path) -> None:
    fields = ["-T", "fields", "-e", "ip.src", "-e", "tcp.dstport", "-e", "http.request.method"]
    done = subprocess.run(
        ["tshark", "-r", str(recorded), "-o", "tcp.check_checksum:TRUE", *fields, "-Y", "http.request"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert "10.97.0.5\t80\tGET" in done.stdout
    checked = ["tshark", "-r", str(recorded), "-o", "tcp.check_checksum:TRUE"]
    bad = [*checked, "-Y", "tcp.checksum.status == 0 || _ws.malformed"]
    assert subprocess.run(bad, check=True, capture_output=True, text=True).stdout == ""


def test_scapy_reads_what_was_recorded(recorded: Path) -> None:
    scapy = pytest.importorskip("scapy.all")
    frames = scapy.rdpcap(str(recorded))
    asked = [frame for frame in frames if frame.haslayer(scapy.ARP) and frame[scapy.ARP].pdst == "10.97.0.2"]
    assert asked and asked[0].dst == "ff:ff:ff:ff:ff:ff"


def test_frames_of_a_file_reach_every_partition(tmp_path: Path) -> None:
    scapy = pytest.importorskip("scapy.all")
    replay = tmp_path / "replay.pcap"
    frame = scapy.Ether(src=REPLAYED, dst="ff:ff:ff:ff:ff:ff") / scapy.IP(src="10.97.0.77", dst="10.97.0.255")
    scapy.wrpcap(str(replay), [frame / scapy.UDP(sport=7, dport=7000) / f"replayed {n}" for n in range(3)])
    hear = (
        "import socket; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 7000)); s.settimeout(10); "
        "print('ready', flush=True); print([s.recv(99).decode() for _ in range(3)], flush=True)"
    )
    with running(host_of()) as host:
        host.spawn("ear", ["python3", "-c", hear], nics=nic("10.97.0.2/24"), memory="16MiB")
        host.until(lambda: "ready" in host.log("ear"))
        sizes = host.client.post("/v1/devices/nic0/wires", {"name": "tape", "kind": "pcap", "replay": str(replay)})
        assert sizes["name"] == "tape"
        host.wait_for_end("ear")
        assert "['replayed 0', 'replayed 1', 'replayed 2']" in host.log("ear")
        state = wire(host, "tape")
        assert (state["frames_in"], state["learned"], state["drops"]) == (3, 1, {})
        metrics = host.metrics()
        assert metrics.value("wire_receive_packets_total", device="nic0", wire="tape") == 3
        assert metrics.value("wire_receive_bytes_total", device="nic0", wire="tape") == state["bytes_in"]
        shown = hostctl(host, "view", "--wires", "--json").json["wires"]
        assert [(one["name"], one["frames_in"], one["drops"]) for one in shown] == [("tape", 3, {})]
        assert "FRAMES IN" in hostctl(host, "view", "--wires").output
        host.client.request("DELETE", "/v1/devices/nic0/wires/tape")
        assert "wire_receive_packets_total" not in host.metrics().samples


def test_a_partition_behind_a_real_interface() -> None:
    """AF_PACKET on one end of a veth pair: the other end's stack, with its offloads, talks with a partition."""
    with namespace() as name:
        ip("-n", name, "addr", "add", "10.97.0.5/24", "dev", "pvw1")
        with running(host_of({"name": "lan", "kind": "packet", "interface": "pvw0"})) as host:
            serve(host, addresses=("10.97.0.2/24",))
            fetch = ["ip", "netns", "exec", name, "python3", "-c", FETCH.format("http://10.97.0.2/")]
            subprocess.run(fetch, check=True, capture_output=True, timeout=20)
            state = wire(host, "lan")
            assert state["learned"] == 1 and state["drops"] == {} and state["frames_in"] > 5


def test_nobody_outside_may_claim_the_address_of_a_partition() -> None:
    with namespace() as name, running(host_of({"name": "lan", "kind": "packet", "interface": "pvw0"})) as host:
        host.spawn("victim", ["sleep", "60"], nics=nic("10.97.0.2/24"), memory="16MiB")
        mac = bytes.fromhex(host.row("victim")["endpoints"][0]["mac"].replace(":", ""))
        code = (
            "import socket; s=socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(('pvw1', 0)); "
            f"s.send(b'\\xff'*6 + {mac!r} + b'\\x88\\xb5' + bytes(46))"
        )
        subprocess.run(["ip", "netns", "exec", name, "python3", "-c", code], check=True)
        host.until(lambda: wire(host, "lan")["drops"].get("frame_source"))
        found = host.metrics().series("wire_drops_total", wire="lan", direction="in", reason="frame_source")
        assert list(found.values()) == [wire(host, "lan")["drops"]["frame_source"]]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"kind": "packet", "interface": "pv-absent"}, "pv-absent: No such device"),
        ({"kind": "pcap", "replay": "/etc/hostname"}, "is no pcap file"),
        ({"kind": "pcap", "file": "/nowhere/x.pcap"}, "/nowhere/x.pcap: No such file"),
        ({"kind": "vxlan", "remote": "192.0.2.9", "vni": 1, "local": "192.0.2.77:1"}, "192.0.2.77:1: Cannot assign"),
    ],
)
def test_a_wire_that_cannot_be_made_says_why(host: Host, entry: dict[str, Any], words: str) -> None:
    with pytest.raises(HostError, match=f"wire up: .*{words}"):
        host.client.post("/v1/devices/nic0/wires", {"name": "up", **entry})
    assert host.status()["host"]["wires"] == []


def test_what_moves_behind_another_wire_is_found_there(host: Host) -> None:
    """Learning: the address of one interface, moved to another one of the host, is reached there at once."""
    code = (
        "import socket; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('10.97.0.2', 7)); "
        "print('ready', flush=True)\nwhile True: d, a = s.recvfrom(99); s.sendto(d, a)"
    )
    host.spawn("echo", ["python3", "-c", code], nics=nic("10.97.0.2/24"), memory="16MiB")
    host.until(lambda: "ready" in host.log("echo"))
    for name in ("pvx0", "pvx1"):
        entry = {"name": name, "kind": "tap", "interface": name}
        host.client.post("/v1/devices/nic0/wires", entry)
        ip("link", "set", name, "down")
        ip("link", "set", name, "address", "02:aa:00:00:00:09", "up")
    try:
        for name in ("pvx0", "pvx1", "pvx0"):
            ip("addr", "add", "10.97.0.9/24", "dev", name)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.settimeout(5)
                sock.sendto(name.encode(), ("10.97.0.2", 7))
                assert sock.recv(99) == name.encode()
            assert wire(host, name)["learned"] >= 1
            ip("addr", "del", "10.97.0.9/24", "dev", name)
    finally:
        for name in ("pvx0", "pvx1"):
            host.client.request("DELETE", f"/v1/devices/nic0/wires/{name}")
    assert not {"pvx0", "pvx1"} & set(os.listdir("/sys/class/net"))

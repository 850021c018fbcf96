"""What a NIC may leave to its device: who withholds what, what probes show, and what happens where it changes (A2)."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.l2 import Ether

from pyx import offload
from pyx.abi import OFFLOADS
from tests.framework.host import MANIFEST, Host, running
from tests.framework.packets import ACK, PSH, frame, objections, transport, without_checksum
from tests.framework.puppet import Puppet
from tests.system.test_offloads import headed

MTU_FRAME = 1514
SEGMENT = 1460
FRAMES = {name for name in OFFLOADS if name != "tcp"}  # connections need an address
SENT = {"checksum", "send_tcp4", "send_tcp6", "send_udp", "send_ecn"}
ELSEWHERE = "02:77:00:00:00:01"  # nowhere known, so frames to it go to all wires
TUNNEL = 8  # bytes of a VXLAN header
LARGE = {name for name in FRAMES if "checksum" not in name and name != "esp"}


def pair(host: Host, path: str = "direct", **nic: Any) -> tuple[Puppet, Puppet, str, str]:
    ends = {"name": "eth0", "path": path}
    sender = host.guest("sender", nics=[{**ends, **nic}], memory="16MiB")
    receiver = host.guest("receiver", nics=[ends], memory="16MiB")
    source = sender.call("offloads:open", nic="eth0", buffers=16, headed=True)
    return sender, receiver, source, receiver.call("offloads:open", nic="eth0", buffers=256, size=MTU_FRAME)


def view(host: Host, name: str) -> dict[str, dict[str, Any]]:
    rows = host.client.get(f"/v1/partitions/{name}/capabilities")["capabilities"]
    return {row["capability"]: row for row in rows}


def weaken(host: Host, *offloads: str, lies: bool = False) -> None:
    """nic0 does not do these any more, and all others again."""
    host.client.post("/v1/chaos/weaken", {"role": "nic0", "offloads": list(offloads), "lies": lies})


def follow_up(host: Host, *offloads: str, lies: bool = False) -> None:
    """nic0 gets another process, which does not do these from its start on; returns when drivers are told of it."""
    before = host.row("nic0")["restarts"]
    host.client.post("/v1/chaos/weaken", {"role": "nic0", "offloads": list(offloads), "lies": lies, "restart": True})
    assert host.row("nic0")["restarts"] == before + 1
    host.until(lambda: {row["proved"] for row in view(host, "sender").values()} == {None})
    if not lies:
        told = {name for name, row in view(host, "sender").items() if "device" in row["withheld_by"]}
        assert told == set(offloads)


@pytest.fixture
def strong(host: Host) -> Iterator[None]:
    yield
    for lies in (False, True):
        weaken(host, lies=lies)


def exchange(sender: Puppet, receiver: Puppet, source: str, to: str, number: int) -> list[bytes]:
    """A large frame of its own bytes through the driver; its pieces as the receiver got them, which takes no header."""
    packet = frame(random.Random(number).randbytes(14000), source=source, to=to, flags=ACK | PSH, identity=number)
    sender.call("offloads:send_large", nic="eth0", frames=[without_checksum(packet).hex()], segment=SEGMENT)
    pieces = [bytes.fromhex(text) for text in receiver.call("offloads:receive", nic="eth0", count=10)]
    assert b"".join(bytes(transport(Ether(piece)).payload) for piece in pieces) == bytes(transport(packet).payload)
    assert max(map(len, pieces)) <= MTU_FRAME
    return pieces


@pytest.mark.parametrize("path", ["redirect", "direct"])
def test_all_is_granted_and_proved_by_probes(host: Host, path: str) -> None:
    sender, *_ = pair(host, path)
    told = sender.call("offloads:prove", nic="eth0")
    assert told.pop("tcp") == {"granted": False, "withheld_by": ["policy"], "proved": None}
    wanted = {name: {"granted": True, "withheld_by": [], "proved": True} for name in FRAMES}
    if path != "direct":
        wanted["esp"] = {"granted": False, "withheld_by": ["path"], "proved": None}  # keys need a queue pair
    assert told == wanted
    shown = view(host, "sender")
    assert {name: row["proved"] for name, row in shown.items() if name in FRAMES} == {
        name: row["proved"] for name, row in wanted.items()}  # fmt: skip
    assert {row["proved"] for row in view(host, "receiver").values()} == {None}  # it has tried nothing


def test_who_withholds_is_named(host: Host) -> None:
    sender, *_ = pair(host, "copy", limits={"offloads": ["checksum", "send_tcp4", "receive_checksum"]})
    told = sender.call("offloads:prove", nic="eth0")
    assert told["checksum"] == {"granted": True, "withheld_by": [], "proved": True}
    assert told["receive_checksum"] == {"granted": True, "withheld_by": [], "proved": True}
    assert told["send_tcp4"] == {"granted": False, "withheld_by": ["path"], "proved": None}
    assert told["send_udp"] == {"granted": False, "withheld_by": ["path", "policy"], "proved": None}
    assert {name: (row["granted"], row["withheld_by"]) for name, row in view(host, "sender").items()} == {
        name: (row["granted"], row["withheld_by"]) for name, row in told.items()}  # fmt: skip


def test_a_change_of_path_moves_the_work_and_nobody_sees_it(host: Host, tmp_path: Path) -> None:
    """Without reconnecting: the conventional path carries no large frames, so the driver cuts them, and back."""
    sender, receiver, source, to = pair(host)
    everything: list[bytes] = []
    cut = []
    for number, path in enumerate(["direct", "copy", "redirect", "copy", "direct"]):
        following = sender.begin("offloads:follow", nic="eth0", path=path)
        host.set_path("sender", "eth0", path)
        following.result()
        everything += exchange(sender, receiver, source, to, number)
        cut.append(host.metrics().value("network_cut_packets_total", partition="sender"))
        granted = {name for name, row in view(host, "sender").items() if row["granted"]}
        withheld = {"direct": set(), "redirect": {"esp"}, "copy": {*LARGE, "esp"}}[path]
        assert granted == FRAMES - withheld
    assert [after > before for before, after in zip(cut, cut[1:], strict=False)] == [False, True, False, True]
    assert objections(tmp_path, everything) in ([], None)


@pytest.mark.usefixtures("strong")
@pytest.mark.parametrize("lie", ["checksum", "send_tcp4", "receive_checksum"])
def test_a_device_that_lies_is_caught(host: Host, lie: str) -> None:
    """Its work is done by the driver from then on: what arrives is right."""
    sender, receiver, source, to = pair(host)
    weaken(host, lie, lies=True)
    told = sender.call("offloads:prove", nic="eth0")
    assert told[lie] == {"granted": True, "withheld_by": [], "proved": False}
    assert view(host, "sender")[lie]["proved"] is False
    pieces = exchange(sender, receiver, source, to, 1)
    assert all(offload.valid(piece) for piece in pieces)


def test_a_weaker_device_takes_over(host: Host) -> None:
    """It says what it cannot do: from the next frame on the driver does it, and no longer when the device can again."""
    sender, receiver, source, to = pair(host)
    exchange(sender, receiver, source, to, 1)
    weaken(host, *LARGE, "checksum")
    done = host.metrics().value("network_completed_checksums_total", partition="sender")
    shown = view(host, "sender")
    assert {row["capability"] for row in shown.values() if row["withheld_by"] == ["device"]} == {*LARGE, "checksum"}
    assert all(offload.valid(piece) for piece in exchange(sender, receiver, source, to, 2))
    assert host.metrics().value("network_completed_checksums_total", partition="sender") == done
    weaken(host)
    exchange(sender, receiver, source, to, 3)
    assert host.metrics().value("network_completed_checksums_total", partition="sender") == done + 10


@pytest.mark.usefixtures("strong")
@pytest.mark.parametrize("path", ["redirect", "direct"])
def test_a_weaker_process_of_the_device_takes_over(host: Host, path: str) -> None:
    """The next process does less, the one after it everything, the third one lies. Nobody connects anew; what an
    earlier process showed is not believed of the next one."""
    sender, receiver, source, to = pair(host, path)
    exchange(sender, receiver, source, to, 1)
    weak = {*LARGE, "checksum"}
    shown = FRAMES if path == "direct" else FRAMES - {"esp"}
    for number, (missing, pieces) in enumerate(((weak, 0), (set(), 10)), start=2):
        follow_up(host, *missing)
        told = sender.call("offloads:prove", nic="eth0")
        assert {name for name, row in told.items() if row["proved"]} == shown - missing, told
        done = completed(host)
        assert all(offload.valid(piece) for piece in exchange(sender, receiver, source, to, number))
        assert completed(host) == done + pieces
    follow_up(host, "checksum", lies=True)
    assert all(offload.valid(piece) for piece in exchange(sender, receiver, source, to, 4))
    assert view(host, "sender")["checksum"]["proved"] is False


@pytest.mark.usefixtures("strong")
@pytest.mark.parametrize("path", ["copy", "direct"])
def test_what_a_program_leaves_to_the_device_is_proved_at_its_attach(host: Host, path: str) -> None:
    """By the process above it, before its first frame; and of the next process of the device, which lies."""
    nic = {"name": "eth0", "path": path, "addresses": ["10.98.0.2/24"], "queues": 2}
    host.spawn("program", ["sleep", "600"], nics=[nic], memory="16MiB")
    shown = FRAMES - {"esp"} - (LARGE if path == "copy" else set())

    def proved(value: bool | None) -> set[str]:
        rows = host.client.get("/v1/partitions/program/capabilities")["capabilities"]
        pairs = [{row["capability"] for row in rows if row["endpoint"] == name and row["proved"] is value}
                 for name in ("eth0", "eth0-q1")]  # fmt: skip
        return set.intersection(*pairs)

    host.until(lambda: proved(True) == shown, explain=lambda: proved(True))
    host.client.post("/v1/chaos/weaken", {"role": "nic0", "offloads": ["checksum"], "lies": True, "restart": True})
    host.until(lambda: proved(False) == {"checksum"} and "receive_checksum" in proved(True))
    assert not any(name.startswith("send") for name in proved(True))


def test_limits_of_a_device_hold_for_all_its_endpoints() -> None:
    """What the host's description takes from a NIC is withheld by the device, whatever an endpoint's own limits say."""
    devices = [{**device, **({"limits": {"offloads": ["checksum"]}} if device["kind"] == "nic" else {})}
               for device in MANIFEST["devices"]]  # fmt: skip
    with running({**MANIFEST, "devices": devices}) as host:
        sender, receiver, source, to = pair(host)
        told = sender.call("offloads:prove", nic="eth0")
        assert {name for name, row in told.items() if row["granted"]} == {"checksum"}
        assert all(row["withheld_by"] == ["device"] for name, row in told.items() if name in FRAMES - {"checksum"})
        assert all(offload.valid(piece) for piece in exchange(sender, receiver, source, to, 1))


@contextmanager
def tunnel(host: Host, **facts: Any) -> Iterator[socket.socket]:
    """A wire to the other end of a tunnel, which the test holds; gone at the end."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
        near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)  # for a number that is free
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        far.settimeout(5)
        for one in (far, near):
            one.bind(("127.0.0.1", 0))
        ends = [f"127.0.0.1:{one.getsockname()[1]}" for one in (far, near)]
        near.close()
        wire = {"name": "far", "kind": "vxlan", "remote": ends[0], "local": ends[1], "vni": 7, **facts}
        host.client.post("/v1/devices/nic0/wires", wire)
        try:
            yield far
        finally:
            host.client.request("DELETE", "/v1/devices/nic0/wires/far")


def send_away(sender: Puppet, source: str, far: socket.socket, number: int, driver: bool = True) -> None:
    """A large frame of its own bytes to nobody known; its pieces come out of the tunnel finished. Without `driver` the
    device is to finish it, whatever was negotiated."""
    packet = frame(random.Random(number).randbytes(14000), source=source, to=ELSEWHERE, flags=ACK | PSH)
    if driver:
        sender.call("offloads:send_large", nic="eth0", frames=[without_checksum(packet).hex()], segment=SEGMENT)
    else:
        sender.call("offloads:send", nic="eth0", frames=[headed(packet, SEGMENT)])
    pieces = [far.recv(70000)[TUNNEL:] for _ in range(10)]
    assert b"".join(bytes(transport(Ether(piece)).payload) for piece in pieces) == bytes(transport(packet).payload)
    assert max(map(len, pieces)) <= MTU_FRAME and all(offload.valid(piece) for piece in pieces)


def completed(host: Host) -> float:
    return host.metrics().value("network_completed_checksums_total", partition="sender")


def test_a_peer_that_takes_less_withholds_while_it_is_there(host: Host) -> None:
    """Nobody connects anew: driver and device change the work over between two frames, and back."""
    sender, receiver, source, to = pair(host)
    exchange(sender, receiver, source, to, 1)
    done = completed(host)
    with tunnel(host) as far:
        shown = view(host, "sender")
        assert {name for name, row in shown.items() if row["withheld_by"] == ["peer"]} == SENT
        assert {tuple(row["peers"]) for name, row in shown.items() if name in SENT} == {("far",)}
        told = sender.call("offloads:prove", nic="eth0")
        assert {name for name, row in told.items() if row["withheld_by"] == ["peer"] and not row["granted"]} == SENT
        send_away(sender, source, far, 2)
        exchange(sender, receiver, source, to, 3)
        assert completed(host) == done
        send_away(sender, source, far, 4, driver=False)  # one that did not look yet
        assert completed(host) == done + 10
    assert all(row["granted"] and row["peers"] == [] for name, row in view(host, "sender").items() if name in FRAMES)
    exchange(sender, receiver, source, to, 5)
    assert completed(host) == done + 20


def test_a_peer_withholds_from_nobody_else(host: Host) -> None:
    """Neither from other VLANs, nor what the host's description leaves to the device, nor where it only watches."""
    pair(host, vlan=5)
    with tunnel(host, offloads=["checksum", "send_tcp4"]):
        assert all(row["withheld_by"] == [] for name, row in view(host, "sender").items() if name in FRAMES)
        withheld = {name for name, row in view(host, "receiver").items() if row["withheld_by"] == ["peer"]}
        assert withheld == SENT - {"checksum", "send_tcp4"}
    for facts, names in (({"vlan": 5}, ["sender"]), ({"trunk": [4, 5]}, ["sender"]), ({"watches": True}, [])):
        with tunnel(host, **facts):
            weakened = [name for name in ("sender", "receiver") if not view(host, name)["checksum"]["granted"]]
            assert weakened == names, facts


@pytest.mark.skipif(os.geteuid() != 0, reason="an interface of the host needs root")
@pytest.mark.parametrize("takes", [[], ["checksum"]])
def test_an_interface_gets_no_more_than_it_takes(host: Host, takes: list[str]) -> None:
    """Frames as the host's kernel sees them: of the MTU, and finished where its TAP has no header."""
    sender, _, source, _ = pair(host)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as ear:
        wire = {"name": "near", "kind": "tap", "interface": "pvx7", "offloads": takes}
        host.client.post("/v1/devices/nic0/wires", wire)
        ear.bind(("pvx7", 3))
        ear.settimeout(5)
        whole = frame(random.Random(6).randbytes(5000), source=source, to=ELSEWHERE, flags=ACK)
        for call, content in (("send_large", without_checksum(whole).hex()), ("send", headed(whole, SEGMENT))):
            more = {"segment": SEGMENT} if call == "send_large" else {}
            sender.call(f"offloads:{call}", nic="eth0", frames=[content], **more)
            pieces = []
            while len(pieces) < 4:
                raw = ear.recv(70000)
                if raw[6:12].hex(":") == source:
                    pieces.append(raw)
            assert max(map(len, pieces)) <= MTU_FRAME
            assert takes or all(offload.valid(piece) for piece in pieces)
        assert view(host, "sender")["send_tcp4"]["withheld_by"] == ["peer"]
        assert view(host, "sender")["checksum"]["granted"] == bool(takes)
        host.client.request("DELETE", "/v1/devices/nic0/wires/near")

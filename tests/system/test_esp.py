"""ESP by a NIC device between real guests: scapy opens what it seals, it opens what scapy made, and what is not right
is dropped and counted; and nobody but guest and device ever has a key (A2, A5; RFC 4303, 4106)."""

from __future__ import annotations

import base64
import os
import random
import secrets
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from pyx import esp, offload
from tests.framework.host import Host
from tests.framework.packets import ACK, frame, transport, without_checksum
from tests.framework.puppet import Puppet
from tests.framework.sealing import ENDS, KEYS, NETWORKS, SPI, TUNNELS, plain_packet, scapy_association, sealed_by_scapy

if esp.missing():
    pytest.skip(f"no ESP here: {esp.missing()}", allow_module_level=True)
pytest.importorskip("cryptography", reason="scapy needs the package `cryptography` for ESP")

BACK = {version: ends[::-1] for version, ends in ENDS.items()}
MODES = [("transport", 4, 4), ("transport", 6, 6), ("tunnel", 4, 6), ("tunnel", 6, 4)]
SEGMENT = 1300


@pytest.fixture
def ends(host: Host) -> tuple[Puppet, Puppet, str, str]:
    nic = {"name": "eth0", "path": "direct"}
    sender = host.guest("sender", nics=[nic], memory="16MiB")
    receiver = host.guest("receiver", nics=[nic], memory="16MiB")
    return (sender, receiver, *(end.call("offloads:open", nic="eth0", buffers=64) for end in (sender, receiver)))


def add(end: Puppet, direction: str, mode: str = "transport", version: int = 4, inner: int = 4, **given: Any) -> None:
    way = [direction, SPI, *(TUNNELS if mode == "tunnel" else ENDS)[version]]
    carried = {"inner": NETWORKS[inner]} if mode == "tunnel" else {}
    end.call("associations:add", nic="eth0", way=way, mode=mode, **carried, **{"key": KEYS[16].hex(), **given})


def send(end: Puppet, *frames: bytes, headed: bool = False) -> None:
    end.call("offloads:send", nic="eth0", frames=[raw.hex() for raw in frames], headed=headed)


def receive(end: Puppet, count: int, timeout: float = 5.0) -> list[bytes]:
    return [bytes.fromhex(text) for text in end.call("offloads:receive", nic="eth0", count=count, timeout=timeout)]


def drops(host: Host, name: str, way: str = "receive") -> dict[str, int]:
    series = host.metrics().series(f"network_{way}_drops_total", partition=name)
    return {dict(labels)["reason"]: int(value) for labels, value in series.items() if value}


def counts(host: Host) -> list[int]:
    metrics = host.metrics()
    return [int(metrics.value(f"network_{what}_packets_total", partition=name))
            for what, name in (("sealed", "sender"), ("opened", "receiver"))]  # fmt: skip


@pytest.mark.parametrize(("mode", "version", "inner"), MODES)
def test_scapy_opens_what_the_device_seals_and_the_other_way(
    host: Host, ends: tuple[Puppet, Puppet, str, str], mode: str, version: int, inner: int
) -> None:
    sender, receiver, source, to = ends
    for length, key in KEYS.items():
        add(sender, "out", mode, version, inner, key=key.hex())
        plain = [plain_packet(inner, random.randbytes(size), source=source, to=to) for size in (1, 1400)]
        send(sender, *map(bytes, plain))
        for number, (packet, sealed) in enumerate(zip(plain, receive(receiver, 2), strict=True), 1):
            outer = Ether(sealed)[IP if version == 4 else IPv6]
            opened = scapy_association(mode, version, key).decrypt(outer)
            assert bytes(opened) == bytes(packet[IP if inner == 4 else IPv6]), (length, number)
        way = [SPI, *(TUNNELS if mode == "tunnel" else ENDS)[version]]
        sender.call("associations:remove", nic="eth0", way=["out", *way])
        add(receiver, "in", mode, version, inner, key=key.hex())
        send(sender, *(sealed_by_scapy(packet, mode, version, key, number) for number, packet in enumerate(plain, 1)))
        opened_frames = receive(receiver, 2)
        kind = IP if inner == 4 else IPv6
        # without IPv4's header: scapy leaves that to the kernel, which fills in its sum
        arrived = [bytes(Ether(raw)[kind].payload) for raw in opened_frames]
        assert arrived == [bytes(packet[kind].payload) for packet in plain]
        assert all(offload.valid(raw) for raw in opened_frames)
        receiver.call("associations:remove", nic="eth0", way=["in", *way])
    sealed_in_all = host.metrics().value("network_sealed_packets_total", partition="sender")
    assert sealed_in_all == 2 * len(KEYS) + 1  # its own probe


def test_what_is_not_right_is_dropped_by_reason(host: Host, ends: tuple[Puppet, Puppet, str, str]) -> None:
    sender, receiver, source, to = ends
    add(receiver, "in")
    before = drops(host, "receiver")  # of its own probes: one altered, one replayed
    plain = plain_packet(4, b"p" * 200, source=source, to=to)
    good = [sealed_by_scapy(plain, "transport", 4, KEYS[16], number) for number in range(1, 101)]
    cut = Ether(good[1])
    cut[IP].len, cut[IP].chksum = 20 + 30, None
    reversed_frame = sealed_by_scapy(plain, "transport", 4, KEYS[16], 102, spi=SPI + 1)
    lying = esp.Association("out", SPI, *ENDS[4], key=KEYS[16], sequence=110)
    other = plain_packet(4, b"q", source=source, to=to)
    bad = Ether(lying.seal(bytes(other)))
    bad[IP].src, bad[IP].chksum = "10.1.2.77", None
    send(sender, good[0], good[0],                       # replayed
         good[99], good[3],                              # older than the window
         good[90][:-3] + bytes((good[90][-3] ^ 4,)) + good[90][-2:],  # altered
         bytes(cut)[:64], good[91][:-9],                 # cut: with and without an IP header that says so
         reversed_frame,                                 # nobody's
         bytes(plain),                                   # plain
         bytes(bad),                                     # authentic, from another
         good[92])  # fmt: skip
    arrived = receive(receiver, 3)
    assert [bytes(Ether(raw)[IP].payload) for raw in arrived] == [bytes(plain[IP].payload)] * 3
    after = drops(host, "receiver")
    assert {name: count - before.get(name, 0) for name, count in after.items() if count != before.get(name, 0)} == {
        "esp_replayed": 2, "esp_altered": 1, "esp_truncated": 2, "esp_unknown": 1, "esp_policy": 2}  # fmt: skip
    assert receive(receiver, 1, 0.1) == []


def test_numbers_run_out_and_the_frame_does_not_go_plain(host: Host, ends: tuple[Puppet, Puppet, str, str]) -> None:
    sender, receiver, source, to = ends
    add(sender, "out", sequence=2**32 - 2)
    plain = bytes(plain_packet(4, b"one and no more", source=source, to=to))
    send(sender, plain, plain)
    (sealed,) = receive(receiver, 2, 0.3)
    assert sealed[34 + 4 : 34 + 8] == b"\xff" * 4
    assert drops(host, "sender", "transmit")["esp_exhausted"] == 1


def test_large_frames_are_cut_sealed_and_opened(host: Host, ends: tuple[Puppet, Puppet, str, str]) -> None:
    """Checksums and cuts come first, as on a wire; with numbers of 64 bits across the border of 32."""
    sender, receiver, source, to = ends
    start = 2**32 - 5
    add(sender, "out", extended=True, sequence=start)
    add(receiver, "in", extended=True, sequence=start)
    payload = random.randbytes(20 * SEGMENT)
    packet = frame(payload, source=source, to=to, flags=ACK)
    sender.call("offloads:send_large", nic="eth0", frames=[without_checksum(packet).hex()], segment=SEGMENT)
    pieces = receive(receiver, 20)
    assert b"".join(bytes(transport(Ether(piece)).payload) for piece in pieces) == payload
    assert all(offload.valid(piece) for piece in pieces)
    assert host.metrics().value("network_opened_packets_total", partition="receiver") == 20 + 2  # and its own probes


def test_orders_are_checked(host: Host, ends: tuple[Puppet, Puppet, str, str]) -> None:
    sender, *_ = ends
    order = bytes(esp.order("out", SPI, *ENDS[4], key=KEYS[16]))
    for place, value in ((0, 9), (4, 0), (8, 3), (9, 7), (10, 5), (12, 2), (13, 17), (62, 1)):
        bad = bytearray(order)
        bad[place] = value
        if place == 4:
            bad[4:8] = bytes(4)
        assert sender.call("associations:raw", nic="eth0", order=bad.hex()) == "offload_invalid", place
    assert sender.call("associations:raw", nic="eth0", order=order[:-1].hex()) == "frame_size"
    way = ["out", SPI, *ENDS[4]]
    key = KEYS[16].hex()
    assert sender.call("associations:attempt", nic="eth0", way=way, key=key) == ""
    assert "offload_invalid" in sender.call("associations:attempt", nic="eth0", way=way, key=key)
    told = [sender.call("associations:attempt", nic="eth0", way=["out", SPI + number, *ENDS[4]], key=key)
            for number in range(1, 33)]  # fmt: skip
    assert told[:-1] == [""] * 31 and "list_limit" in told[-1]


def test_on_other_paths_nothing_goes_plain(host: Host, ends: tuple[Puppet, Puppet, str, str]) -> None:
    """A key travels over the queue pair alone; elsewhere frames for an association are refused, not sent as is."""
    sender, receiver, source, to = ends
    add(sender, "out")
    plain = bytes(plain_packet(4, b"not for the I/O partition", source=source, to=to))
    for path in ("redirect", "copy"):
        following = sender.begin("offloads:follow", nic="eth0", path=path)
        host.set_path("sender", "eth0", path)
        following.result()
        with pytest.raises(Exception, match="offload_withheld"):
            send(sender, plain)
        told = sender.call("associations:attempt", nic="eth0", way=["out", SPI + 1, *ENDS[4]], key=KEYS[16].hex())
        assert told.endswith("ESP is withheld by path")
        order = bytes(esp.order("out", SPI + 2, *ENDS[4], key=KEYS[16]))
        assert sender.call("associations:raw", nic="eth0", order=order.hex()) == "operation_unknown"
    following = sender.begin("offloads:follow", nic="eth0", path="direct")
    host.set_path("sender", "eth0", "direct")
    following.result()
    send(sender, plain)
    (sealed,) = receive(receiver, 2, 0.3)
    assert b"not for" not in sealed


def test_associations_are_those_of_the_whole_nic(host: Host) -> None:
    """Of NICs with several queue pairs: what any pair sends is sealed, each flow stays in order while the number of
    pairs changes under it, and without the associations of the sender nothing comes in."""
    ends = ("10.0.0.1", "10.0.0.2")  # of tests/system/guests/flows.py
    sender, receiver = (
        host.guest(name, nics=[{"name": "eth0", "path": "direct", "queues": queues}], memory="16MiB")
        for name, queues in (("sender", 2), ("receiver", 4))
    )
    for end in (sender, receiver):
        address = end.call("offloads:open", nic="eth0", buffers=64)
    way = [SPI, *ends]
    for end, direction in ((sender, "out"), (receiver, "in")):
        end.call("associations:add", nic="eth0", way=[direction, *way], key=KEYS[16].hex())
    before = counts(host)
    taking = receiver.begin("flows:receive", nic="eth0", seed=1)
    sending = sender.begin("flows:send", nic="eth0", peer=address.replace(":", ""), seed=1)
    for count in (1, 3, 2, 4):
        host.set_queues("receiver", "eth0", count)
        time.sleep(0.05)
    sent, took = sending.finish(), taking.finish()
    assert sent["dropped"] == {} and sum(sent["sent"]) > 100
    assert took["disordered"] == 0 and took["next"] == sent["sent"]
    assert [after - old for after, old in zip(counts(host), before, strict=True)] == [sum(sent["sent"])] * 2
    assert min(sent["given"]) > 20, sent["given"]
    sender.call("associations:remove", nic="eth0", way=["out", *way])
    sending = sender.begin("flows:send", nic="eth0", peer=address.replace(":", ""), seed=2)
    time.sleep(0.05)
    plain = sum(sending.finish()["sent"])
    lost = host.metrics().value("network_receive_drops_total", partition="receiver", reason="esp_policy")
    assert lost == plain > 0
    assert receive(receiver, 1, timeout=0.05) == []


def weaken(host: Host, lies: bool = False, *, names: tuple[str, ...] = ("esp",)) -> None:
    host.client.post("/v1/chaos/weaken", {"role": "nic0", "offloads": list(names), "lies": lies})


@pytest.fixture
def strong(host: Host) -> Iterator[None]:
    yield
    weaken(host, names=())
    weaken(host, True, names=())


@pytest.mark.usefixtures("strong")
def test_a_device_that_lies_is_caught_and_one_that_cannot_says_so(
    host: Host, ends: tuple[Puppet, Puppet, str, str]
) -> None:
    sender, receiver, source, to = ends
    add(receiver, "in")
    plain = bytes(plain_packet(4, b"sealed or not at all", source=source, to=to))
    weaken(host, True)
    way = ["out", SPI, *ENDS[4]]
    told = sender.call("associations:attempt", nic="eth0", way=way, key=KEYS[16].hex())
    assert told.endswith("ESP is not what the device says")
    rows = host.client.get("/v1/partitions/sender/capabilities")["capabilities"]
    (row,) = [row for row in rows if row["capability"] == "esp"]
    assert (row["granted"], row["proved"]) == (True, False)
    weaken(host, True, names=())
    weaken(host)
    told = receiver.call("associations:attempt", nic="eth0", way=["in", SPI + 1, *ENDS[4]], key=KEYS[16].hex())
    assert told.endswith("ESP is withheld by device")
    before = drops(host, "receiver")
    send(sender, sealed_by_scapy(Ether(plain), "transport", 4, KEYS[16], 1), plain)
    assert receive(receiver, 1, 0.2) == []
    after = drops(host, "receiver")
    assert after["offload_withheld"] == before.get("offload_withheld", 0) + 1
    assert after["esp_policy"] == before.get("esp_policy", 0) + 1


def test_limits_withhold_it(host: Host) -> None:
    nic = {"name": "eth0", "path": "direct", "limits": {"offloads": ["checksum"]}}
    guest = host.guest("limited", nics=[nic])
    guest.call("offloads:open", nic="eth0", buffers=8)
    told = guest.call("associations:attempt", nic="eth0", way=["out", SPI, *ENDS[4]], key=KEYS[16].hex())
    assert told.endswith("ESP is withheld by policy")
    order = bytes(esp.order("out", SPI, *ENDS[4], key=KEYS[16]))
    assert guest.call("associations:raw", nic="eth0", order=order.hex()) == "offload_withheld"


def holds(pid: int, needles: list[bytes], kinds: str = "sp") -> bool:
    """Does any writable memory of a process, s shared or p private, hold one of these?"""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            first, last = (int(text, 16) for text in line.split()[0].split("-"))
            rights = line.split()[1]
            if "w" not in rights or rights[3] not in kinds or "[v" in line:
                continue
            at, rest = first, b""
            while at < last:
                try:
                    memory.seek(at)
                    part = memory.read(min(1 << 24, last - at))
                except OSError:  # a reserved or poisoned page
                    part = b""
                if any(needle in rest + part for needle in needles):
                    return True
                rest = part[-64:]
                at += len(part) or min(1 << 21, last - at)
    return False


@pytest.mark.root
def test_nobody_else_has_a_key(host: Host, ends: tuple[Puppet, Puppet, str, str]) -> None:
    """Memory of every process of the host, files, logs, events, metrics and what the API shows; the device itself is
    the proof that the search would see it (the first round of AES has the key as it is)."""
    if os.geteuid() != 0:
        pytest.skip("reads other processes' memory: needs root")
    sender, receiver, source, to = ends
    key = secrets.token_bytes(20)
    add(sender, "out", key=key.hex())
    send(sender, bytes(plain_packet(4, b"x", source=source, to=to)))
    assert receive(receiver, 1)
    needles = [key[:16], key[:16].hex().encode(), base64.b64encode(key[:15])]
    found = {process.pid for process in host.processes() if holds(process.pid, needles)}
    (device,) = [row["pid"] for row in host.status()["processes"] if row["name"] == "nic0"]
    family = {process.pid for process in host.processes() if process.pid == sender.pid
              or sender.pid in {parent.pid for parent in process.parents()}}  # fmt: skip
    assert device in found and not found - {device} - family, (found, device, family)
    assert not holds(sender.pid, needles, "s")  # the driver has overwritten what the device read
    with urllib.request.urlopen(host.metrics_url) as page:
        documents = [page.read().decode()]
    for path in ("status", "export", "resources", "partitions/sender/capabilities", "partitions/sender/view",
                 "partitions/sender/logs", "partitions/nic0/logs", "partitions/monitor/logs"):  # fmt: skip
        documents.append(str(host.client.get(f"/v1/{path}")))
    documents += [str(event) for event in host.client.lines("/v1/events")]
    assert all(needle.decode() not in text for text in documents for needle in needles[1:])
    for path in host.folder.rglob("*"):
        if path.is_file():
            assert not any(needle in path.read_bytes() for needle in needles), path


def test_without_its_keys_an_endpoint_passes_nothing(host: Host, ends: tuple[Puppet, Puppet, str, str]) -> None:
    """The keys die with the device's process. The next one does not know what was to be sealed, so nothing goes out in
    plain, or comes in, at the endpoints that had associations."""
    sender, receiver, source, to = ends
    add(sender, "out")
    packet = plain_packet(4, b"for nobody else", source=source, to=to)
    send(sender, bytes(packet))
    assert len(receive(receiver, 1)) == 1
    process = host.row("nic0")
    os.kill(process["pid"], signal.SIGKILL)
    host.until(lambda: host.row("nic0")["restarts"] > process["restarts"])
    told = sender.call("offloads:attempt", nic="eth0", raw=bytes(packet).hex())
    assert told == "esp_unknown"
    assert sender.call("associations:attempt", nic="eth0", way=["out", SPI, *ENDS[4]], key=KEYS[16].hex()) != ""
    assert receive(receiver, 1, 0.2) == []
    back = plain_packet(4, b"not for it", source=to, to=source)
    send(receiver, bytes(back))  # which had none
    host.until(lambda: drops(host, "sender").get("esp_unknown"))
    assert receive(sender, 1, 0.2) == []

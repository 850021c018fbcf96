"""The switch of a NIC device: learning, ageing, groups, VLANs and ports that watch, against scapy's frames (U9)."""

import random

import pytest

from tests.framework import packets
from tests.framework.switch import Cable, Switch

from scapy.contrib.igmp import IGMP  # isort: skip
from scapy.contrib.igmpv3 import IGMPv3gr, IGMPv3mr  # isort: skip
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import (
    ICMPv6MLDMultAddrRec,
    ICMPv6MLDone,
    ICMPv6MLQuery,
    ICMPv6MLReport,
    ICMPv6MLReport2,
    IPv6,
    IPv6ExtHdrHopByHop,
    RouterAlert,
)
from scapy.layers.l2 import Dot1Q, Ether

SEED = 20261121
A, B, C = "02:00:00:00:0a:01", "02:00:00:00:0b:01", "02:00:00:00:0c:01"
EVERYBODY = "ff:ff:ff:ff:ff:ff"
GROUP, GROUP_MAC = "239.1.2.3", "01:00:5e:01:02:03"
GROUP6, GROUP6_MAC = "ff0e::1:2:3", "33:33:00:02:00:03"


def frame(source: str, to: str, tag: int | None = None, priority: int = 0, size: int = 60) -> bytes:
    front = Ether(src=source, dst=to)
    if tag is not None:
        front /= Dot1Q(vlan=tag, prio=priority)
    content = random.Random(SEED).randbytes(size - 42)
    return bytes(front / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=9, dport=9) / content)


def igmp(source: str, kind: int) -> bytes:
    to = {0x16: GROUP, 0x17: "224.0.0.2", 0x11: "224.0.0.1"}[kind]
    mac = {0x16: GROUP_MAC, 0x17: "01:00:5e:00:00:02", 0x11: "01:00:5e:00:00:01"}[kind]
    group = "0.0.0.0" if kind == 0x11 else GROUP
    front = Ether(src=source, dst=mac) / IP(dst=to, ttl=1, options=[b"\x94\x04\x00\x00"])
    return bytes(front / IGMP(type=kind, gaddr=group))


def igmp3(source: str, kind: int, sources: tuple[str, ...] = ()) -> bytes:
    record = IGMPv3gr(rtype=kind, maddr=GROUP, srcaddrs=list(sources))
    packet = IP(dst="224.0.0.22", ttl=1, proto=2) / IGMPv3mr(records=[record])
    return bytes(Ether(src=source, dst="01:00:5e:00:00:16") / packet)


def mld(source: str, message: packets.Packet) -> bytes:
    front = Ether(src=source, dst="33:33:00:00:00:16") / IPv6(src="fe80::1", dst="ff02::16", hlim=1)
    return bytes(front / IPv6ExtHdrHopByHop(options=[RouterAlert()]) / message)


def test_stations_are_learned_move_and_are_forgotten(switch: Switch) -> None:
    """IEEE 802.1D, 7.8 and 7.9: unknown goes everywhere, known to one port, after the ageing time everywhere again."""
    a, b, c = switch.cable(), switch.cable(), switch.cable()
    assert switch.send(a, frame(A, B)) == {b: [frame(A, B)], c: [frame(A, B)]}
    assert switch.send(b, frame(B, A)) == {a: [frame(B, A)]}
    assert switch.send(a, frame(A, B)) == {b: [frame(A, B)]}
    assert set(switch.send(c, frame(B, EVERYBODY))) == {a, b}  # it has moved
    assert switch.send(a, frame(A, B)) == {c: [frame(A, B)]}
    switch.nic.age(299.0)
    assert switch.send(a, frame(A, B)) == {c: [frame(A, B)]}
    switch.nic.age(2.0)  # 301 s since it was heard last; A was heard just now
    assert set(switch.send(a, frame(A, B))) == {b, c}
    assert switch.send(b, frame(C, A)) == {a: [frame(C, A)]}
    switch.nic.set_ageing(10.0)
    switch.nic.age(11.0)
    assert set(switch.send(c, frame(C, A))) == {a, b}


def test_what_is_remembered_fits_and_ends(switch: Switch) -> None:
    """Random stations at random ports, by a model of its own: each is where it was seen last, until it is too old."""
    generator = random.Random(SEED)
    cables = [switch.cable() for _ in range(4)]
    stations = [f"02:00:00:01:00:{number:02x}" for number in range(12)]
    seen: dict[str, tuple[Cable, float]] = {}
    now = 0.0
    for _ in range(400):
        if generator.random() < 0.1:
            step = generator.choice((20.0, 100.0, 290.0))
            now += step
            switch.nic.age(step)
        source, to = generator.sample(stations, 2)
        cable = generator.choice(cables)
        got = switch.send(cable, frame(source, to))
        seen[source] = cable, now
        known = {name: place for name, (place, at) in seen.items() if now - at < 300.0}
        expected = {known[to]} if to in known else set(cables)
        assert set(got) == expected - {cable}, (SEED, source, to)


def test_nothing_above_the_mtu_goes_to_a_port(switch: Switch) -> None:
    """To one, to all and to a group; a tag is no part of it, and who sends may be larger itself."""
    a, b, tagged = switch.cable(), switch.cable(mtu=1500), switch.cable(mtu=1500)
    for port in (b, tagged):
        switch.send(port, frame(B if port is b else C, EVERYBODY))
    for to, port in ((B, b), (C, tagged)):
        assert switch.send(a, frame(A, to, size=1514)) == {port: [frame(A, to, size=1514)]}
        assert switch.send(a, frame(A, to, tag=7, size=1514)) == {port: [frame(A, to, tag=7, size=1514)]}
        assert switch.send(a, frame(A, to, size=1515)) == {}
        assert switch.send(a, frame(A, to, tag=7, size=1515)) == {}
    assert switch.send(a, frame(A, EVERYBODY, size=1515)) == {}
    assert switch.send(b, frame(B, A, size=4000)) == {a: [frame(B, A, size=4000)]}


def test_a_port_that_watches_gets_all(switch: Switch) -> None:
    a, b, watcher = switch.cable(), switch.cable(vlan=0), switch.cable(watches=True)
    switch.send(b, frame(B, EVERYBODY))
    assert switch.send(a, frame(A, B)) == {b: [frame(A, B)], watcher: [frame(A, B)]}
    inside, other = switch.cable(vlan=7), switch.cable(vlan=7)
    assert switch.send(inside, frame(C, EVERYBODY)) == {
        other: [frame(C, EVERYBODY)], watcher: [frame(C, EVERYBODY, 7)]
    }  # fmt: skip
    switch.nic.set_watches(watcher.number, False)
    assert switch.send(a, frame(A, B)) == {b: [frame(A, B)]}


def test_vlans_part_ports(switch: Switch) -> None:
    """Access ports without tags, a trunk with them and its own VLAN without, and ports without VLANs by themselves."""
    five, also, six, plain = switch.cable(vlan=5), switch.cable(vlan=5), switch.cable(vlan=6), switch.cable()
    trunk = switch.cable(vlan=6, trunk=(5, 9))
    all_of = frame(A, EVERYBODY)
    assert switch.send(five, all_of) == {also: [all_of], trunk: [frame(A, EVERYBODY, 5)]}
    assert switch.send(six, frame(B, EVERYBODY)) == {trunk: [frame(B, EVERYBODY)]}
    assert switch.send(plain, frame(C, EVERYBODY)) == {}
    assert switch.send(plain, frame(C, A)) == {}
    assert plain.state["drops"] == {"no_destination": 1}
    # With the tag of the trunk's VLAN, its priority kept for others; without: the trunk's own.
    assert switch.send(trunk, frame(C, EVERYBODY, 5)) == {five: [frame(C, EVERYBODY)], also: [frame(C, EVERYBODY)]}
    assert switch.send(trunk, frame(C, EVERYBODY)) == {six: [frame(C, EVERYBODY)]}
    assert switch.send(trunk, frame(C, EVERYBODY, 0, 3)) == {six: [frame(C, EVERYBODY)]}  # a priority alone
    second = switch.cable(trunk=(5, 6))
    assert switch.send(trunk, frame(C, A, 5, 6)) == {five: [frame(C, A)]}
    assert switch.send(trunk, frame(C, EVERYBODY, 5, 6))[second] == [frame(C, EVERYBODY, 5, 6)]
    assert switch.send(six, frame(B, EVERYBODY)) == {
        trunk: [frame(B, EVERYBODY)], second: [frame(B, EVERYBODY, 6)]
    }  # fmt: skip


def test_frames_of_other_vlans_are_dropped(switch: Switch) -> None:
    access, trunk, other = switch.cable(vlan=5), switch.cable(trunk=(5,)), switch.cable(vlan=6)
    for cable, sent in (
        (access, frame(A, EVERYBODY, 5)), (access, frame(A, EVERYBODY, 6)), (trunk, frame(A, EVERYBODY, 6)),
        (trunk, frame(A, EVERYBODY)), (trunk, frame(A, EVERYBODY, 5)[:16]),
    ):  # fmt: skip
        assert switch.send(cable, sent) == {}
    assert access.state["drops"] == {"vlan_denied": 2} and trunk.state["drops"] == {"vlan_denied": 3}
    assert switch.send(other, frame(B, A)) == {}
    with pytest.raises(ValueError, match="1 to 4094"):
        switch.nic.set_rules(access.number, 4095)


def test_each_vlan_learns_for_itself(switch: Switch) -> None:
    """One address in two VLANs, at two ports."""
    five, six, trunk = switch.cable(vlan=5), switch.cable(vlan=6), switch.cable(trunk=(5, 6))
    more = switch.cable(trunk=(5, 6))
    switch.send(five, frame(A, EVERYBODY))
    switch.send(six, frame(A, EVERYBODY))
    assert switch.send(trunk, frame(B, A, 5)) == {five: [frame(B, A)]}
    assert switch.send(trunk, frame(B, A, 6)) == {six: [frame(B, A)]}
    switch.send(more, frame(A, EVERYBODY, 6))
    assert switch.send(trunk, frame(B, A, 6)) == {more: [frame(B, A, 6)]}
    assert switch.send(trunk, frame(B, A, 5)) == {five: [frame(B, A)]}


@pytest.mark.parametrize(
    ("join", "leave"),
    [
        (igmp(A, 0x16), igmp(A, 0x17)),
        (igmp3(A, 4), igmp3(A, 3)),
        (igmp3(A, 5, ("10.0.0.9",)), igmp3(A, 1)),
        (mld(A, ICMPv6MLReport(mladdr=GROUP6)), mld(A, ICMPv6MLDone(mladdr=GROUP6))),
        (mld(A, ICMPv6MLReport2(records=[ICMPv6MLDMultAddrRec(rtype=4, dst=GROUP6)], records_number=1)),
         mld(A, ICMPv6MLReport2(records=[ICMPv6MLDMultAddrRec(rtype=3, dst=GROUP6)], records_number=1))),
    ],
    ids=["igmp2", "igmp3", "igmp3 with sources", "mld1", "mld2"],
)  # fmt: skip
def test_groups_are_heard(switch: Switch, join: bytes, leave: bytes) -> None:
    """A group that nobody joined goes to all, one that somebody has to its members and to routers; behind a wire there
    may be others, who get two seconds to say so."""
    a, b, c, watcher = switch.cable(), switch.cable(), switch.cable(), switch.cable(watches=True)
    v6 = join[12:14] == b"\x86\xdd"
    to_group = frame(C, GROUP6_MAC if v6 else GROUP_MAC)
    query = mld(B, ICMPv6MLQuery()) if v6 else igmp(B, 0x11)
    assert set(switch.send(c, to_group)) == {a, b, watcher}
    switch.send(a, join)
    assert set(switch.send(c, to_group)) == {a, watcher}
    assert a.state["groups"] == 1 and b.state["groups"] == 0
    assert set(switch.send(c, frame(C, "33:33:00:00:00:01"))) == {a, b, watcher}  # what nobody may lose
    switch.send(b, query)
    assert set(switch.send(c, to_group)) == {a, b, watcher}
    switch.send(a, leave)
    assert set(switch.send(c, to_group)) == {a, b, watcher}
    switch.nic.age(3.0)
    assert a.state["groups"] == 0
    assert set(switch.send(c, to_group)) == {a, b, watcher}  # nobody's any more
    switch.send(a, join)
    switch.nic.age(259.0)
    assert set(switch.send(c, to_group)) == {a, watcher}  # the router has not asked for 262 s
    switch.nic.age(2.0)
    assert set(switch.send(c, to_group)) == {a, b, watcher}


def test_a_lying_report_changes_nothing(switch: Switch) -> None:
    """Cut anywhere, or with a wrong checksum: all or nothing of it is believed, and nothing is read beyond it."""
    a, b, c = switch.cable(), switch.cable(), switch.cable()
    for whole in (igmp(A, 0x16), igmp3(A, 4), mld(A, ICMPv6MLReport(mladdr=GROUP6))):
        for length in range(14, len(whole)):
            switch.send(a, whole[:length])
            assert a.state["groups"] == 0, (length, whole.hex())
    wrong = bytearray(igmp(A, 0x16))
    wrong[-1] ^= 1
    switch.send(a, bytes(wrong))
    assert a.state["groups"] == 0
    assert set(switch.send(c, frame(C, GROUP_MAC))) == {a, b}

"""Wires in a manifest: what is refused, where, and what is accepted in its place (U9)."""

import pytest

from hostd import manifest_source
from hostd.errors import HostError
from hostd.manifest_wires import endpoint_of

GOOD = """\
version: 1
devices:
  - name: disk0
    kind: disk
  - name: nic0
    kind: nic
    wires:
      - {name: host, kind: tap, interface: pv-host, addresses: [10.0.0.1/24]}
      - {name: far, kind: vxlan, remote: "192.0.2.7:4789", vni: 42}
      - {name: lan, kind: packet, interface: eth1}
      - {name: trace, kind: pcap, file: /var/trace.pcap, watches: true}
"""


def test_a_good_manifest_is_read() -> None:
    wires = manifest_source.loads(GOOD, machine=False).devices[1].wires
    assert [wire.kind for wire in wires] == ["tap", "vxlan", "packet", "pcap"]


@pytest.mark.parametrize(
    ("old", "new", "place", "words"),
    [
        (", vni: 42", "", "9:9", "of kind vxlan needs vni"),
        ("vni: 42", "vni: 16777216", "9:65", "less than 16777216"),
        ("192.0.2.7:4789", "192.0.2.7:x", "9:42", "no address with a port"),
        ("interface: eth1", "interface: pv-host", "10:46", "is the interface of two wires"),
        ("interface: eth1", "interface: lo", "10:46", "cannot be the name of an interface"),
        ("file: /var/trace.pcap", "file: trace.pcap", "11:41", "is no absolute path"),
        ("file: /var/trace.pcap, ", "", "11:9", "needs file or replay"),
        ("name: far", "name: host", "9:16", "is the name of two wires"),
        ("kind: disk", "kind: disk\n    wires: [{name: x, kind: pcap, file: /x}]", "5:12", "belong to a NIC"),
        ("interface: eth1", "interface: eth1, vni: 3", "10:57", "does not belong to a wire of kind packet"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(old: str, new: str, place: str, words: str) -> None:
    assert old in GOOD
    with pytest.raises(HostError) as caught:
        manifest_source.loads(GOOD.replace(old, new, 1), machine=False)
    told = {f"{one['line']}:{one['column']}": str(one) for one in caught.value.details["problems"]}
    assert words in told.get(place, ""), told


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("192.0.2.1", ("192.0.2.1", 4789)),
        ("192.0.2.1:8472", ("192.0.2.1", 8472)),
        ("[2001:db8::1]", ("2001:db8::1", 4789)),
        ("[2001:db8::1]:7", ("2001:db8::1", 7)),
        ("2001:db8::1", ("2001:db8::1", 4789)),
    ],
)
def test_ends_of_a_tunnel_are_read(text: str, found: tuple[str, int]) -> None:
    assert endpoint_of(text) == found

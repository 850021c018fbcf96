"""The part of a manifest that leads out of a NIC device: wires, and the way to the host that a partition asks for (U9).

    devices:
      - name: nic0
        kind: nic
        wires:
          - {name: host, kind: tap, interface: pv-host, addresses: [10.0.0.1/24]}
          - {name: lan, kind: packet, interface: eth1}
          - {name: far, kind: vxlan, remote: "192.0.2.7:4789", vni: 42}
          - {name: trace, kind: pcap, file: trace.pcap, watches: true}
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from hostd.manifest_checks import Found, Path, entries, unique
from hostd.manifest_lines import Line
from hostd.manifest_types import InterfaceAddress, Model, Name, Text, fault
from hostd.tap import ADDRESSES_MAX, MTU_DEFAULT, MTU_LEAST, MTU_MOST, NAME_MOST
from pyx import abi

WIRES_MAX = 16
VXLAN_PORT = 4789  # RFC 7348, section 8
NEEDED = {"tap": ("interface",), "packet": ("interface",), "vxlan": ("remote", "vni"), "pcap": ()}
KNOWN = {
    "tap": ("interface", "addresses", "mtu"), "packet": ("interface",), "vxlan": ("remote", "vni", "local"),
    "pcap": ("file", "replay"),
}  # fmt: skip


def _interface(value: str) -> str:
    if not 0 < len(value) <= NAME_MOST or value in (".", "..", "lo") or "/" in value or any(c.isspace() for c in value):
        raise fault("cannot be the name of an interface", f"at most {NAME_MOST} characters, no slash or space, not lo")
    return value


def endpoint_of(value: str, port: int = VXLAN_PORT) -> tuple[str, int]:
    """(address, port) of ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT. ValueError where it is none of them."""
    host, colon, number = value.rpartition(":")
    if value.startswith("["):
        if value.endswith("]"):
            host, number = value, str(port)
        host = host[1:-1]
    elif not colon or value.count(":") > 1:
        host, number = value, str(port)
    if not number.isdecimal() or not 0 < int(number) < 65536:
        raise ValueError(f"port {number!r}")
    return str(ipaddress.ip_address(host)), int(number)


def _endpoint(value: str) -> str:
    try:
        endpoint_of(value)
    except ValueError:
        raise fault("is no address with a port", "ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT, in figures") from None
    return value


def _absolute(value: str) -> str:
    if not value.startswith("/"):
        raise fault("is no absolute path", "/FOLDER/FILE", "the daemon has a working folder of its own")
    return value


SENT = tuple(name for name in abi.OFFLOADS if name == "checksum" or name.startswith("send_"))
_UDP_SINCE = (6, 2)  # kernels that cut UDP for whoever writes to a TAP or packet socket


def _sent(name: str) -> str:
    if name not in SENT:
        raise ValueError(f"nothing that NICs send could ask for it; known: {', '.join(SENT)}")
    return name


Sent = Annotated[str, AfterValidator(_sent)]
InterfaceName = Annotated[str, AfterValidator(_interface)]
UdpEndpoint = Annotated[str, AfterValidator(_endpoint)]
File = Annotated[Text, AfterValidator(_absolute)]
Addresses = Annotated[list[InterfaceAddress], Field(max_length=ADDRESSES_MAX)]
Vlan = Annotated[int, Field(ge=1, le=4094)]
Vlans = Annotated[list[Vlan], Field(max_length=4094)]
Mtu = Annotated[int, Field(ge=MTU_LEAST, le=MTU_MOST)]


class Wire(Model):
    """A port of a NIC device that leads out of the host's partitions."""

    name: Name
    kind: Literal["tap", "packet", "vxlan", "pcap"] = Field(
        description="tap: a new interface of the host; packet: one that exists; vxlan: a UDP tunnel; pcap: files"
    )
    interface: InterfaceName | None = Field(default=None, description="of tap and packet: its name")
    addresses: Addresses = Field(default_factory=list, description="of tap: IPv4 and IPv6 addresses of the host there")
    mtu: Mtu = Field(default=MTU_DEFAULT, description="of tap")
    remote: UdpEndpoint | None = Field(default=None, description="of vxlan: the other end, ADDRESS:PORT")
    local: UdpEndpoint | None = Field(default=None, description="of vxlan: the own end; without it any address")
    vni: Annotated[int, Field(ge=0, lt=1 << 24)] | None = Field(default=None, description="of vxlan: its network")
    file: File | None = Field(default=None, description="of pcap: frames to the wire are added to it")
    replay: File | None = Field(default=None, description="of pcap: its frames come from the wire, once")
    watches: bool = Field(default=False, description="gets all frames of the switch")
    offloads: list[Sent] | None = Field(
        default=None, description="of what NICs send: what they need not do for it; null: what it takes as it is"
    )
    vlan: Vlan | None = Field(default=None, description="the VLAN whose frames have no tag there")
    trunk: Vlans = Field(default_factory=list, description="VLANs whose frames have a tag there")
    line: Line | None = Field(default=None, description="simulated, for the frames that come from there")


def left_by(wire: Wire) -> list[str]:
    """What endpoints need not do in frames that go out by a wire. Kernels take checksums and large frames as they are;
    in a tunnel and in a file there are finished frames alone."""
    if wire.offloads is not None:
        return wire.offloads
    if wire.kind not in ("tap", "packet"):
        return []
    release = re.match(r"(\d+)\.(\d+)", os.uname().release)
    old = release is not None and tuple(map(int, release.groups())) < _UDP_SINCE
    return [name for name in SENT if not (old and name == "send_udp")]


class Expose(Model):
    """A partition's way to the host: an interface of the host at the switch of its NIC, for as long as it runs."""

    interface: InterfaceName | None = Field(default=None, description="its name; null: pv- and the partition's name")
    addresses: Addresses = Field(default_factory=list, description="addresses of the host there")


def check_wires(devices: list[tuple[Path, dict[Any, Any]]]) -> Iterator[Found]:
    """Wires belong to NICs, have what their kind needs and nothing else, and no interface is used twice."""
    first: dict[str, Path] = {}
    for path, device in devices:
        wires = entries(device, "wires", path)
        if wires and device.get("kind") != "nic":
            yield Found((*path, "wires"), "belong to a NIC", None, None, "a disk has none")
        yield from unique(wires, "wire")
        for where, wire in wires:
            kind, interface = wire.get("kind"), wire.get("interface")
            if kind in NEEDED:
                yield from _fields(where, wire, str(kind))
            if isinstance(interface, str) and kind in ("tap", "packet") and first.setdefault(interface, where) != where:
                hint = f"first at {'.'.join(map(str, first[interface]))}"
                yield Found((*where, "interface"), "is the interface of two wires", interface, None, hint)


def _fields(where: Path, wire: dict[Any, Any], kind: str) -> Iterator[Found]:
    for name in NEEDED[kind]:
        if wire.get(name) is None:
            yield Found(where, f"of kind {kind} needs {name}", None, f"{name}: ...")
    if kind == "pcap" and wire.get("file") is None and wire.get("replay") is None:
        yield Found(where, "of kind pcap needs file or replay", None, "file: or replay: ...")
    for name in sorted({one for known in KNOWN.values() for one in known} - set(KNOWN[kind])):
        if wire.get(name) not in (None, []) and name != "mtu":
            yield Found((*where, name), f"does not belong to a wire of kind {kind}", None, ", ".join(KNOWN[kind]))

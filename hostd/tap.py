"""TAP devices: network interfaces whose frames a program takes and gives (linux/if_tun.h, H7).

`open_tap` makes one in the network namespace of the caller, which needs /dev/net/tun and CAP_NET_ADMIN in the user
namespace that owns it. The interface lives as long as its descriptor.
"""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import os
import re
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hostd import netlink
from pyx.abi import NET_HEADER, NIC_QUEUES_MAX

NODE = "/dev/net/tun"
_SET_INTERFACE = 0x400454CA  # TUNSETIFF
_SET_HEADER_SIZE = 0x400454D8  # TUNSETVNETHDRSZ
# IFF_TAP, IFF_NO_PI, IFF_VNET_HDR, IFF_MULTI_QUEUE
_TAP, _NO_PACKET_INFORMATION, _HEADER, _SEVERAL = 2, 0x1000, 0x4000, 0x0100
_REQUEST = struct.Struct("=16sH22x")  # struct ifreq with ifr_flags
NAME_MOST = 15  # IFNAMSIZ is 16 with the zero
NAME_PATTERN = r"[a-z][a-z0-9._-]*"
MTU_LEAST, MTU_MOST, MTU_DEFAULT = 576, 9000, 1500
MTU_LEAST_IPV6 = 1280  # RFC 8200, section 5
ADDRESSES_MAX = 16
_FIELDS = ("name", "mac", "mtu", "addresses", "offloads", "queues")  # of an Interface's document


class TapError(Exception):
    """A TAP that cannot be had here; the text names why and the cure."""

    code = "denied"


@dataclass(frozen=True)
class Interface:
    """A network interface as a process of an unmodified program gets it."""

    name: str
    mac: bytes  # empty: the kernel chooses
    mtu: int
    addresses: tuple[netlink.Address, ...]
    offloads: bool  # frames have a header in front: checksums and segmentation are left to whoever takes them
    queues: int = 1

    @classmethod
    def parse(cls, document: Any) -> Interface:
        """ValueError names the field that is wrong."""
        if not isinstance(document, dict) or set(document) != set(_FIELDS):
            raise ValueError(f"{', '.join(_FIELDS)} are expected")
        name, mac, mtu, texts, offloads, queues = (document[key] for key in _FIELDS)
        if not isinstance(name, str) or len(name) > NAME_MOST or not re.fullmatch(NAME_PATTERN, name):
            raise ValueError(f"name: {name!r:.40}")
        if not isinstance(mac, str) or not re.fullmatch("[0-9a-f]{2}(:[0-9a-f]{2}){5}", mac):
            raise ValueError(f"mac: {mac!r:.40}")
        if type(mtu) is not int or not MTU_LEAST <= mtu <= MTU_MOST:
            raise ValueError(f"mtu: {mtu!r:.40}")
        if not isinstance(texts, list) or len(texts) > ADDRESSES_MAX or not all(isinstance(one, str) for one in texts):
            raise ValueError("addresses: a list of texts")
        if not isinstance(offloads, bool):
            raise ValueError(f"offloads: {offloads!r:.40}")
        if type(queues) is not int or not 1 <= queues <= NIC_QUEUES_MAX:
            raise ValueError(f"queues: {queues!r:.40}")
        address = bytes.fromhex(mac.replace(":", ""))
        return cls(name, address, mtu, tuple(map(ipaddress.ip_interface, texts)), offloads, queues)


def open_tap(name: str, headers: bool = False, several: bool = False) -> int:
    """Descriptor of a new TAP, nonblocking; with `headers` each frame has a struct pv_net_header in front
    (abi_offload.h). One with `several` queues has one more with each call. TapError with the cure where this host does
    not let one be made."""
    try:
        descriptor = os.open(NODE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise TapError(f"{NODE} does not exist; modprobe tun, or mknod it in the container") from None
    except PermissionError:
        raise TapError(f"{NODE} may not be opened here; chmod 666 {NODE}, or start the host as root") from None
    try:
        flags = _TAP | _NO_PACKET_INFORMATION | (_HEADER if headers else 0) | (_SEVERAL if several else 0)
        fcntl.ioctl(descriptor, _SET_INTERFACE, _REQUEST.pack(name.encode(), flags))
        if headers:
            fcntl.ioctl(descriptor, _SET_HEADER_SIZE, struct.pack("=i", NET_HEADER))
    except OSError as error:
        os.close(descriptor)
        if error.errno == errno.EPERM:
            raise TapError(f"interface {name}: CAP_NET_ADMIN is missing in this network namespace") from None
        if error.errno == errno.EBUSY:
            raise TapError(f"interface {name}: there is one of that name already") from None
        raise
    return descriptor


def set_up(interface: Interface) -> None:
    """Link and addresses of a TAP that is open."""
    with suppress(OSError):  # a kernel without IPv6; otherwise an address would be unusable for a second or two
        _setting(f"ipv6/conf/{interface.name}/accept_dad", "0")
    netlink.set_link(interface.name, mac=interface.mac or None, mtu=interface.mtu)
    for address in interface.addresses:
        netlink.add_address(interface.name, address)


def free_ports_and_ping(gid: int) -> list[str]:
    """Lets programs of this namespace listen on ports below 1024 and ping without any right: the namespace is theirs
    alone. Returns what could not be set; it needs the host's /proc in sight."""
    failed = []
    for name, value in (("ipv4/ip_unprivileged_port_start", "0"), ("ipv4/ping_group_range", f"{gid} {gid}")):
        try:
            _setting(name, value)
        except OSError as error:
            failed.append(f"net/{name}: {error.strerror}")
    return failed


def _setting(name: str, value: str) -> None:
    Path("/proc/sys/net", name).write_text(value, encoding="ascii")


def make(interfaces: Sequence[Interface]) -> list[int]:
    """All interfaces of a process, up and with their addresses; the descriptors of their queues in the same order."""
    taps = []
    for interface in interfaces:
        several = interface.queues > 1
        taps += [open_tap(interface.name, interface.offloads, several) for _ in range(interface.queues)]
        set_up(interface)
    return taps

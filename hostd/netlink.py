"""Links and their addresses, by the kernel's routing socket (RFC 3549; linux/rtnetlink.h): as much as a NIC needs.

Everything acts in the network namespace of the calling process and needs CAP_NET_ADMIN there. Errors are OSError with
the kernel's errno and the name of what was asked for.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from collections.abc import Iterator

Address = ipaddress.IPv4Interface | ipaddress.IPv6Interface

_ROUTE = 0  # NETLINK_ROUTE
_ERROR, _DONE = 2, 3  # NLMSG_*
_REQUEST, _ACK, _EXCLUSIVE, _CREATE, _DUMP = 1, 4, 0x200, 0x400, 0x300  # NLM_F_*
_NEW_LINK, _DELETE_LINK, _NEW_ADDRESS, _GET_ADDRESS = 16, 17, 20, 22  # RTM_*
_LINK_ADDRESS, _LINK_NAME, _LINK_MTU = 1, 3, 4  # IFLA_*
_ADDRESS, _LOCAL, _FLAGS = 1, 2, 8  # IFA_*
_NO_DAD = 2  # IFA_F_NODAD: the host has checked already that nobody else has the address
_UP = 1  # IFF_UP
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change
_ASSIGNED = struct.Struct("=BBBBI")  # struct ifaddrmsg: family, prefix length, flags, scope, index
_ATTRIBUTE = struct.Struct("=HH")  # struct rtattr: length, type
_RECEIVE = 1 << 16


def _attribute(kind: int, value: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4)


def _ask(kind: int, flags: int, body: bytes, what: str) -> list[bytes]:
    """One request; the bodies of its answers. The kernel always answers, so nothing here can wait for ever."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _ROUTE) as sock:
        sock.bind((0, 0))
        sock.send(_HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | flags, 1, 0) + body)
        bodies: list[bytes] = []
        while True:
            for answer, content in _messages(sock.recv(_RECEIVE)):
                if answer == _ERROR:
                    (error,) = struct.unpack_from("=i", content)
                    if error:
                        raise OSError(-error, os.strerror(-error), what)
                    return bodies
                if answer == _DONE:
                    return bodies
                bodies.append(content)


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _HEADER.size:
        length, kind, _, _, _ = _HEADER.unpack_from(data)
        yield kind, data[_HEADER.size : length]
        data = data[(length + 3) // 4 * 4 :]


def set_link(name: str, *, mac: bytes | None = None, mtu: int | None = None, up: bool = True) -> None:
    """Address and MTU of a link, and whether it is up."""
    index = socket.if_nametoindex(name)
    attributes = b"" if mac is None else _attribute(_LINK_ADDRESS, mac)
    attributes += b"" if mtu is None else _attribute(_LINK_MTU, struct.pack("=I", mtu))
    if attributes:  # before it comes up, so that nobody ever sees it with others
        _ask(_NEW_LINK, _ACK, _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0) + attributes, f"link {name}")
    _ask(_NEW_LINK, _ACK, _LINK.pack(socket.AF_UNSPEC, 0, index, _UP if up else 0, _UP), f"link {name}")


def delete_link(name: str) -> None:
    index = socket.if_nametoindex(name)
    _ask(_DELETE_LINK, _ACK, _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0), f"link {name}")


def add_address(name: str, address: Address) -> None:
    """One address with the length of its network's prefix: the kernel makes the route to that network."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    packed = address.ip.packed
    body = _ASSIGNED.pack(family, address.network.prefixlen, 0, 0, socket.if_nametoindex(name))
    body += _attribute(_LOCAL, packed) + _attribute(_ADDRESS, packed)
    if address.version == 6:
        body += _attribute(_FLAGS, struct.pack("=I", _NO_DAD))
    _ask(_NEW_ADDRESS, _ACK | _CREATE | _EXCLUSIVE, body, f"address {address} of {name}")


def addresses() -> list[tuple[str, Address]]:
    """(link, address) of all addresses in this namespace."""
    found: list[tuple[str, Address]] = []
    for body in _ask(_GET_ADDRESS, _DUMP, _ASSIGNED.pack(socket.AF_UNSPEC, 0, 0, 0, 0), "addresses"):
        _, length, _, _, index = _ASSIGNED.unpack_from(body)
        values = dict(_attributes(body[_ASSIGNED.size :]))
        packed = values.get(_LOCAL, values.get(_ADDRESS))
        if packed is not None:
            found.append((socket.if_indextoname(index), ipaddress.ip_interface((packed, length))))
    return found


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size:
            return
        yield kind, data[_ATTRIBUTE.size : length]
        data = data[(length + 3) // 4 * 4 :]

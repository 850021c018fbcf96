"""Wires of NIC devices as hostd makes them: opens what leads out, hands it to the device, takes it back (U9, H7).

A device process gets open descriptors and no right to make any. An interface that was made for a wire lives exactly as
long as the device holds its descriptor, so nothing is left of it when the device ends.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from hostd import netlink, tap
from hostd.errors import HostError
from hostd.manifest_lines import Line
from hostd.manifest_wires import SENT, VXLAN_PORT, WIRES_MAX, Wire, endpoint_of, left_by
from hostd.records import Record
from hostd.wire import RemoteError, close_fds
from pyx.abi import NET_HEADER

PORT_FIRST = 255  # of wires, downwards: endpoints are numbered from 0 on
PCAP_HEADER = struct.pack("=IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 1 << 18, 1)  # nanoseconds, Ethernet
_PCAP_MAGIC = struct.pack("=I", 0xA1B23C4D)
_SOL_PACKET, _ADD_MEMBERSHIP, _IGNORE_OUTGOING, _HEADER_SIZE = 263, 1, 23, 24  # linux/if_packet.h
_PROMISCUOUS, _ALL = 1, 0x0003  # PACKET_MR_PROMISC, ETH_P_ALL
_SET_OFFLOADS = 0x400454D0  # TUNSETOFFLOAD
_OFFLOADS = (0x7F & ~0x10, 0x0F)  # checksums, TCP and UDP segmentation; without that of UDP, which is young

Row = dict[str, Any]


@dataclass
class Placed:
    """A wire that a device has."""

    device: str
    number: int
    wire: Wire
    partition: str | None = None  # that it was made for
    network: bool = False  # it leads to a network namespace that is gone with its device (hostd.tcp_networks)

    @property
    def name(self) -> str:
        """One that was made for a partition is named after it."""
        return f"{self.partition}.{self.wire.name}" if self.partition else self.wire.name


class Wiring:
    """All wires of a host, by device and port."""

    def __init__(self, ask: Any, changed: Callable[[str], Awaitable[None]]) -> None:
        self._ask = ask  # (record, operation, message, descriptors) -> reply
        self._changed = changed  # the wires of a device are others now
        self.placed: list[Placed] = []

    async def add(
        self, device: Record, wire: Wire, partition: str | None = None, opened: dict[str, int] | None = None
    ) -> Placed:
        """HostError `denied` or `invalid` names what stands in the way; nothing is left of a wire that fails. `opened`:
        its descriptors, where it was opened elsewhere; they are closed here."""
        fds = open_wire(wire) if opened is None else opened
        taken = {one.number for one in self.placed if one.device == device.name}
        number = next(n for n in range(PORT_FIRST, 0, -1) if n not in taken)
        placed = Placed(device.name, number, wire, partition, opened is not None)
        if len(taken) == WIRES_MAX:
            close_fds(fd for fd in fds.values() if fd >= 0)
            raise HostError("conflict", f"wire {wire.name}: {device.name} has {WIRES_MAX} wires already, its most")
        await self._place(device, placed, fds)
        self.placed.append(placed)
        await self._changed(device.name)
        return placed

    async def place_again(self, device: Record) -> None:
        """A device has another process: its wires are opened anew, under the same numbers. Those that led to a network
        are forgotten; what made it makes another one. A file of frames to be sent is sent once more."""
        self.placed = [one for one in self.placed if one.device != device.name or not one.network]
        for placed in [one for one in self.placed if one.device == device.name]:
            await self._place(device, placed, open_wire(placed.wire))

    async def _place(self, device: Record, placed: Placed, fds: dict[str, int]) -> None:
        """Hands a wire to its device. The descriptors are closed."""
        wire = placed.wire
        try:
            message = {
                "port": placed.number, "kind": wire.kind, "vni": wire.vni or 0, "watches": wire.watches,
                "vlan": wire.vlan or 0, "trunk": wire.trunk, "mtu": wire.mtu if wire.kind == "tap" else 0,
                "descriptors": [name for name, fd in fds.items() if fd >= 0], "left": left_by(wire),
            }  # fmt: skip
            await self._ask(device, "add_wire", message, [fd for fd in fds.values() if fd >= 0])
        finally:
            close_fds(fd for fd in fds.values() if fd >= 0)
        if wire.line is not None:
            await self.set_line(device, placed.number, wire.line)

    async def remove(self, device: Record, placed: Placed) -> None:
        """The device lets go of a wire."""
        await self._ask(device, "remove_wire", {"port": placed.number})
        self.placed.remove(placed)
        await self._changed(device.name)

    async def compare(self, devices: dict[str, Record]) -> None:
        """After the death of an earlier hostd: what it did not come to tell of goes, what a device has not is not
        there."""
        for device in devices.values():
            have = set((await self._ask(device, "wires", {}))["ports"])
            mine = [one for one in self.placed if one.device == device.name]
            for port in have - {one.number for one in mine}:
                await self._ask(device, "remove_wire", {"port": port})
            gone = [one for one in mine if one.number not in have]
            self.placed = [one for one in self.placed if one not in gone]
            if gone or len(have) > len(mine):
                await self._changed(device.name)

    def withholds(self, device: str) -> bool:
        """Has a device wires that do not take all that endpoints could leave to it?"""
        return any(one.device == device and len(left_by(one.wire)) < len(SENT) for one in self.placed)

    async def simulate(self, record: Record, devices: dict[str, Record]) -> None:
        """The simulated lines of a partition's NICs at these devices."""
        lines = {nic.name: nic.line for nic in record.spec.nics if nic.line is not None}
        for endpoint in record.plan["endpoints"]:
            line = lines.get(endpoint["name"])
            if line is not None and endpoint["device"] in devices:
                await self.set_line(devices[endpoint["device"]], endpoint["port"], line)

    async def set_line(self, device: Record, port: int, line: Line | None) -> None:
        """The line of a port becomes this one; None: it ends. Frames that are on it arrive."""
        operation, facts = ("end_line", {}) if line is None else ("set_line", line.message())
        await self._ask(device, operation, {"port": port, **facts})

    async def expose(self, record: Record, devices: dict[str, Record]) -> None:
        """The ways to the host that a partition asks for."""
        for nic in record.spec.nics:
            if nic.expose is None:
                continue
            interface = nic.expose.interface or f"pv-{record.name}"[: tap.NAME_MOST]
            facts = {"addresses": nic.expose.addresses, "mtu": nic.mtu, "vlan": nic.vlan, "trunk": nic.trunk}
            wire = Wire(name=nic.name, kind="tap", interface=interface, **facts)
            try:
                await self.add(devices[nic.device], wire, record.name)
            except BaseException:
                await self.withdraw(record, devices)
                raise

    async def withdraw(self, record: Record, devices: dict[str, Record], nic: str | None = None) -> None:
        """Takes away what was made for a partition, or for one NIC of it; safe to call twice."""
        for placed in [one for one in self.placed if one.partition == record.name and nic in (None, one.wire.name)]:
            try:
                await self.remove(devices[placed.device], placed)
            except (RemoteError, EOFError, OSError):
                pass  # the device has ended, and its wires with it
            if placed in self.placed:
                self.placed.remove(placed)

    async def states(self, devices: dict[str, Record]) -> list[Row]:
        """All wires with their counts, for status."""
        rows = []
        for one in self.placed:
            try:
                state = await self._ask(devices[one.device], "wire_state", {"port": one.number})
            except RemoteError as error:
                state = {"failure": error.message}
            facts = one.wire.model_dump(exclude_defaults=True, exclude={"line"})
            rows.append({"device": one.device, "partition": one.partition, **facts, **state})
        return rows


def open_wire(wire: Wire) -> dict[str, int]:
    """Descriptors of a wire as Wires.add_wire takes them: `fd`, and `other`; -1: none."""
    try:
        if wire.kind == "tap":
            return {"fd": _open_tap(wire)}
        if wire.kind == "packet":
            return {"fd": _open_packet(wire.interface or "", NET_HEADER if left_by(wire) else 0)}
        if wire.kind == "vxlan":
            return _open_tunnel(wire)
        return _open_files(wire)
    except tap.TapError as error:
        raise HostError("denied", f"wire {wire.name}: {error}") from None
    except PermissionError as error:
        raise HostError("denied", f"wire {wire.name}: {error.filename or 'no right'}: {error.strerror}") from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise HostError("invalid", f"wire {wire.name}: {where}{error.strerror}") from None


def _open_tap(wire: Wire) -> int:
    name = wire.interface or ""
    if any(name == known for _, known in socket.if_nameindex()):
        raise HostError("conflict", f"wire {wire.name}: the host has an interface {name} already")
    for link, address in netlink.addresses():
        clash = next((one for one in wire.addresses if ipaddress.ip_interface(one).ip == address.ip), None)
        if clash:
            raise HostError("conflict", f"wire {wire.name}: {clash} is an address of the host's {link} already")
    addresses = tuple(map(ipaddress.ip_interface, wire.addresses))
    headed = bool(left_by(wire))
    return open_offloading(tap.Interface(name, b"", wire.mtu, addresses, headed))


def open_offloading(interface: tap.Interface) -> int:
    """A TAP in the namespace of the calling thread, up; with offloads its kernel leaves checksums and segmentation to
    the wire."""
    descriptor = tap.open_tap(interface.name, headers=interface.offloads)
    try:
        for flags in _OFFLOADS if interface.offloads else ():
            try:
                fcntl.ioctl(descriptor, _SET_OFFLOADS, flags)
                break
            except OSError:
                if flags == _OFFLOADS[-1]:
                    raise
        tap.set_up(interface)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _open_packet(interface: str, header: int) -> int:
    try:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
    except PermissionError as error:
        raise PermissionError(error.errno, "a packet socket there needs CAP_NET_RAW", interface) from None
    try:
        index = socket.if_nametoindex(interface)
        sock.setsockopt(_SOL_PACKET, _HEADER_SIZE, header)
        sock.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
        membership = struct.pack("=iHH8s", index, _PROMISCUOUS, 0, b"")
        sock.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, membership)
        sock.bind((interface, _ALL))
        return sock.detach()
    except OSError as error:
        raise OSError(error.errno, error.strerror or "No such device", interface) from None
    finally:
        sock.close()


def _open_tunnel(wire: Wire) -> dict[str, int]:
    """Frames come from any port of the other end, because a sender may choose it by flow (RFC 7348, 5)."""
    host, port = endpoint_of(wire.remote or "")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    local = endpoint_of(wire.local) if wire.local else ("::" if family == socket.AF_INET6 else "0.0.0.0", VXLAN_PORT)
    kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    with socket.socket(family, kind, 0) as bound, socket.socket(family, kind, 0) as connected:
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            bound.bind(local)
            connected.bind((local[0], 0))
            connected.connect((host, port))
        except OSError as error:
            raise OSError(error.errno, error.strerror, f"{local[0]}:{local[1]}") from None
        return {"fd": bound.detach(), "other": connected.detach()}


def _open_files(wire: Wire) -> dict[str, int]:
    fds = {"fd": -1, "other": -1}
    try:
        if wire.file is not None:
            fds["fd"] = os.open(wire.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            if os.fstat(fds["fd"]).st_size == 0:
                os.write(fds["fd"], PCAP_HEADER)
        if wire.replay is not None:
            fds["other"] = os.open(wire.replay, os.O_RDONLY | os.O_CLOEXEC)
            header = os.read(fds["other"], len(PCAP_HEADER))
            if len(header) < len(PCAP_HEADER) or header[20:24] != PCAP_HEADER[20:24]:
                raise HostError("invalid", f"wire {wire.name}: {wire.replay} is no pcap file of Ethernet frames")
            if header[:4] not in (_PCAP_MAGIC, struct.pack("=I", 0xA1B2C3D4)):
                text = f"{wire.replay} is of another byte order or format; `editcap -F pcap` converts it"
                raise HostError("invalid", f"wire {wire.name}: {text}")
        return fds
    except BaseException:
        close_fds(fd for fd in fds.values() if fd >= 0)
        raise

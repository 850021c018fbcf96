"""Networks of guests whose TCP the device ends: a namespace of the partition's own, at the switch of its NIC (A2, A5).

    guest --requests--> NIC device --sockets--> kernel's TCP in the namespace --TAP--> wire of the NIC's switch

The interface in the namespace has the addresses of the NIC. The device gets two descriptors: the TAP as a wire, and the
namespace, in which it makes the sockets. Nothing else holds the namespace, so it is gone with them.
"""

from __future__ import annotations

import ipaddress
import threading
from typing import Any

from hostd import namespaces, tap, wiring
from hostd.errors import HostError
from hostd.manifest_wires import Wire
from hostd.records import Record
from hostd.wire import close_fds
from pyx import process


def make(interface: tap.Interface) -> list[int]:
    """Descriptors of a new network namespace and of the TAP in it. OSError and TapError as the kernel refuses."""
    made: list[int] = []
    failure: list[BaseException] = []

    def build() -> None:
        try:
            process.unshare(process.CLONE_NEWNET)
            process.loopback_up()
            made.append(namespaces.own())
            made.append(wiring.open_offloading(interface))
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=build, name="namespace")  # the calling one stays where it is
    thread.start()
    thread.join()
    if failure:
        close_fds(made)
        raise failure[0]
    return made


async def join(record: Record, devices: dict[str, Record], wires: wiring.Wiring, ask: Any) -> None:
    """The networks that a partition's NICs at these devices ask for. HostError `denied` names what is missing;
    nothing is left then."""
    ports = {endpoint["name"]: endpoint["port"] for endpoint in record.plan["endpoints"]}
    for nic in record.spec.nics:
        if nic.tcp is None or nic.device not in devices:
            continue
        addresses = tuple(map(ipaddress.ip_interface, nic.addresses))
        try:
            space, descriptor = make(tap.Interface(nic.name, b"", nic.mtu, addresses, True))
        except (OSError, tap.TapError) as error:
            text = f"{record.spec.name}: {nic.name}: no network of its own for TCP: {error}"
            raise HostError("denied", f"{text}; `hostctl doctor` names what is missing") from None
        try:
            facts = {"addresses": nic.addresses, "mtu": nic.mtu, "vlan": nic.vlan, "line": nic.line}
            wire = Wire(name=nic.name, kind="tap", interface=nic.name, **facts)
            placed = await wires.add(devices[nic.device], wire, record.name, {"fd": descriptor})
            message = {
                "port": ports[nic.name], "wire": placed.number, "connections": nic.tcp.connections,
                "ranges": nic.tcp.ranges,
            }  # fmt: skip
            await ask(devices[nic.device], "engage", message, [space])
        except BaseException:
            await wires.withdraw(record, devices)
            raise
        finally:
            close_fds([space])

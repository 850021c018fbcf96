"""hostctl wire: one more wire of a NIC device: a port that leads out of the host's partitions."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click

from tools import options
from tools.verbs.line import line_of, line_options

KINDS = ("tap", "packet", "vxlan", "pcap")


@options.verb()
@click.argument("device")
@click.argument("name")
@click.argument("kind", type=click.Choice(KINDS))
@click.option("--interface", metavar="NAME", help="Of tap: the new interface of the host; of packet: one that exists.")
@click.option("--address", "addresses", multiple=True, metavar="ADDRESS/LENGTH",
              help="Of tap: an address of the host there; may be repeated.")  # fmt: skip
@click.option("--mtu", type=int, metavar="BYTES", help="Of tap.")
@click.option("--remote", metavar="ADDRESS[:PORT]", help="Of vxlan: the other end.")
@click.option("--local", metavar="ADDRESS[:PORT]", help="Of vxlan: the own end. [default: any address]")
@click.option("--vni", type=int, metavar="NUMBER", help="Of vxlan: its network.")
@click.option("--file", metavar="FILE", help="Of pcap: frames to the wire are added to it.")
@click.option("--replay", metavar="FILE", help="Of pcap: its frames come from the wire, once.")
@click.option("--watches", is_flag=True, default=None, help="It gets all frames of the switch.")
@click.option("--vlan", type=int, metavar="NUMBER", help="The VLAN whose frames have no tag there.")
@click.option("--trunk", multiple=True, type=int, metavar="NUMBER",
              help="A VLAN whose frames have a tag there; may be repeated.")  # fmt: skip
@line_options
def command(
    session: options.Session, device: str, name: str, kind: str, addresses: tuple[str, ...], trunk: tuple[int, ...],
    file: str | None, replay: str | None, interface: str | None, mtu: int | None, remote: str | None,
    local: str | None, vni: int | None, watches: bool | None, vlan: int | None, **line: Any,
) -> None:  # fmt: skip
    """Give the NIC device DEVICE the wire NAME of KIND, until `hostctl unwire` or the end of the host.

    tap makes an interface of the host, packet uses one by AF_PACKET, vxlan is a UDP tunnel, pcap records or replays
    files. --speed to --seed simulate a line for the frames that come from there. `hostctl view --wires` counts them.

    \b
        hostctl wire nic0 host tap --interface pv-host --address 10.0.0.1/24
        hostctl wire nic0 trace pcap --file trace.pcap --watches
        hostctl wire nic0 far vxlan --remote 192.0.2.7 --vni 42 --delay 2ms
    """
    facts = {
        "interface": interface, "addresses": list(addresses) or None, "mtu": mtu, "remote": remote, "local": local,
        "vni": vni, "file": file and options.absolute(file), "replay": replay and options.absolute(replay),
        "watches": watches, "vlan": vlan, "trunk": list(trunk) or None, "line": line_of(line),
    }  # fmt: skip
    body = {"name": name, "kind": kind} | {key: value for key, value in facts.items() if value is not None}
    document = session.client().post(f"/v1/devices/{quote(device, safe='')}/wires", body)
    session.emit(document, lambda: [f"{document['device']} has the wire {document['name']}"])

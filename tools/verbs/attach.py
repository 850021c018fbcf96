"""hostctl attach: one more endpoint for a running guest."""

from __future__ import annotations

from typing import Any

import click

from tools import options, output
from tools.client import partition_path
from tools.verbs.spawn import disks_of, nic_of


@options.verb()
@click.argument("name", type=options.NAME)
@click.option("--disk", metavar="NAME:SIZE[:ro][,KEY=VALUE]...", help="A virtual disk, as for `hostctl spawn`.")
@click.option("--file", "file", metavar="FILE", help="The file of the disk. [default: GUEST-DISK.img]")
@click.option("--nic", metavar="NAME[,KEY=VALUE]...", help="A virtual NIC, as for `hostctl spawn`.")
@click.option("--device", metavar="DEVICE", help="The device. [default: the first of its kind]")
@options.key_option
def command(
    session: options.Session,
    name: str,
    disk: str | None,
    file: str | None,
    nic: str | None,
    device: str | None,
    key: str | None,
) -> None:
    """Give the running guest NAME one more endpoint.

    An interrupt tells the guest; it finds the endpoint as a function of its hardware and may open it by its name.
    """
    if (disk is None) == (nic is None):
        raise click.UsageError("either --disk or --nic is needed")
    entry: dict[str, Any]
    if disk is not None:
        files = () if file is None else (f"{disk.partition(':')[0]}:{file}",)
        (entry,) = disks_of((disk,), files, None)
    else:
        assert nic is not None
        entry = nic_of(nic, None)
    if device is not None:
        entry["device"] = device
    headers = {"Idempotency-Key": key} if key else None
    body = {"disk" if disk is not None else "nic": entry}
    document = session.client().request("POST", partition_path(name, "/endpoints"), body, headers=headers)
    took = output.seconds(document["seconds"])
    session.emit(document, lambda: [f"{name} has {document['endpoint']}, number {document['index']}, after {took}"])

"""hostctl vdisk: volumes and their virtual disks."""

import click

from tools import vdisk
from tools.folders import FolderGroup


class VolumeVerbs(FolderGroup):
    members = vdisk


@click.command("vdisk", cls=VolumeVerbs, short_help="volumes and their virtual disks.")
def command() -> None:
    """Make and keep volumes: virtual disks in a file or on a block device, thin, with snapshots and clones.

    Without a host, a verb opens the volume itself. A volume that a running host has open is changed by its owner,
    beside its guests; repair, format, and whatever would take a guest's disk away are refused with exit code 5.
    """

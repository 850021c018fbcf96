"""hostctl vdisk: volumes and their virtual disks."""

import importlib
from pathlib import Path

import click

from tools import vdisk

MARK = "@options.verb("  # what makes a module of tools/vdisk a verb; others there are helpers


class VolumeVerbs(click.Group):
    """A group whose commands are the verbs in `tools/vdisk`, loaded only when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        files = (path for folder in vdisk.__path__ for path in Path(folder).glob("*.py"))
        return sorted(path.stem for path in files if MARK in path.read_text())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        # As with verbs: only a name from the folder is ever imported.
        if cmd_name not in self.list_commands(ctx):
            return None
        command = importlib.import_module(f"{vdisk.__name__}.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command


@click.command("vdisk", cls=VolumeVerbs, short_help="volumes and their virtual disks.")
def command() -> None:
    """Make and keep volumes: virtual disks in a file or on a block device, thin, with snapshots and clones.

    Without a host, a verb opens the volume itself. A volume that a running host has open is changed by its owner,
    beside its guests; repair, format, and whatever would take a guest's disk away are refused with exit code 5.
    """

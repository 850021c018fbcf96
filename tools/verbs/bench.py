"""hostctl bench: measurements of the host and its parts."""

import click

from tools import bench
from tools.folders import FolderGroup


class Benchmarks(FolderGroup):
    members = bench
    mark = "@benchmark("


@click.command("bench", cls=Benchmarks, short_help="measurements of the host and its parts.")
def command() -> None:
    """Measure this machine and this host; every benchmark compares with a baseline measured in turn with it.

    With --json, one document: environment, and results in base units with their samples, baseline and ratio.
    """

"""hostctl bench: measurements of the host and its parts."""

import importlib
from pathlib import Path

import click

from tools import bench

MARK = "@benchmark("  # what makes a module of tools/bench a benchmark; others there are helpers


class Benchmarks(click.Group):
    """A group whose commands are the benchmarks in `tools/bench`, loaded only when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        files = (path for folder in bench.__path__ for path in Path(folder).glob("*.py"))
        return sorted(path.stem for path in files if MARK in path.read_text())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        # As with verbs: only a name from the folder is ever imported.
        if cmd_name not in self.list_commands(ctx):
            return None
        command = importlib.import_module(f"{bench.__name__}.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command


@click.command("bench", cls=Benchmarks, short_help="measurements of the host and its parts.")
def command() -> None:
    """Measure this machine and this host; every benchmark compares with a baseline measured in turn with it.

    With --json, one document: environment, and results in base units with their samples, baseline and ratio.
    """

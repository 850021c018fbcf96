"""Groups of commands whose members are the files of a folder, loaded only when they are called."""

import importlib
from pathlib import Path
from types import ModuleType

import click


class FolderGroup(click.Group):
    """The commands are those modules of the package `members` whose text holds `mark`; others there are helpers."""

    members: ModuleType
    mark = "@options.verb("

    def list_commands(self, ctx: click.Context) -> list[str]:
        files = (path for folder in self.members.__path__ for path in Path(folder).glob("*.py"))
        return sorted(path.stem for path in files if self.mark in path.read_text())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        # As with verbs: only a name from the folder is ever imported.
        if cmd_name not in self.list_commands(ctx):
            return None
        command = importlib.import_module(f"{self.members.__name__}.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

"""hostctl completion: the script for a shell."""

from collections.abc import Iterable

import click

from tools import options

SHELLS = ("bash", "zsh", "fish")


@options.verb()
@click.argument("shell", type=click.Choice(SHELLS))
def command(session: options.Session, shell: str) -> None:
    """Print the completion script for SHELL; load it with

    \b
        source <(hostctl completion bash)
    """
    from click.shell_completion import get_completion_class

    from tools.cli import cli

    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(cli, {}, "hostctl", "_HOSTCTL_COMPLETE").source()

    def text() -> Iterable[str]:
        yield script

    session.emit({"shell": shell, "script": script}, text)

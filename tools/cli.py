"""`hostctl VERB`: the command line of a host.

Each verb is a module in `tools/verbs` with a `command`, loaded only when it is called, so that every
verb starts as fast as its own imports allow. Exit codes are those of `hostd.errors.KINDS`.
"""

import difflib
import importlib
import os
import pkgutil
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import click

from hostd.errors import EXIT_FAILURE, HostError
from tools import output, verbs

INTERRUPTED = 130  # as a shell reports SIGINT
EPILOG = (
    "Exit codes: 0 done, 1 failure, 2 wrong usage, 3 invalid manifest, 4 not found, 5 conflict or wrong state, "
    "6 daemon unreachable, 7 timeout, 8 accepted but not placed, 99 threshold broken."
)


class Verbs(click.Group):
    """A group whose commands are the modules of `tools/verbs`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(found.name for found in pkgutil.iter_modules(verbs.__path__))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        # The module's name, not the caller's word, is imported: `hostctl os.path` must not load anything.
        if cmd_name not in self.list_commands(ctx):
            return None
        command = importlib.import_module(f"{verbs.__name__}.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], self.list_commands(ctx), 1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise click.UsageError(f"There is no verb {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=Verbs, epilog=EPILOG, context_settings={"help_option_names": ["--help", "-h"]})
def cli() -> None:
    """Control a Partvisor host: partitions in user space, their devices and their measurements."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        result: Any = cli.main(args=words, prog_name="hostctl", standalone_mode=False)
        sys.stdout.flush()
    except HostError as error:
        output.report(error, wants_json(words))
        return error.exit_code
    except ImportError as error:
        if not (error.name or "").startswith("pyx"):
            raise
        text = f"the built modules do not fit their source ({error}); tools/setup-environment builds them"
        output.report(HostError("internal", text), wants_json(words))
        return EXIT_FAILURE
    except click.ClickException as error:
        if wants_json(words):
            output.report(HostError("usage", error.format_message()), True)
        else:
            error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        # The reader went away, as `| head` does. Nothing may be flushed into the pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE
    return result if isinstance(result, int) else 0


def wants_json(words: Sequence[str]) -> bool:
    """Whether the caller asked for JSON, in a command line that may be wrong otherwise."""
    own = list(words[: words.index("--")] if "--" in words else words)
    return "--json" in own or "--output=json" in own or ("--output", "json") in pairwise(own)


def main() -> None:
    """Entry of the console script."""
    sys.exit(run())


if __name__ == "__main__":
    main()

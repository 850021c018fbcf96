"""Options that all verbs share, and the session that a verb gets for them."""

import functools
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import click

from hostd.paths import Paths, resolve
from hostd.units import UnitError, parse_duration, parse_size
from tools import output
from tools.client import Client


@dataclass
class Session:
    """One call of a verb: where the host is, and how the answer is printed."""

    paths: Paths
    form: str

    def client(self, timeout: float | None = None) -> Client:
        return Client(self.paths) if timeout is None else Client(self.paths, timeout)

    def emit(self, document: Any, text: Callable[[], Iterable[str]], rows: Sequence[Any] | None = None) -> None:
        output.emit(document, self.form, text, rows)


class Unit(click.ParamType):
    """A size or a duration of hostd.units."""

    def __init__(self, name: str, parse: Callable[[object], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self._parse(value)
        except UnitError as error:
            self.fail(f"{value!r} {error}", param, ctx)


def _partitions(ctx: click.Context) -> list[dict[str, Any]]:
    """Those of the running host, for completion; none where it does not answer."""
    from hostd.errors import HostError

    try:
        return Client(resolve(ctx.params.get("runtime_dir")), timeout=1.0).get("/v1/partitions")["partitions"]
    except HostError:
        return []


class PartitionName(click.ParamType):
    """A name of a partition, completed from the running host."""

    name = "name"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        return [
            CompletionItem(row["name"], help=f"{row['type']}, {row['state']}")
            for row in _partitions(ctx)
            if row["name"].startswith(incomplete)
        ]


class EndpointName(click.ParamType):
    """A name of an endpoint of the partition before it, completed from the running host."""

    name = "endpoint"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        return [
            CompletionItem(end["name"], help=f"{end['kind']} at {end['device']}, {end['path']}")
            for row in _partitions(ctx)
            if row["name"] == ctx.params.get("name")
            for end in row["endpoints"]
            if end["name"].startswith(incomplete)
        ]


SIZE = Unit("size", parse_size)
DURATION = Unit("duration", parse_duration)
NAME = PartitionName()
ENDPOINT = EndpointName()

key_option = click.option("--key", metavar="KEY", help="Idempotency key: the same call with the same key happens once.")


def verb(default_form: str = "table", **settings: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """Decorator that makes a function a verb. Its first argument is the Session."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        @functools.wraps(function)
        def call(runtime_dir: str | None, form: str | None, as_json: bool, **arguments: Any) -> Any:
            inherited = _inherited()
            form = "json" if as_json else form or inherited.get("form") or default_form
            session = Session(resolve(runtime_dir or inherited.get("runtime_dir")), form)
            return function(session, **arguments)

        command: Any = call
        for option in reversed(_shared(default_form)):
            command = option(command)
        module = sys.modules[function.__module__]
        # "hostctl list: the guests of the host." -> what `hostctl --help` shows beside the name
        short = (module.__doc__ or "").partition("\n")[0].partition(": ")[2]
        return click.command(module.__name__.rpartition(".")[2], short_help=short, **settings)(command)

    return decorate


def _inherited() -> dict[str, Any]:
    """What was given to the group that a verb belongs to: `hostctl chaos --runtime-dir DIR delay ...`."""
    context = click.get_current_context()
    given = dict(context.parent.params) if context.parent is not None else {}
    return given | ({"form": "json"} if given.get("as_json") else {})


def _shared(default_form: str) -> list[Any]:
    return [
        click.option(
            "--runtime-dir",
            metavar="DIR",
            type=click.Path(file_okay=False),
            help="Runtime folder of the host. [default: $PARTVISOR_RUNTIME_DIR, else by system and user]",
        ),
        click.option(
            "--output", "form", type=click.Choice(output.FORMATS), help=f"Form of the data. [default: {default_form}]"
        ),
        click.option("--json", "as_json", is_flag=True, help="Short for --output json."),
    ]


def absolute(path: str) -> str:
    """A path as the daemon may use it, whose working directory is another one."""
    return os.path.abspath(os.path.expanduser(path))

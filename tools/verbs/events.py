"""hostctl events: what happened, and what happens."""

import json

import click

from tools import options, output


@options.verb()
@click.option("--follow", "-f", is_flag=True, help="Go on with new events until interrupted.")
@click.option(
    "--since", type=click.IntRange(min=0), default=0, metavar="N", help="Only events after sequence number N."
)
def command(session: options.Session, follow: bool, since: int) -> None:
    """Show the events of the host, oldest first; the last 4096 are kept.

    With --json or --output jsonl one document per line, as they happen.
    """
    lines = session.client().lines("/v1/events", since=since, follow=follow)
    if session.form == "yaml":
        for event in lines:
            print(output.yaml_text([event]), end="", flush=True)
    elif session.form in ("json", "jsonl"):
        for event in lines:
            print(json.dumps(event), flush=True)
    else:
        for event in lines:
            print(_text(dict(event)), flush=True)


def _text(event: dict[str, object]) -> str:
    number, when, kind = event.pop("sequence"), event.pop("time"), event.pop("kind")
    partition = event.pop("partition", None) or "-"
    rest = " ".join(f"{key}={value}" for key, value in event.items())
    assert isinstance(when, float | int)
    return f"{number:>5}  {output.clock(when)}  {kind:<12}  {partition:<16}  {rest}".rstrip()

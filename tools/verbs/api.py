"""hostctl api: a raw call to the API."""

import json
import sys
from typing import Any

import click

from hostd.errors import HostError
from tools import options, output


@options.verb("json")
@click.argument("method", type=click.Choice(("GET", "POST", "PUT", "DELETE"), case_sensitive=False))
@click.argument("path")
@click.option("--data", metavar="JSON", help="Body: JSON text, @FILE, or - for stdin.")
@options.key_option
def command(session: options.Session, method: str, path: str, data: str | None, key: str | None) -> None:
    """Send METHOD PATH to the host, as `hostctl api GET /v1/status`; /v1/openapi.json lists all paths."""
    if not path.startswith("/"):
        raise click.BadParameter(f"{path!r} does not start with /", param_hint="PATH")
    client = session.client()
    if method == "GET" and path.partition("?")[0] == "/v1/events":
        for event in client.lines(path):
            print(json.dumps(event), flush=True)
        return
    headers = {"Idempotency-Key": key} if key else None
    document = client.request(method, path, _body(data), headers=headers)
    session.emit(document, lambda: output.tree(document))


def _body(data: str | None) -> Any:
    if data is None:
        return None
    try:
        if data == "-":
            text = sys.stdin.read()
        elif data.startswith("@"):
            with open(data[1:], encoding="utf-8") as file:
                text = file.read()
        else:
            text = data
        return json.loads(text)
    except OSError as error:
        raise HostError("usage", f"{data[1:]}: {error.strerror}") from error
    except ValueError as error:
        raise HostError("usage", f"--data is not JSON: {error}") from error

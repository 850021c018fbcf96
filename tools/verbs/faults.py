"""hostctl faults: faults on purpose in the data plane, scripted and seeded."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import yaml

from tools import options, output


@options.verb()
@click.argument("action", type=click.Choice(["arm", "list", "clear"]))
@click.argument("script", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False)
@click.option("--seed", type=click.IntRange(0, (1 << 64) - 1), help="In place of the script's own seed.")
def command(session: options.Session, action: str, script: Path | None, seed: int | None) -> None:
    """Arm the faults of a SCRIPT (YAML or JSON), list what they have struck, or clear them.

    \b
        seed: 7
        faults:
          - {kind: error, partition: one, endpoint: vda, operation: write, after: 3}
          - {kind: late, partition: one, endpoint: vda, seconds: 0.2, count: 0, chance: 0.01}
          - {kind: hung, role: io-a, seconds: 1}

    Kinds: delay, error, duplicate, lost, late, interrupt, torn, corrupt; hung. The same seed and the same requests give
    the same log. Nothing is armed after a start of the host.
    """
    if (action == "arm") != (script is not None):
        raise click.UsageError("arm takes a script" if action == "arm" else f"{action} takes no script")
    client = session.client()
    if script is not None:
        try:
            wanted = yaml.safe_load(script.read_text())
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise click.UsageError(f"{script}: {error}") from error
        if isinstance(wanted, dict) and seed is not None:
            wanted["seed"] = seed
        document = client.request("PUT", "/v1/faults", wanted)
    elif action == "list":
        document = client.get("/v1/faults")
    else:
        document = client.request("DELETE", "/v1/faults")
    session.emit(document, lambda: _text(document))


def _text(document: dict[str, Any]) -> Iterable[str]:
    if "cleared" in document:
        yield f"{document['cleared']} faults cleared"
        return
    for role in document.get("hung", ()):
        yield f"{role['role']} stands still for {output.seconds(role['seconds'])} from now on"
    if not document["faults"] and not document.get("hung"):
        yield "no fault is armed"
    for number, fault in enumerate(document["faults"]):
        seen = f"{fault['struck']} of {fault['seen']} requests" if "seen" in fault else "forgotten by its device"
        yield f"{number}: {fault['kind']} at {fault['partition']} {fault['endpoint']} ({fault['device']}): {seen}"
    for line in document["log"]:
        yield f"  fault {line['fault']}: request {line['number']}, {line['operation']} of {line['length']} bytes"

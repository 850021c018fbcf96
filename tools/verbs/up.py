"""hostctl up: start a host in the background."""

import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import click

from tools import daemon, options


@options.verb()
@click.argument("manifest", required=False, type=click.Path(dir_okay=False))
@click.option(
    "--state-dir", metavar="DIR", help="State folder: databases, disks, log. [default: by the runtime folder]"
)
@click.option("--no-load", is_flag=True, help="Boot only: the console with its devices, no kernel and no guests.")
@click.option("--timeout", type=options.DURATION, default=daemon.START_SECONDS, help="How long to wait for readiness.")
def command(
    session: options.Session, manifest: str | None, state_dir: str | None, no_load: bool, timeout: float
) -> None:
    """Start a host as MANIFEST describes it and wait until it is ready: boot, and load.

    Without MANIFEST a small host with one NIC, one disk device and no guests is started. The daemon's
    log is STATE/hostd.log. `hostctl down` ends it.
    """
    paths = session.paths
    if state_dir:
        paths = replace(paths, state=Path(options.absolute(state_dir)))
    begin = time.monotonic()
    pid = daemon.start(paths, manifest, timeout, not no_load)
    document = {
        "pid": pid,
        "runtime_dir": str(paths.runtime),
        "state_dir": str(paths.state),
        "log": str(paths.log),
        "loaded": not no_load,
        "seconds": round(time.monotonic() - begin, 3),
    }

    def text() -> Iterable[str]:
        state = "" if document["loaded"] else ", no kernel is loaded"
        yield f"host is up in {document['seconds']} s: hostd has pid {pid}, runtime folder {paths.runtime}{state}"

    session.emit(document, text)

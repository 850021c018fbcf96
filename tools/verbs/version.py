"""hostctl version: of this program and of the host."""

import os
import platform
from collections.abc import Iterable
from importlib import metadata
from typing import Any

from hostd.errors import HostError
from tools import options


@options.verb()
def command(session: options.Session) -> None:
    """Show the versions of this program and, where one runs, of the host."""
    try:
        release = metadata.version("partvisor")
    except metadata.PackageNotFoundError:
        release = "unknown"
    document: dict[str, Any] = {
        "hostctl": {"version": release, "python": platform.python_version(), "kernel": os.uname().release},
        "host": None,
    }
    try:
        document["host"] = session.client(5.0).get("/v1/version")
    except HostError as error:
        if error.code != "unreachable":
            raise

    def text() -> Iterable[str]:
        yield f"hostctl {release}, Python {platform.python_version()}, Linux {os.uname().release}"
        host = document["host"]
        yield f"host    {host['version']}, API {host['api']}, pid {host['pid']}" if host else "host    does not run"

    session.emit(document, text)

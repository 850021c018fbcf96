"""What a guest tells the host over its lifecycle socket, and what a hostile one would send there."""

from __future__ import annotations

import json
import os
from typing import Any

from puppet import Puppet


def report(puppet: Puppet, values: dict[str, Any]) -> None:
    puppet.guest.report(**values)


def nonsense(puppet: Puppet) -> None:
    """None of this is a report."""
    descriptor = puppet.guest._lifecycle
    for data in (b"", b"x", b"{", b"[]", b"null", b'{"report": 1}', b'{"report": null}', b'{"started": "now"}',
                 b'{"started": 5}', b"\xff" * 100, b"[" * 5000, json.dumps({"report": {"long": "x" * 8192}}).encode()):
        if data:
            os.write(descriptor, data)

"""Hardware from inside, as a guest finds it."""

from __future__ import annotations

import time
from typing import Any


def enumerate_all(puppet: Any) -> dict[str, Any]:
    """Functions on the buses of the table, the table, and the seconds that the first walk took."""
    begin = time.perf_counter()
    found = puppet.guest.hardware.enumerate()
    return {"found": found, "table": puppet.guest.hardware.table(), "seconds": time.perf_counter() - begin}


def probe(puppet: Any) -> list[dict[str, Any]]:
    """A look at every function of every bus."""
    return puppet.guest.hardware.probe()


def read(puppet: Any, address: list[int]) -> str:
    """One configuration page in hexadecimal."""
    return puppet.guest.hardware.read(*address).hex()

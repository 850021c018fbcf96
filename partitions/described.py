"""An endpoint of a plan as partition descriptors have it: one way from rows to the shared layout (U3, U5).

The ultravisor publishes it in views, and the console writes it into its own translation entries before a monitor
runs: the monitor takes those over only where they are equal.
"""

from __future__ import annotations

from typing import Any

from pyx import abi

NO_SERVER = 0xFFFF  # no partition has this slot: the endpoint is its partition's own business


def described(entry: dict[str, Any]) -> dict[str, Any]:
    """The form that ViewWriter.publish and Entries.open take, of an endpoint of a plan."""
    return {
        "index": entry["index"],
        "generation": entry["generation"],
        "name": entry["name"],
        "kind": abi.ENDPOINT_KINDS[entry["kind"]],
        "device": entry["device_slot"],
        "port": entry["port"],
        "server": NO_SERVER if entry["server_slot"] is None else entry["server_slot"],
        "operations": entry["operations"],
        "offset": entry["offset"],
        "length": entry["length"] if entry["kind"] == "disk" else withheld(entry["limits"]),
        "max_transfer": entry["max_transfer"],
        "mac": entry["mac"],
        "flags": (abi.ENDPOINT_READ_ONLY if entry["read_only"] else 0)
        | abi.PATHS[entry["wanted"]] << abi.ENDPOINT_PATH_SHIFT,
    }


def withheld(limits: dict[str, Any]) -> int:
    """Bits of the offloads that policy does not grant to an endpoint: all but those in `limits`, if any is named; and
    connections, where there are to be none."""
    return unnamed(limits) | (0 if limits.get("connections") else abi.OFFLOADS["tcp"])


def unnamed(limits: dict[str, Any]) -> int:
    """Bits of the offloads that `limits` does not name, where it names any: those of a whole device."""
    if "offloads" not in limits:
        return 0
    return sum(bit for name, bit in abi.OFFLOADS.items() if name not in limits["offloads"])

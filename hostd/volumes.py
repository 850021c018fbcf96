"""Volumes that disk devices have open: which they are, and commands to their owners (W9).

    hostctl vdisk --> API --> hostd --> device process --> its volume, between two polls of the data thread

A volume has one owner at a time. While a host runs that is the device process, so commands go there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hostd.asking import ask
from hostd.errors import HostError
from hostd.manifest import Device
from hostd.records import Record

Row = dict[str, Any]

CHANGES = ("create", "snapshot", "clone", "resize", "remove")  # what the host's events tell of


def of(devices: Iterable[Device]) -> list[Row]:
    """[{"device", "file"}] of a manifest's devices."""
    return [{"device": device.name, "file": device.volume.file} for device in devices if device.volume]


async def change(devices: Mapping[str, Record], device: str, command: str, arguments: Row) -> Row:
    """What the owner answers. HostError `not_found` where there is no such device, or RemoteError with its refusal."""
    if device not in devices:
        raise HostError("not_found", f"{device!r} is no device; known: {', '.join(devices)}")
    return await ask(devices[device], "volume", {"verb": command, "arguments": arguments})

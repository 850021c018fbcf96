"""What the disk devices say of their media, for `hostctl status`: how each file is read and written (U10)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from hostd.manifest import Device
from hostd.records import Record

Row = dict[str, Any]


async def media(
    devices: Iterable[Device], records: dict[str, Record], told: Callable[[Record, str], Awaitable[Row]]
) -> dict[str, Row]:
    """By disk device: {"medium", "files": {path: how its data move}, "without_ring": why there is none, "problem":
    of its volume}, the last two empty where all is well; those that have ended are left out."""
    disks = [device.name for device in devices if device.kind == "disk" and device.name in records]
    return {name: answer for name in disks if (answer := await told(records[name], "media"))}

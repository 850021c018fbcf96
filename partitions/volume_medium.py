"""The volume of a disk device: opening or making it, the disks of endpoints, and commands beside running guests.

The data thread owns an open volume; what is done here is done between two of its polls (`Virtual.with_volume`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from hostd.errors import HostError
from pyx import volume as volumes
from pyx.volume import Volume, VolumeError

FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW


def open_volume(path: Path, size: int | None, lock: Callable[[int, Path], None]) -> Volume:
    """The volume in a file or block device, for this process alone; a missing file is made with `size` bytes, sparse.
    HostError `not_found` where it is missing and there is no size, `state` where it cannot be opened."""
    try:
        descriptor = os.open(path, FLAGS)
    except FileNotFoundError:
        if size is None:
            raise HostError("not_found", f"there is no volume {path}, and no size for a new one") from None
        descriptor = _make(path, size)
    try:
        lock(descriptor, path)
        return Volume(descriptor)
    except VolumeError as error:
        raise HostError("state", f"{path}: {error.strerror}") from None
    finally:
        os.close(descriptor)


def _make(path: Path, size: int) -> int:
    """Whole or not at all: a host that dies meanwhile leaves no file that is no volume."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(new, FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.ftruncate(descriptor, size)
        volumes.format(descriptor, size)
        os.link(new, path)
    except BaseException:
        os.close(descriptor)
        raise
    finally:
        os.unlink(new)
    return descriptor


def have_disk(volume: Volume, name: str, size: int, create: bool) -> None:
    """The disk is there and has `size` bytes at least. HostError where it is not."""
    found = {row["name"]: row for row in volume.rows()}.get(name)
    if found is None:
        if not create:
            raise HostError("not_found", f"the volume has no disk {name}, and makes none by itself")
        _told(lambda: volume.create(name, size))
    elif found["size"] < size:
        raise HostError("conflict", f"disk {name} of the volume has {found['size']} bytes, not {size}; resize it")


def change(volume: Volume, verb: str, arguments: dict[str, Any], used: Collection[str]) -> dict[str, Any]:
    """A command on an open volume; `used` are the disks of endpoints. The answer of `info`, or the rows afterwards.
    HostError where the volume refuses it, or a disk is in use."""
    verbs: dict[str, Callable[..., Any]] = {
        "create": volume.create,
        "snapshot": volume.snapshot,
        "clone": volume.clone,
        "resize": volume.resize,
        "remove": volume.remove,
    }
    if verb == "info":
        return volume.info()
    if verb != "list":
        if verb not in verbs:
            raise HostError("unsupported", f"not while a host has the volume: {verb}")
        name = arguments.get("name")
        size = next((row["size"] for row in volume.rows() if row["name"] == name), 0)
        if name in used and (verb == "remove" or (verb == "resize" and arguments["size"] < size)):
            raise HostError("state", f"a guest has disk {name}; it can neither be removed nor become smaller")
        _told(lambda: verbs[verb](**arguments))
    return {"disks": volume.rows()}


def _told(action: Callable[[], None]) -> None:
    try:
        action()
    except VolumeError as error:
        raise HostError("state", error.strerror) from None

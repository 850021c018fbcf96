"""The volume of a disk device: opening or making it, the disks of endpoints, and commands beside running guests.

The data thread owns an open volume; what is done here is done between two of its polls (`Virtual.with_volume`).
"""

from __future__ import annotations

import binascii
import errno
import os
from base64 import b64decode
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from hostd.errors import HostError
from hostd.volume_commands import COMMANDS, missing, refusal
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


def past_page_cache(path: Path, volume: Volume) -> int:
    """Another descriptor of an open volume, past the page cache; -1, and a word of it, where the file system has none.
    HostError `state` where `path` is another file by now."""
    try:
        descriptor = os.open(path, FLAGS | os.O_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        print(f"{path} lies on a file system without direct I/O: it goes through the page cache", flush=True)
        return -1
    if not os.path.samestat(os.fstat(descriptor), os.fstat(volume.fd)):
        os.close(descriptor)
        raise HostError("state", f"{path} was replaced by another file while it was opened")
    return descriptor


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


def grow_disk(volume: Volume, name: str, size: int) -> int:
    """The disk gets `size` bytes where it has fewer; returns those that it has."""
    there = next(int(row["size"]) for row in volume.rows() if row["name"] == name)
    if there < size:
        _told(lambda: volume.resize(name, size))
    return max(there, size)


def change(volume: Volume, verb: str, arguments: dict[str, Any], used: Collection[str]) -> dict[str, Any]:
    """A command of hostd.volume_commands on an open volume; `used` are the disks of endpoints.

    HostError where the volume refuses it, or a disk is in use.
    """
    wrong = missing(verb, arguments) if verb in COMMANDS else f"no command on a volume: {verb}"
    if wrong:
        raise HostError("usage", wrong)
    name, size = arguments.get("name", ""), arguments.get("size", 0)
    if name in used and (
        verb in ("remove", "write", "write_zeroes")
        or (verb == "resize" and size < next((row["size"] for row in volume.rows() if row["name"] == name), 0))
    ):
        raise HostError("state", f"a guest has disk {name}; {verb} waits until it has gone")
    return _told(lambda: _commands(volume, arguments)[verb]())


def _commands(volume: Volume, given: dict[str, Any]) -> dict[str, Callable[[], dict[str, Any]]]:
    def rows() -> dict[str, Any]:
        return {"disks": volume.rows()}

    def after(change: Callable[[], None]) -> Callable[[], dict[str, Any]]:
        def work() -> dict[str, Any]:
            change()
            return rows()

        return work

    return {
        "list": rows,
        "info": volume.info,
        "check": lambda: {"found": volume.check()},
        "create": after(lambda: volume.create(given["name"], given["size"], given.get("quota"))),
        "snapshot": after(lambda: volume.snapshot(given["name"], given["other"])),
        "clone": after(lambda: volume.clone(given["name"], given["other"])),
        "resize": after(lambda: volume.resize(given["name"], given["size"])),
        "remove": after(lambda: volume.remove(given["name"])),
        "extents": lambda: {"extents": volume.extents(given["name"], given["offset"], given["length"])},
        "write": lambda: _written(volume, given["name"], given["offset"], b64decode(given["data"], validate=True)),
        "write_zeroes": after(lambda: volume.write_zeroes(given["name"], given["offset"], given["length"])),
        "give_back": lambda: {"bytes": volume.give_back()},
    }


def _written(volume: Volume, name: str, offset: int, data: bytes) -> dict[str, Any]:
    volume.write(name, offset, data)
    return {"written": len(data)}


def _told(action: Callable[[], Any]) -> Any:
    try:
        return action()
    except VolumeError as error:
        raise refusal(error) from None
    except binascii.Error as error:
        raise HostError("usage", f"data is no base64: {error}") from None

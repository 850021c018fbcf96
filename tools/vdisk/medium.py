"""Opening volumes for a verb, and what their errors mean for its caller."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from hostd.errors import HostError
from hostd.volume_commands import refusal
from pyx.volume import Volume, VolumeBusy, VolumeError
from tools.options import Session
from tools.vdisk.held import HeldVolume, find

volume_argument = click.argument("volume", type=click.Path(dir_okay=False), metavar="VOLUME")
disk_argument = click.argument("name", metavar="NAME")


@contextmanager
def errors(path: str, checked: bool = False) -> Iterator[None]:
    """Errors of a volume and of its file as HostErrors that name it; `checked`: a check meets them."""
    try:
        yield
    except VolumeBusy as error:
        raise HostError("state", f"{path}: {error.strerror}") from None
    except VolumeError as error:
        raise refusal(error, path, checked) from None
    except FileNotFoundError as error:
        raise HostError("not_found", f"{error.filename or path}: {error.strerror}") from None
    except PermissionError as error:
        raise HostError("denied", f"{error.filename or path}: {error.strerror}") from None
    except OSError as error:
        raise HostError("internal", f"{error.filename or path}: {error.strerror}") from None


@contextmanager
def opened(
    session: Session, path: str, *, read_only: bool = False, tolerant: bool = False
) -> Iterator[Volume | HeldVolume]:
    """The volume at `path`, for this command alone; or by way of the host that has it open. What it changes is durable
    with each call that says so."""
    with errors(path, tolerant):
        fd = os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)
        try:
            mode = os.fstat(fd).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
                raise HostError("usage", f"{path}: a volume lies in a file or on a block device")
            try:
                volume = Volume(fd, read_only=read_only, tolerant=tolerant)
            except VolumeBusy:
                held = find(session.client(), path, fd)
                if held is None or (tolerant and not read_only):  # nobody mends what somebody else is using
                    raise
                yield held
                return
            with volume:
                yield volume
        finally:
            os.close(fd)


def disk(volume: Volume | HeldVolume, name: str) -> dict[str, Any]:
    """The row of the disk of that name. VolumeError ENOENT where there is none."""
    for row in volume.rows():
        if row["name"] == name:
            return row
    raise VolumeError(errno.ENOENT, f"there is no disk {name}")

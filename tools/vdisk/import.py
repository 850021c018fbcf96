"""hostctl vdisk import: the data of an image into a virtual disk."""

import os
import sys
import tempfile

import click

from hostd.errors import HostError
from pyx.volume import Volume
from tools import options
from tools.measure.turns import Progress
from tools.vdisk import images
from tools.vdisk.held import HeldVolume
from tools.vdisk.medium import disk, disk_argument, errors, opened, volume_argument

CONVERTING = 0.5  # of the time of an import that goes through qemu-img


@options.verb()
@volume_argument
@disk_argument
@click.argument("image", type=click.Path(dir_okay=False))
@click.option("--format", "kind", help="Format of the image: raw, qcow2 or another one that qemu-img knows. "
                                       "[default: qcow2 where it is one, else raw]")
def command(session: options.Session, volume: str, name: str, image: str, kind: str | None) -> None:
    """Copy the raw or qcow2 IMAGE into the disk NAME, which is made where it is missing. What it held is gone.

    Only what holds data is allocated. Formats other than raw need qemu-img, and space for a raw copy beside VOLUME.
    """
    progress = Progress(f"import {name}", sys.stderr)
    with errors(image):
        kind = kind or images.detect(image)
    try:
        where = tempfile.TemporaryDirectory(prefix=".partvisor-", dir=beside(volume))
        with opened(session, volume) as held, where as folder:
            raw = image
            if kind != "raw":
                raw = os.path.join(folder, "raw")
                images.convert(image, kind, raw, "raw", lambda part: progress.show(part * CONVERTING, "qemu-img"))
            begin = CONVERTING if kind != "raw" else 0.0
            made = fill(held, name, raw, lambda part: progress.show(begin + part * (1 - begin), "copying"))
            document = {**disk(held, name), **made, "format": kind}
    finally:
        progress.clear()
    session.emit(document, lambda: [f"{name}: {document['size']} bytes, {document['written_bytes']} of them data"])


def beside(volume: str) -> str | None:
    """A folder with space for a copy: the volume's own; None, that of the system, where it is a device."""
    return os.path.dirname(os.path.abspath(volume)) if os.path.isfile(volume) else None


def fill(held: Volume | HeldVolume, name: str, raw: str, report: images.Report) -> dict[str, object]:
    """Puts a raw image into the disk, which is made, or emptied, before. HostError `conflict` where it is too small."""
    with errors(raw):
        fd = os.open(raw, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.lseek(fd, 0, os.SEEK_END)
        finally:
            os.close(fd)
    if not size:
        raise HostError("usage", f"{raw}: the image is empty")
    there = next((row for row in held.rows() if row["name"] == name), None)
    if there is None:
        held.create(name, -(-size // images.SECTOR) * images.SECTOR)
    elif there["size"] < size:
        raise HostError("conflict", f"{name} has {there['size']} bytes, the image {size}: resize the disk first")
    else:
        held.write_zeroes(name, 0, there["size"])
    try:
        return {"created": there is None, "written_bytes": images.read_raw(raw, held, name, size, report)}
    except BaseException:
        if there is None:  # half of an image is no disk
            held.remove(name)
        raise

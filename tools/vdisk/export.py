"""hostctl vdisk export: an image of a virtual disk."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import click

from hostd.errors import HostError
from pyx.volume import Volume
from tools import options
from tools.measure.turns import Progress
from tools.vdisk import images
from tools.vdisk.held import HeldVolume
from tools.vdisk.medium import disk, disk_argument, errors, opened, volume_argument

READING = 0.5  # of the time of an export that goes through qemu-img


@options.verb()
@volume_argument
@disk_argument
@click.argument("image", type=click.Path(dir_okay=False))
@click.option("--format", "kind", help="Format of the image: raw, qcow2 or another one that qemu-img knows. "
                                       "[default: qcow2 where IMAGE ends like that, else raw]")
@click.option("--force", is_flag=True, help="Write over an IMAGE that exists.")
def command(session: options.Session, volume: str, name: str, image: str, kind: str | None, force: bool) -> None:
    """Write the data of the disk NAME to IMAGE, which appears when it is complete and is sparse like the disk.

    Formats other than raw need qemu-img, and space for a raw copy beside IMAGE.
    """
    kind = kind or ("qcow2" if image.endswith(".qcow2") else "raw")
    if os.path.exists(image) and not force:
        raise HostError("conflict", f"{image} exists; --force writes over it")
    progress = Progress(f"export {name}", sys.stderr)
    try:
        with opened(session, volume, read_only=True) as held, errors(image):
            row = disk(held, name)
            size = int(str(row["size"]))
            where = os.path.dirname(os.path.abspath(image))
            if not os.path.isdir(where):
                raise HostError("not_found", f"{image}: there is no folder {where}")
            with tempfile.TemporaryDirectory(prefix=".partvisor-", dir=where) as folder:
                made = os.path.join(folder, "raw")
                whole = READING if kind != "raw" else 1.0
                with still(held, name) as source:
                    written = images.write_raw(
                        held, source, size, made, lambda part: progress.show(part * whole, "copying")
                    )
                if kind != "raw":
                    raw, made = made, os.path.join(folder, "image")
                    images.convert(raw, "raw", made, kind,
                                   lambda part: progress.show(READING + part * (1 - READING), "qemu-img"))
                os.replace(made, image)
    finally:
        progress.clear()
    document = {"name": name, "image": image, "format": kind, "size": size, "written_bytes": written}
    session.emit(document, lambda: [f"{image}: {size} bytes, {written} of them data"])


@contextmanager
def still(held: Volume | HeldVolume, name: str) -> Iterator[str]:
    """The name of a disk with this one's data that nobody changes: a snapshot, where a guest may be writing."""
    if isinstance(held, Volume):
        yield name
        return
    snapshot = f".export-{os.getpid()}-{name}"[:63]
    held.snapshot(name, snapshot)
    try:
        yield snapshot
    finally:
        held.remove(snapshot)

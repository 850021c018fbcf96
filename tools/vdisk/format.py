"""hostctl vdisk format: make an empty volume."""

import os
import stat

import click

from hostd.errors import HostError
from pyx.volume import BLOCK_SIZE, Volume, VolumeBusy, VolumeError, lock
from pyx.volume import format as format_volume
from tools import options
from tools.vdisk.medium import errors, volume_argument


@options.verb()
@volume_argument
@click.option("--size", type=options.SIZE, help="Bytes of the volume. [default: all of a file or device that exists]")
@click.option("--block-size", type=options.SIZE, default=BLOCK_SIZE, show_default=True, help="4 KiB to 1 MiB.")
@click.option("--disks", type=click.IntRange(1), help="For how many disks there are rows. [default: up to 4,095]")
@click.option("--pointers", type=options.SIZE, help="Bytes for pointer pages. [default: 1/64 of the volume]")
@click.option("--force", is_flag=True, help="Format what holds a volume, or other data, already.")
def command(
    session: options.Session, volume: str, size: int | None, block_size: int, disks: int | None, pointers: int | None,
    force: bool,
) -> None:  # fmt: skip
    """Make an empty volume in the file or on the block device VOLUME; a file is made where there is none.

    A file stays sparse: it takes the space that its disks use.
    """
    with errors(volume):
        fd = os.open(volume, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _prepare(fd, volume, size, force)
            whole = size or os.lseek(fd, 0, os.SEEK_END)
            format_volume(fd, whole, block_size=block_size, disks=disks or 0, pointer_pages=(pointers or 0) // 4096)
            with Volume(fd, read_only=True) as made:
                document = made.info()
        finally:
            os.close(fd)
    session.emit(document, lambda: [f"{volume}: {document['blocks']} blocks of {block_size} bytes, no disks"])


def _prepare(fd: int, path: str, size: int | None, force: bool) -> None:
    """Brings the medium to its size. HostError where it is not one, holds something, or is too small."""
    mode = os.fstat(fd).st_mode
    there = os.lseek(fd, 0, os.SEEK_END)
    if not there and not size:
        raise HostError("usage", f"{path}: a new file needs --size")
    if not force and there and any(os.pread(fd, 4096, 0)):
        try:
            with Volume(fd, read_only=True) as old:
                held = f"a volume with {old.info()['disks']} disks"
        except VolumeBusy:
            raise
        except VolumeError as error:
            held = error.strerror or "data"
        raise HostError("conflict", f"{path}: it is not empty ({held}); --force formats it all the same")
    if stat.S_ISREG(mode):
        lock(fd)  # before anything of it is given up
        if size is not None and size != there:
            os.ftruncate(fd, 0)  # with --force: the blocks of the old one go back to the file system
            os.ftruncate(fd, size)
    elif size is not None and size > there:
        raise HostError("usage", f"{path}: it has {there} bytes, less than {size}")

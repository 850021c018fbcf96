"""A volume of virtual disks, for Python: what `hostctl vdisk`, tests and benchmarks use (W9).

All of it is in volume.h, which data threads call directly through volumec.pxd; this class adds exclusive use (a lock of
the open file description), names instead of rows, and commits where a change has to be durable before it is answered.
Sizes and offsets are bytes.
"""

import fcntl
import os

from libc.errno cimport EAGAIN, EINVAL, ENOSPC
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from pyx.volumec cimport (
    PV_FOUND_KINDS, PV_VOLUME_LIVE, PV_VOLUME_PAGE, PV_VOLUME_READ_ONLY, PV_VOLUME_VERSION, pv_volume, pv_volume_block_count, pv_volume_block_offset,
    pv_volume_check, pv_volume_checkpoint, pv_volume_close, pv_volume_commit, pv_volume_create, pv_volume_discard, pv_volume_disk, pv_volume_extent, pv_volume_file,
    pv_volume_find, pv_volume_format, pv_volume_io, pv_volume_is_held, pv_volume_lookup, pv_volume_open, pv_volume_open_disk, pv_volume_plan,
    pv_volume_read, pv_volume_remove, pv_volume_resize, pv_volume_row, pv_volume_row_at, pv_volume_run, pv_volume_share,
    pv_volume_super, pv_volume_write, pv_volume_write_zeroes,
)

cdef extern from "<fcntl.h>" nogil:
    int fallocate(int fd, int mode, long offset, long length)
    const int FALLOC_FL_KEEP_SIZE
    const int FALLOC_FL_PUNCH_HOLE

cdef enum:
    EXTENTS = 64
    STEP = 1 << 20  # bytes of one lookup of read and write

VERSION = PV_VOLUME_VERSION
BLOCK_SIZE = 65536  # by default
UNLIMITED = 0xffffffffffffffff
FINDINGS = ("superblock", "journal", "page", "range", "row", "lost", "shared", "count")  # kinds, in the order of volume_check.h
if len(FINDINGS) != PV_FOUND_KINDS:
    raise ImportError("kinds of findings differ from volume_check.h")


class VolumeError(OSError):
    """An errno of volume.h with its words: what, and where."""


class VolumeBusy(VolumeError):
    """Another process has the volume open."""


cdef void report(void *context, uint32_t kind, const char *text) noexcept with gil:
    (<list>context).append({"kind": FINDINGS[kind], "text": text.decode(errors="replace")})


def format(int fd, uint64_t size, *, uint32_t block_size=BLOCK_SIZE, uint64_t disks=0, uint64_t pointer_pages=0):
    """Makes an empty volume of `size` bytes on the medium behind `fd`, which has them. What was there is gone.

    `disks`: for how many there are rows at least (0: up to 4,095); `pointer_pages`: 0 for 1/64 of the volume.
    VolumeError EINVAL: the block size is no power of two from 4 KiB to 1 MiB; ENOSPC: no block fits in; EBUSY: it is in use.
    """
    cdef pv_volume_super plan
    cdef pv_volume_io io = pv_volume_file(fd)
    cdef int result = pv_volume_plan(&plan, size, block_size, pointer_pages, (disks + 14) // 15)
    if result == EINVAL:
        raise VolumeError(result, f"a block has 4 KiB to 1 MiB, a power of two, not {block_size} bytes")
    if result == ENOSPC:
        raise VolumeError(result, f"{size} bytes are too few for a volume with blocks of {block_size} bytes")
    lock(fd)
    with nogil:
        result = pv_volume_format(&io, &plan)
    if result:
        raise VolumeError(result, f"formatting: {os.strerror(result)}")


def lock(int fd):
    """Makes the open file description of `fd` the only one that uses the volume, until its last descriptor is closed."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise VolumeBusy(error.errno, "the volume is in use: a host or another command has it open") from None


cdef class Volume:
    """An open volume. Its descriptor is a copy of `fd`, without O_DIRECT, and holds the lock.

    `tolerant`: damaged pages are left to `check`, and nothing else may be called. VolumeError where it cannot be opened.
    """

    def __cinit__(self):
        self.fd = -1

    def __init__(self, int fd, *, bint read_only=False, bint tolerant=False):
        cdef uint64_t size
        cdef int result
        if self.fd >= 0:
            raise ValueError("the volume is open already")
        lock(fd)
        self.volume = <pv_volume *>calloc(1, sizeof(pv_volume))
        if self.volume == NULL:
            raise MemoryError("no memory for a volume")
        self.fd = os.dup(fd)
        self.read_only = read_only
        size = os.lseek(self.fd, 0, os.SEEK_END)
        with nogil:
            result = pv_volume_open(self.volume, pv_volume_file(self.fd), size, read_only, tolerant)
        if result:
            words = self.volume.problem.decode(errors="replace")
            free(self.volume)
            self.volume = NULL
            raise VolumeError(result, words)

    def __dealloc__(self):
        if self.volume != NULL:
            pv_volume_close(self.volume)
            free(self.volume)
        if self.fd >= 0:
            os.close(self.fd)

    def __enter__(self):
        return self

    def __exit__(self, *_details):
        self.close()

    def close(self):
        """Ends its use. What was not committed is gone, as after a power cut. Twice does nothing."""
        if self.volume == NULL:
            return
        pv_volume_close(self.volume)
        free(self.volume)
        self.volume = NULL
        os.close(self.fd)
        self.fd = -1

    cdef int check_open(self) except -1:
        if self.volume == NULL:
            raise ValueError("the volume is closed")
        return 0

    cdef int settle(self, int result) except -1:
        """0 for done, 1 for "commit was needed, ask again"; raises for everything else."""
        if result == EAGAIN:
            with nogil:
                result = pv_volume_commit(self.volume)
            if result == 0:
                return 1
        if result:
            raise VolumeError(result, self.volume.problem.decode(errors="replace") or os.strerror(result))
        return 0

    cdef uint32_t row_of(self, str name) except? 0xffffffff:
        cdef uint32_t row = 0
        self.check_open()
        encoded = name.encode()
        self.settle(pv_volume_find(self.volume, encoded, &row))
        return row

    def commit(self):
        """Makes everything durable that was written and changed before."""
        cdef int result
        self.check_open()
        with nogil:
            result = pv_volume_commit(self.volume)
        self.settle(result)

    def checkpoint(self):
        """Commits, and brings all pages to their places, so that the journal is empty."""
        cdef int result
        self.commit()
        with nogil:
            result = pv_volume_checkpoint(self.volume)
        self.settle(result)

    def info(self):
        """Sizes, what is used, and what was done since it was opened. The index is the table and all counts, which opening
        reads."""
        self.check_open()
        cdef pv_volume *v = self.volume
        block = v.super.block_size
        return {
            "version": VERSION,
            "id": bytes(v.super.id[:16]).hex(),
            "size": v.super.size,
            "block_size": block,
            "blocks": v.super.blocks,
            "free_bytes": v.free_blocks * block,
            "used_bytes": (v.super.blocks - v.free_blocks) * block,
            "pointer_pages": v.super.pointers_pages,
            "free_pointer_pages": v.free_pages,
            "index_offset": v.super.table_first * PV_VOLUME_PAGE,
            "index_bytes": (v.super.pointers_first - v.super.table_first) * PV_VOLUME_PAGE,
            "disks": sum(1 for _ in self.rows()),
            "disks_most": v.rows,
            "commits": v.commits,
            "checkpoints": v.checkpoints,
            "copied_blocks": v.copied_blocks,
            "filled_blocks": v.filled_blocks,
        }

    def rows(self):
        """All disks as dictionaries, in the order of the table."""
        cdef pv_volume_row *r
        cdef uint32_t row
        self.check_open()
        found = []
        for row in range(self.volume.rows):
            r = pv_volume_row_at(self.volume, row)
            if r != NULL and r.state == PV_VOLUME_LIVE:
                found.append(self.describe(row))
        names = {one["id"]: one["name"] for one in found}
        for one in found:
            one["parent"] = names.get(one["parent"])
        return found

    def describe(self, uint32_t row):
        """One row; `parent` is still an id."""
        self.check_open()
        cdef pv_volume_row *r = pv_volume_row_at(self.volume, row)
        block = self.volume.super.block_size
        return {
            "name": (<bytes>r.name).decode(errors="replace"),
            "id": bytes(r.id[:16]).hex(),
            "generation": r.generation,
            "size": r.size,
            "allocated_bytes": r.allocated * block,
            "quota_bytes": None if r.quota == UNLIMITED else r.quota * block,
            "read_only": bool(r.flags & PV_VOLUME_READ_ONLY),
            "parent": bytes(r.parent[:16]).hex(),
            "created": r.created,
        }

    def create(self, str name, uint64_t size, quota=None):
        """A new disk, empty and durable. `quota`: bytes of data blocks that it may have, rounded up to blocks."""
        cdef uint32_t row = 0
        self.check_open()
        block = self.volume.super.block_size
        encoded = name.encode()
        blocks = UNLIMITED if quota is None else -(-quota // block)
        while self.settle(pv_volume_create(self.volume, encoded, size, blocks, &row)):
            pass
        self.commit()

    def snapshot(self, str name, str snapshot):
        """A disk that keeps what `name` holds now and is never written."""
        self.share(name, snapshot, PV_VOLUME_READ_ONLY)

    def clone(self, str name, str clone):
        """A second disk that begins with what `name` holds now."""
        self.share(name, clone, 0)

    def share(self, str name, str other, uint32_t flags):
        cdef uint32_t source = self.row_of(name), row = 0
        encoded = other.encode()
        while self.settle(pv_volume_share(self.volume, source, encoded, flags, &row)):
            pass
        self.commit()

    def remove(self, str name):
        """Gives all blocks back that no other disk has."""
        cdef uint32_t row = self.row_of(name)
        while self.settle(pv_volume_remove(self.volume, row)):
            pass
        self.commit()

    def resize(self, str name, uint64_t size):
        """A new size; what lies beyond a smaller one is gone."""
        cdef uint32_t row = self.row_of(name)
        while self.settle(pv_volume_resize(self.volume, row, size)):
            pass
        self.commit()

    cdef pv_volume_disk *disk_of(self, str name) except NULL:
        cdef pv_volume_disk *disk = NULL
        self.settle(pv_volume_open_disk(self.volume, self.row_of(name), &disk))
        return disk

    def extents(self, str name, uint64_t offset, uint64_t length):
        """Where a range lies: (offset in the volume, or None where nothing is allocated; length) in order. Neighbours
        are one, but for those that one lookup ends with and the next one begins with."""
        cdef pv_volume_disk *disk = self.disk_of(name)
        cdef pv_volume_extent extent[EXTENTS]
        cdef uint32_t count = 0, i
        cdef uint64_t covered = 0, done = 0
        found = []
        while done < length:
            self.settle(pv_volume_lookup(self.volume, disk, offset + done, length - done, False, extent, EXTENTS, &count, &covered))
            for i in range(count):
                found.append((extent[i].offset or None, extent[i].length))
            done += covered
        return found

    def read(self, str name, uint64_t offset, uint64_t length):
        """The bytes of a range. VolumeError ERANGE where it leaves the disk."""
        cdef pv_volume_disk *disk = self.disk_of(name)
        cdef pv_volume_extent extent[EXTENTS]
        cdef uint32_t count = 0, i
        cdef uint64_t covered = 0, done = 0, at
        cdef int result
        data = bytearray(length)
        cdef unsigned char[::1] view = data
        if not length:
            self.settle(pv_volume_lookup(self.volume, disk, offset, 0, False, extent, EXTENTS, &count, &covered))
        while done < length:
            self.settle(pv_volume_lookup(self.volume, disk, offset + done, length - done, False, extent, EXTENTS, &count, &covered))
            at = done
            for i in range(count):
                result = 0
                if extent[i].offset:
                    with nogil:
                        result = pv_volume_read(&self.volume.io, &view[at], extent[i].length, extent[i].offset)
                self.settle(result)
                at += extent[i].length
            done += covered
        return bytes(data)

    def write(self, str name, uint64_t offset, data):
        """Writes bytes; durable after `commit`. VolumeError ENOSPC or EDQUOT where no block is to be had: what comes
        before that place is written."""
        cdef pv_volume_disk *disk = self.disk_of(name)
        cdef const unsigned char[::1] view = data
        cdef pv_volume_extent extent[EXTENTS]
        cdef uint32_t count = 0, i
        cdef uint64_t covered = 0, done = 0, at, length = len(data), gone = 0
        cdef int result
        while done < length:
            if self.settle(pv_volume_lookup(self.volume, disk, offset + done, min(length - done, <uint64_t>STEP), True, extent, EXTENTS,
                                            &count, &covered)):
                continue
            at = done
            for i in range(count):
                with nogil:
                    result = pv_volume_write(&self.volume.io, &view[at], extent[i].length, extent[i].offset)
                if result:  # nothing of what others had there may show
                    pv_volume_discard(self.volume, disk, offset + done, covered, &gone)
                    raise VolumeError(result, os.strerror(result))
                at += extent[i].length
            done += covered

    def discard(self, str name, uint64_t offset, uint64_t length):
        """Gives back the whole blocks of a range; they read as zeroes."""
        cdef pv_volume_disk *disk = self.disk_of(name)
        cdef uint64_t done = 0, part = 0
        while self.settle(pv_volume_discard(self.volume, disk, offset + done, length - done, &part)):
            done += part

    def write_zeroes(self, str name, uint64_t offset, uint64_t length):
        """The whole range reads as zeroes; whole blocks are given back."""
        cdef pv_volume_disk *disk = self.disk_of(name)
        cdef uint64_t done = 0, part = 0
        while self.settle(pv_volume_write_zeroes(self.volume, disk, offset + done, length - done, &part)):
            done += part

    def check(self, bint repair=False):
        """What is wrong with a volume that was opened with `tolerant`: [{"kind", "text"}]. `repair` mends all of it, for which
        it is open for writing."""
        cdef pv_volume_check check
        cdef int result
        self.check_open()
        found = []
        check.v = self.volume
        check.repair = repair
        check.context = <void *>found
        check.report = report
        with nogil:
            result = pv_volume_run(&check)
        self.settle(result)
        return found

    def give_back(self):
        """Makes holes in the file, or discards on the device, where blocks are free; returns how many bytes they have. What
        the medium cannot do it leaves out."""
        cdef uint64_t block, first = 0, given = 0
        cdef bint unused
        self.commit()
        with nogil:
            for block in range(1, self.volume.super.blocks + 2):
                unused = (block <= self.volume.super.blocks and pv_volume_block_count(self.volume, block) == 0
                          and not pv_volume_is_held(self.volume, block))
                if unused and not first:
                    first = block
                elif not unused and first:
                    if fallocate(self.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, <long>pv_volume_block_offset(self.volume, first),
                                 <long>((block - first) * self.volume.super.block_size)) == 0:
                        given += (block - first) * self.volume.super.block_size
                    first = 0
        return given

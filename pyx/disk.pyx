"""Disk device: data straight between a medium and guest memory (U10, U11, U8).

| medium   | what it is                                    | how its data moves                                              |
|----------|-----------------------------------------------|-----------------------------------------------------------------|
| `file`   | a file in the page cache                      | by system calls at once; what would wait for the disk by the ring |
| `direct` | a file past the page cache                    | by the ring; what is not aligned as `file`                      |
| `volume` | a virtual disk in a volume                    | as `file` or `direct`, on the extents that the volume names (virtual.pyx) |
| `ram`    | the device's own memory, gone with the port   | at once                                                         |
| `null`   | nothing: requests complete, no data is touched | not: it measures what the way there costs                       |

The kernel reads into and writes from the guests' own pages; nothing is copied but between page cache and these pages.
A flush waits in the ring for what was completed before it, and nobody else waits for it. Without a ring (`open_ring`)
everything waits in this thread.
"""

from libc.errno cimport EINTR, EIO, errno
from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset

from pyx.abi cimport (
    PV_DISK_FENCED, PV_EXTENTS_MAX, PV_FLAG_FUA, PV_FLAG_NO_HOLE, PV_OP_DISCARD, PV_OP_EXTENTS, PV_OP_FLUSH, PV_OP_READ,
    PV_OP_WRITE, PV_OP_WRITE_ZEROES, PV_REASON_MEDIUM_SHORT, PV_REASON_NONE, PV_REASON_OPERATION_UNKNOWN, PV_SECTOR,
    pv_disk_extent, pv_dma_request,
)
from pyx.dmac cimport pv_dma_device, pv_dma_store, pv_span
from pyx.medium cimport PUBLISH, Flying, iovec
from pyx.portc cimport Fifo, Job, Port
from pyx.ringc cimport pv_count
from pyx.transferc cimport PV_TRANSFER_LATER, pv_pieces, pv_transfer, pv_transfer_cached
from pyx.uring cimport reason_of
from pyx.virtual cimport AGAIN, LATER, Virtual, careful, medium_reason

cdef extern from "<unistd.h>" nogil:
    int fdatasync(int fd)

cdef extern from "clear.h" nogil:
    int pv_clear_file(int fd, uint64_t offset, uint64_t length, bint zeroes, bint hole)
    uint32_t pv_file_extents(int fd, uint64_t offset, uint64_t length, pv_disk_extent *extents)

cdef extern from *:
    """
    #include <linux/stat.h>
    #include <sys/statfs.h>
    #include <sys/syscall.h>
    #include <unistd.h>
    #ifndef STATX_DIOALIGN
    #define STATX_DIOALIGN 0x2000u
    #endif
    /* What transfers past the page cache must be aligned to, in bytes; a sector where the kernel does not say (before 6.1). */
    static void pv_direct_alignment(int fd, uint32_t *offset, uint32_t *memory)
    {
        union { struct statx s; unsigned char raw[256]; } u = {0};
        struct statfs where;
        *offset = *memory = 512;
        if (fstatfs(fd, &where) == 0 && where.f_type == 0x01021994 /* TMPFS_MAGIC */)
            *offset = 0; /* it takes O_DIRECT, and is the page cache */
        else if (syscall(SYS_statx, fd, "", 0x1000 /* AT_EMPTY_PATH */, STATX_DIOALIGN, &u) == 0 && u.s.stx_mask & STATX_DIOALIGN) {
            *offset = *(uint32_t *)(u.raw + 0x9c); /* stx_dio_offset_align */
            *memory = *(uint32_t *)(u.raw + 0x98); /* stx_dio_mem_align */
        }
    }
    """
    void pv_direct_alignment(int fd, uint32_t *offset, uint32_t *memory) nogil

cdef enum:
    MEDIUM_FILE = 0
    MEDIUM_NULL = 1
    MEDIUM_RAM = 2
    MEDIUM_VOLUME = 3

cdef uint64_t SLOW_NS = 50_000

OPERATIONS = ("read", "write", "flush", "discard", "write_zeroes", "extents")
MEDIA = {"file": MEDIUM_FILE, "direct": MEDIUM_FILE, "null": MEDIUM_NULL, "ram": MEDIUM_RAM, "volume": MEDIUM_VOLUME}


cdef class Disk(Virtual):
    """Ports are virtual disks; their files are opened by the caller, which keeps them open until `detach_port`."""
    cdef pv_disk_extent extents[2048]  # of the longest range: one a sector

    def attach_port(self, uint32_t port, uint64_t generation, uint64_t partition, uint16_t endpoint, int fd,
                    str medium="file", pair=None, uint64_t size=0, int plain_fd=-1, str name=""):
        """Puts a disk at `port`: the file behind `fd`, or `size` bytes of memory for medium `ram`. `pair`: (events
        descriptor, pair descriptor, capacity) of its queue pair. For medium `direct`, `fd` goes past the page cache and
        `plain_fd`, the same file, through it; for medium `volume`, `name` is that of the virtual disk, and `fd`, unless it
        is -1, goes to the volume past the page cache. ValueError where the port is taken or out of range."""
        cdef Port *p = self.open_port(port, generation, partition, endpoint, pair, (OPERATIONS,), PV_EXTENTS_MAX)
        p.fd = fd
        p.plain_fd = plain_fd
        p.medium = MEDIA[medium]
        p.nowait = True
        if p.medium == MEDIUM_RAM:
            p.ram = <char *>calloc(1, size)
            if p.ram == NULL:
                raise MemoryError(f"no {size} bytes for a disk in memory")
            p.ram_size = size
        if p.medium == MEDIUM_VOLUME:
            with self.quiet():
                self.use_disk(p, name)
        if p.plain_fd >= 0:
            pv_direct_alignment(fd, &p.align_offset, &p.align_memory)
            if p.align_offset == 0:
                p.fd = p.plain_fd  # the file system takes O_DIRECT, and nothing past the page cache
        with self.quiet():
            self.install_port(p)

    def detach_port(self, uint32_t port):
        """After the return no request of this port is executed: what comes later is refused as stale. TimeoutError where
        the kernel does not end what it works on: then the port stays, and takes nothing."""
        cdef Port *p = self.attached(port)
        cdef char *ram = p.ram
        with self.quiet():
            p.closing = True
        self.drain(&p.flying, f"of port {port}")
        with self.quiet():
            self.close_port(p)
        free(ram)

    def grow_port(self, uint32_t port, uint64_t size):
        """A disk in memory gets `size` bytes, where it has fewer: those beyond are zeroes. Nothing on files and volumes."""
        cdef Port *p = self.attached(port)
        cdef char *ram
        if p.medium != MEDIUM_RAM or size <= p.ram_size:
            return
        with self.quiet():
            ram = <char *>realloc(p.ram, size)
            if ram == NULL:
                raise MemoryError(f"no {size} bytes for a disk in memory")
            memset(ram + p.ram_size, 0, size - p.ram_size)
            p.ram = ram
            p.ram_size = size

    def way(self, uint32_t port) -> str:
        """How the data of a port moves, in words."""
        cdef Port *p = self.attached(port)
        if p.medium == MEDIUM_NULL or p.medium == MEDIUM_RAM:
            return "memory of the device" if p.medium == MEDIUM_RAM else "none"
        if p.align_offset:
            engine = "io_uring" if self.ring_open else "system calls"
            blocks = "; new blocks and forced writes through it" if p.medium == MEDIUM_VOLUME else ""
            apart = "; writes end on another processor" if self.apart and self.ring_open else ""
            return (f"past the page cache by {engine}, aligned to {p.align_offset} bytes in the file and {p.align_memory} in "
                    f"memory{blocks}{apart}")
        return "page cache by system calls, waits by io_uring" if self.ring_open else "page cache by system calls"

    cdef Fifo *place(self, Port *port, const pv_dma_request *request) noexcept nogil:
        return &port.queue

    cdef void count_fenced(self, Port *port, uint32_t count) noexcept nogil:
        pv_count(&port.counters[<int>PV_DISK_FENCED], count)

    cdef bint execute(self, Port *port, Job *job, uint64_t *clock) noexcept nogil:
        cdef uint32_t reason = LATER
        cdef uint64_t start = clock[0], place = job.device_offset
        cdef bint forced = False
        cdef Flying *f
        if (port.fd >= 0 or self.simulated) and not self.room():
            return False
        if job.operation == PV_OP_EXTENTS:
            reason = self.tell_extents(port, job)
        elif not self.belongs_in_ring(port, job):
            reason = self.perform(port, job, &place)
            if reason == AGAIN:
                return False
            if reason == PV_REASON_NONE and port.fd >= 0 and job.flags & PV_FLAG_FUA and job.operation != PV_OP_FLUSH:
                if self.ring_open:
                    forced = True
                else:
                    reason = self.flush_medium(port)
        if reason == LATER or forced:
            f = self.take(port, job, start)
            if forced:
                f.synced = True
            elif port.medium == MEDIUM_VOLUME and job.operation != PV_OP_FLUSH:
                f.job.device_offset = place
                f.on_extents = True
                self.on_extents += 1
            self.launch(f)
            return True
        if port.medium != MEDIUM_NULL:
            clock[0] = self.stamp()  # nothing to see where nothing is done: one stamp per batch
            if clock[0] - start > SLOW_NS:
                port.cached_reads = 0  # it may have waited for the disk
        if self.simulated:
            f = self.take(port, job, start)
            self.landing = True
            self.landed(f, reason)
            self.landing = False
            return True
        self.account(port, job, reason, start, clock[0])
        if self.unpublished >= PUBLISH and port.medium != MEDIUM_NULL:
            self.overdue = True
        return True

    cdef bint belongs_in_ring(self, Port *port, const Job *job) noexcept nogil:
        """Does the request go to the ring at once? Whatever waits for the disk does: past the page cache everything, on a
        cached file what makes data durable or changes where they lie."""
        if port.fd < 0 or not self.ring_open:
            return False
        if port.medium == MEDIUM_VOLUME:
            return job.operation == PV_OP_FLUSH
        if job.operation != PV_OP_READ and job.operation != PV_OP_WRITE:
            return known(job.operation)
        if port.align_offset:
            return self.aligned_at(port, job, job.device_offset)
        return job.flags & PV_FLAG_FUA != 0

    cdef uint32_t perform(self, Port *port, const Job *job, uint64_t *place) noexcept nogil:
        """Does it, or says LATER where it would have to wait and there is a ring for that; AGAIN: after a commit."""
        cdef bint moves = job.operation == PV_OP_READ or job.operation == PV_OP_WRITE
        if not known(job.operation):
            return PV_REASON_OPERATION_UNKNOWN
        if job.operation == PV_OP_FLUSH:
            return self.flush_medium(port)
        if port.medium == MEDIUM_NULL:
            return PV_REASON_NONE
        if port.medium == MEDIUM_RAM:
            return self.transfer_ram(port, job)
        if port.medium == MEDIUM_VOLUME:
            return self.perform_virtual(port, job, place) if moves else self.clear_virtual(port, job)
        return self.transfer_file(port, job) if moves else self.clear_file(port, job)

    cdef uint32_t flush_medium(self, Port *port) noexcept nogil:
        """What was written is durable, or a reason. Media without a file have nothing to lose."""
        if port.medium == MEDIUM_VOLUME:
            return self.commit()
        while port.medium == MEDIUM_FILE and fdatasync(port.fd) != 0:
            if errno != EINTR:
                return reason_of(errno)
        return PV_REASON_NONE

    cdef uint32_t clear_file(self, Port *port, const Job *job) noexcept nogil:
        """Discard and write zeroes: what the guest gave up reads as zeroes, or where the file has no holes, as before."""
        cdef int fd = port.fd if port.plain_fd < 0 else port.plain_fd
        if pv_clear_file(fd, job.device_offset, job.length, job.operation == PV_OP_WRITE_ZEROES,
                         job.flags & PV_FLAG_NO_HOLE == 0) != 0:
            return reason_of(errno)
        return PV_REASON_NONE

    cdef uint32_t tell_extents(self, Port *port, Job *job) noexcept nogil:
        """Puts the extents of the range into the guest's buffer, and makes the request as long as their list. A medium
        without holes is one of data."""
        cdef uint32_t count = 1, bytes
        self.extents[0].length = job.length
        self.extents[0].data = 1
        if port.medium == MEDIUM_FILE:
            count = pv_file_extents(port.fd, job.device_offset, job.length, self.extents)
            if count == 0:
                return reason_of(errno)
        elif port.medium == MEDIUM_VOLUME:
            count = self.virtual_extents(port, job, self.extents)
            if count == 0:
                return medium_reason(EIO)
        bytes = (count * sizeof(pv_disk_extent) + PV_SECTOR - 1) // PV_SECTOR * PV_SECTOR
        memset(&self.extents[count], 0, bytes - count * sizeof(pv_disk_extent))
        pv_dma_store(self.origin, job.spans, self.extents, bytes)
        job.length = bytes
        return PV_REASON_NONE

    cdef uint32_t transfer_ram(self, Port *port, const Job *job) noexcept nogil:
        if job.device_offset > port.ram_size or job.length > port.ram_size - job.device_offset:
            return PV_REASON_MEDIUM_SHORT
        if job.operation == PV_OP_DISCARD or job.operation == PV_OP_WRITE_ZEROES:
            memset(port.ram + job.device_offset, 0, job.length)
            return PV_REASON_NONE
        pv_dma_device(self.origin, job.spans, job.span_count, port.ram + job.device_offset,
                      job.operation == PV_OP_READ)
        return PV_REASON_NONE

    cdef uint32_t transfer_file(self, Port *port, const Job *job) noexcept nogil:
        """The whole range or a reason. Reads that would wait for the disk are LATER; writes wait where the kernel limits
        what is dirty."""
        cdef iovec vector[260]
        cdef uint32_t count = pv_pieces(self.origin, job.spans, job.span_count, 0, job.length, vector)
        cdef bint reading = job.operation == PV_OP_READ
        cdef int fd = port.fd, result
        if port.align_offset and not self.aligned_at(port, job, job.device_offset):
            fd = port.plain_fd
        if reading and self.ring_open and port.align_offset == 0 and careful(port, self.attribution):
            result = pv_transfer_cached(fd, vector, count, job.length, job.device_offset, &port.nowait)
            port.cached_reads += 1
            if result == PV_TRANSFER_LATER:
                port.cached_reads = 0
                return LATER
            return medium_reason(result)
        return medium_reason(pv_transfer(fd, vector, count, job.length, job.device_offset, reading))


cdef bint known(uint32_t operation) noexcept nogil:
    return (operation == PV_OP_READ or operation == PV_OP_WRITE or operation == PV_OP_FLUSH or operation == PV_OP_DISCARD
            or operation == PV_OP_WRITE_ZEROES)

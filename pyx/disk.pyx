"""Disk device: data straight between a medium and guest memory (U10, U11, U8).

Media: a file (`preadv` and `pwritev` read into and write from the guests' pages; nothing is copied on the way but by
the kernel between page cache and these pages), the device's own memory (`ram`), or nothing at all (`null`: requests
complete without any data being touched, to measure what the way there costs).
"""

from libc.errno cimport EINTR, ENOSPC, EDQUOT, errno
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from pyx.abi cimport (
    PV_DISK_DISCARDED_BYTES, PV_DISK_DISCARDS, PV_DISK_ERRORS, PV_DISK_FENCED, PV_DISK_FLUSHES, PV_DISK_FORCED,
    PV_DISK_READ_BYTES,
    PV_DISK_READS, PV_DISK_WRITES, PV_DISK_WRITTEN_BYTES, PV_DISK_ZEROED_BYTES, PV_DISK_ZEROINGS, PV_EXTENTS_MAX,
    PV_FLAG_FUA, PV_FLAG_NO_HOLE, PV_OP_DISCARD, PV_OP_FLUSH, PV_OP_READ, PV_OP_WRITE, PV_OP_WRITE_ZEROES,
    PV_REASON_MEDIUM_ERROR, PV_REASON_MEDIUM_FULL,
    PV_REASON_MEDIUM_SHORT, PV_REASON_NONE, PV_REASON_OPERATION_UNKNOWN, PV_STAGE_COMPLETION, PV_STAGE_DEVICE, PV_STAGE_INTERRUPT, PV_STAGE_POST, PV_STAGE_QUEUE,
    PV_STAGE_TOTAL, PV_STAGE_VALIDATION, PV_STATUS_FAILED, PV_STATUS_OK,
    pv_dma_request,
)
from pyx.device cimport Device
from pyx.dmac cimport pv_dma_device, pv_span
from pyx.portc cimport Fifo, Job, Port
from pyx.ringc cimport pv_count, pv_observe

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len
    ssize_t preadv(int fd, const iovec *iov, int count, long offset)
    ssize_t pwritev(int fd, const iovec *iov, int count, long offset)

cdef extern from "<unistd.h>" nogil:
    int fdatasync(int fd)
    ssize_t pread(int fd, void *to, size_t length, long offset)
    ssize_t pwrite(int fd, const void *source, size_t length, long offset)

cdef extern from "clear.h" nogil:
    int pv_clear_file(int fd, uint64_t offset, uint64_t length, bint zeroes, bint hole)

cdef enum:
    PUBLISH = 8     # completions published together while more requests wait: the other side works on them meanwhile
    MEDIUM_FILE = 0
    MEDIUM_NULL = 1
    MEDIUM_RAM = 2

MEDIA = {"file": MEDIUM_FILE, "direct": MEDIUM_FILE, "null": MEDIUM_NULL, "ram": MEDIUM_RAM}


cdef struct Done:
    uint64_t enqueued
    uint64_t start
    uint64_t end


cdef class Disk(Device):
    """Ports are virtual disks; their files are opened by the caller, which keeps them open until `detach_port`."""
    cdef uint32_t unpublished
    cdef Done done[64]         # by queue pairs, not yet published (at most one batch)
    cdef uint32_t done_count

    def attach_port(self, uint32_t port, uint64_t generation, uint64_t partition, uint16_t endpoint, int fd,
                    str medium="file", pair=None, uint64_t size=0):
        """Puts a disk at `port`: the file behind `fd`, or `size` bytes of memory for medium `ram`. `pair`: (events
        descriptor, pair descriptor, capacity) of its queue pair. ValueError where the port is taken or out of range."""
        cdef Port *p = self.open_port(port, generation, partition, endpoint, pair, (("read", "write", "flush", "discard", "write_zeroes"),), PV_EXTENTS_MAX)
        p.fd = fd
        p.medium = MEDIA[medium]
        if p.medium == MEDIUM_RAM:
            p.ram = <char *>calloc(1, size)
            if p.ram == NULL:
                raise MemoryError(f"no {size} bytes for a disk in memory")
            p.ram_size = size
        with self.quiet():
            self.install_port(p)

    def detach_port(self, uint32_t port):
        """After the return no request of this port is executed: what comes later is refused as stale."""
        cdef Port *p = self.attached(port)
        cdef char *ram = p.ram
        with self.quiet():
            self.close_port(p)
        free(ram)

    cdef Fifo *place(self, Port *port, const pv_dma_request *request) noexcept nogil:
        return &port.queue

    cdef void count_fenced(self, Port *port) noexcept nogil:
        pv_count(&port.counters[<int>PV_DISK_FENCED], 1)

    cdef bint execute(self, Port *port, Job *job, uint64_t *clock) noexcept nogil:
        cdef uint32_t reason = PV_REASON_NONE, bytes = 0
        cdef uint64_t start = clock[0]
        if job.operation == PV_OP_FLUSH:
            reason = self.flush_file(port)
            pv_count(&port.counters[<int>PV_DISK_FLUSHES], 1)
        elif job.operation == PV_OP_READ or job.operation == PV_OP_WRITE:
            reason = self.transfer(port, job)
            if reason == PV_REASON_NONE and job.flags & PV_FLAG_FUA:
                reason = self.force(port)
            if reason == PV_REASON_NONE:
                bytes = job.length
                if job.operation == PV_OP_READ:
                    pv_count(&port.counters[<int>PV_DISK_READS], 1)
                    pv_count(&port.counters[<int>PV_DISK_READ_BYTES], bytes)
                else:
                    pv_count(&port.counters[<int>PV_DISK_WRITES], 1)
                    pv_count(&port.counters[<int>PV_DISK_WRITTEN_BYTES], bytes)
        elif job.operation == PV_OP_DISCARD or job.operation == PV_OP_WRITE_ZEROES:
            reason = self.clear(port, job)
            if reason == PV_REASON_NONE and job.flags & PV_FLAG_FUA:
                reason = self.force(port)
            if reason == PV_REASON_NONE:
                bytes = job.length
                if job.operation == PV_OP_DISCARD:
                    pv_count(&port.counters[<int>PV_DISK_DISCARDS], 1)
                    pv_count(&port.counters[<int>PV_DISK_DISCARDED_BYTES], bytes)
                else:
                    pv_count(&port.counters[<int>PV_DISK_ZEROINGS], 1)
                    pv_count(&port.counters[<int>PV_DISK_ZEROED_BYTES], bytes)
        else:
            reason = PV_REASON_OPERATION_UNKNOWN
        if port.medium != MEDIUM_NULL:
            clock[0] = self.stamp()  # nothing to see where nothing is done: one stamp per batch
        if reason != PV_REASON_NONE:
            pv_count(&port.counters[<int>PV_DISK_ERRORS + reason], 1)
        self.complete(port, job, PV_STATUS_OK if reason == PV_REASON_NONE else PV_STATUS_FAILED, reason, bytes, start, clock[0])
        if job.server == NULL and reason == PV_REASON_NONE:
            self.done[self.done_count].enqueued = job.enqueued
            self.done[self.done_count].start = start
            self.done[self.done_count].end = clock[0]
            self.done_count += 1
        self.unpublished += 1
        if self.unpublished >= PUBLISH and port.medium != MEDIUM_NULL:
            self.publish()
        return True

    cdef void publish(self) noexcept nogil:
        Device.publish(self)
        self.unpublished = self.done_count = 0

    cdef void observe(self, Port *port, uint64_t now, uint64_t end) noexcept nogil:
        """Requests of queue pairs, one by one: their times differ."""
        cdef uint32_t i
        cdef Done *d
        for i in range(self.done_count):
            d = &self.done[i]
            pv_observe(port.histograms[<int>PV_STAGE_QUEUE],
                       self.begin - d.enqueued if d.enqueued and self.begin > d.enqueued else 0, 1)
            pv_observe(port.histograms[<int>PV_STAGE_VALIDATION], self.validated - self.begin, 1)
            pv_observe(port.histograms[<int>PV_STAGE_POST], d.start - self.validated, 1)
            pv_observe(port.histograms[<int>PV_STAGE_DEVICE], d.end - d.start, 1)
            pv_observe(port.histograms[<int>PV_STAGE_COMPLETION], end - d.end, 1)
            pv_observe(port.histograms[<int>PV_STAGE_TOTAL], end - self.begin, 1)
        if port.tally.taken:
            pv_observe(port.histograms[<int>PV_STAGE_INTERRUPT], port.tally.taken, 1)

    cdef uint32_t flush_file(self, Port *port) noexcept nogil:
        """What was written is durable, or a reason. Media without a file have nothing to lose."""
        while port.medium == MEDIUM_FILE and fdatasync(port.fd) != 0:
            if errno != EINTR:
                return PV_REASON_MEDIUM_FULL if errno == ENOSPC or errno == EDQUOT else PV_REASON_MEDIUM_ERROR
        return PV_REASON_NONE

    cdef uint32_t force(self, Port *port) noexcept nogil:
        """What a request with PV_FLAG_FUA has just written is durable, or a reason."""
        cdef uint32_t reason = self.flush_file(port)
        if reason == PV_REASON_NONE:
            pv_count(&port.counters[<int>PV_DISK_FORCED], 1)
        return reason

    cdef uint32_t clear(self, Port *port, const Job *job) noexcept nogil:
        """Discard and write zeroes: what the guest gave up reads as zeroes, or where the medium has no holes, as before."""
        if port.medium == MEDIUM_FILE:
            if pv_clear_file(port.fd, job.device_offset, job.length, job.operation == PV_OP_WRITE_ZEROES,
                             job.flags & PV_FLAG_NO_HOLE == 0) != 0:
                return PV_REASON_MEDIUM_FULL if errno == ENOSPC or errno == EDQUOT else PV_REASON_MEDIUM_ERROR
        elif port.medium == MEDIUM_RAM:
            if job.device_offset > port.ram_size or job.length > port.ram_size - job.device_offset:
                return PV_REASON_MEDIUM_SHORT
            memset(port.ram + job.device_offset, 0, job.length)
        return PV_REASON_NONE

    cdef uint32_t transfer(self, Port *port, const Job *job) noexcept nogil:
        if port.medium == MEDIUM_FILE:
            return self.transfer_file(port, job)
        if port.medium == MEDIUM_RAM:
            return self.transfer_ram(port, job)
        return PV_REASON_NONE

    cdef uint32_t transfer_ram(self, Port *port, const Job *job) noexcept nogil:
        if job.device_offset > port.ram_size or job.length > port.ram_size - job.device_offset:
            return PV_REASON_MEDIUM_SHORT
        pv_dma_device(self.origin, job.spans, job.span_count, port.ram + job.device_offset,
                      job.operation == PV_OP_READ)
        return PV_REASON_NONE

    cdef uint32_t transfer_file(self, Port *port, const Job *job) noexcept nogil:
        """The whole range or a reason: a short answer of the kernel is continued, an end of medium is an error."""
        cdef iovec vector[260]
        cdef char *origin = self.origin
        cdef bint reading = job.operation == PV_OP_READ
        cdef uint32_t count = job.span_count, i = 0, first = 0
        cdef uint64_t moved = 0
        cdef int64_t part
        for i in range(count):
            vector[i].iov_base = origin + job.spans[i].hpa
            vector[i].iov_len = job.spans[i].length
        while moved < job.length:
            if count - first == 1:
                if reading:
                    part = pread(port.fd, vector[first].iov_base, vector[first].iov_len, <long>(job.device_offset + moved))
                else:
                    part = pwrite(port.fd, vector[first].iov_base, vector[first].iov_len, <long>(job.device_offset + moved))
            elif reading:
                part = preadv(port.fd, &vector[first], count - first, <long>(job.device_offset + moved))
            else:
                part = pwritev(port.fd, &vector[first], count - first, <long>(job.device_offset + moved))
            if part < 0:
                if errno == EINTR:
                    continue
                return PV_REASON_MEDIUM_FULL if errno == ENOSPC or errno == EDQUOT else PV_REASON_MEDIUM_ERROR
            if part == 0:
                return PV_REASON_MEDIUM_SHORT
            moved += part
            while first < count and <uint64_t>part >= vector[first].iov_len:
                part -= vector[first].iov_len
                first += 1
            if first < count and part:
                vector[first].iov_base = <char *>vector[first].iov_base + part
                vector[first].iov_len -= part
        return PV_REASON_NONE

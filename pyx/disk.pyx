"""Disk device: one backing file per disk, data straight between file and guest memory (U10, U8).

`preadv` and `pwritev` read into and write from the guests' pages; nothing is copied on the way but by the kernel
between page cache and these pages.
"""

from libc.errno cimport EINTR, ENOSPC, EDQUOT, errno
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from pyx.abi cimport (
    PV_DISK_ERRORS, PV_DISK_FENCED, PV_DISK_FLUSHES, PV_DISK_READ_BYTES, PV_DISK_READS, PV_DISK_WRITES,
    PV_DISK_WRITTEN_BYTES, PV_OP_FLUSH, PV_OP_READ, PV_OP_WRITE, PV_REASON_EPOCH_STALE, PV_REASON_GENERATION_STALE,
    PV_REASON_MEDIUM_ERROR, PV_REASON_MEDIUM_FULL, PV_REASON_MEDIUM_SHORT, PV_REASON_NONE,
    PV_REASON_OPERATION_UNKNOWN, PV_STATUS_FAILED, PV_STATUS_OK, PV_STATUS_REFUSED, pv_dma_request,
)
from pyx.device cimport Device, Server, pv_span
from pyx.ringc cimport (
    pv_consumer_available, pv_consumer_release, pv_count, pv_now, pv_producer_free, pv_row,
    pv_row_counters,
)

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

cdef enum:
    BATCH = 32      # requests of one round
    PUBLISH = 8     # completions published together while more requests wait: the server works on them meanwhile
    PORTS = 256

cdef struct Port:
    bint used
    int fd
    uint32_t generation
    uint32_t row
    uint64_t *counters


cdef class Disk(Device):
    """Ports are virtual disks: a file each, opened by the caller, which keeps it open until `detach_port`."""
    cdef Port ports[256]

    def attach_port(self, uint32_t port, uint64_t generation, uint64_t partition, uint16_t endpoint, int fd):
        """Puts the disk behind `fd` at `port`. ValueError where the port is taken or out of range."""
        if port >= PORTS or self.ports[port].used:
            raise ValueError(f"port {port} is out of range or taken")
        with self.quiet():
            row = self.open_row(partition, endpoint)
            self.ports[port].fd = fd
            self.ports[port].generation = <uint32_t>generation
            self.ports[port].row = row
            self.ports[port].counters = pv_row_counters(pv_row(self.statistics, row))
            self.ports[port].used = True

    def detach_port(self, uint32_t port):
        """After the return no request of this port is executed: what comes later is refused as stale."""
        if port >= PORTS or not self.ports[port].used:
            raise KeyError(f"port {port} is not attached")
        with self.quiet():
            memset(&self.ports[port], 0, sizeof(Port))

    cdef uint32_t poll(self) noexcept nogil:
        cdef uint32_t i, work = 0
        self.stalled = False
        for i in range(self.server_count):
            work += self.serve(&self.servers[i])
        return work

    cdef uint32_t serve(self, Server *server) noexcept nogil:
        cdef uint32_t available = pv_consumer_available(&server.requests)
        cdef uint32_t at = 0, done = 0, room
        cdef pv_dma_request request
        cdef pv_span spans[260]
        cdef uint64_t start, end
        if available == 0:
            return 0
        room = pv_producer_free(&server.completions, BATCH)
        if room == 0:
            self.stalled = True
            return 0
        start = pv_now()
        while at < available and done < room and done < BATCH:
            at += self.fetch(server, at, &request, spans)
            end = self.execute(server, &request, spans, start)
            start = end
            done += 1
            if done % PUBLISH == 0:
                self.publish()
        # Ring slots are given back after the act: a device that dies in it leaves the request to be found.
        pv_consumer_release(&server.requests, at)
        self.publish()
        return done

    cdef uint64_t execute(self, Server *server, const pv_dma_request *request, const pv_span *spans, uint64_t start) noexcept nogil:
        """Executes one request and pushes its completion; returns the time of its end."""
        cdef Port *port = &self.ports[request.port] if request.port < PORTS else NULL
        cdef uint32_t reason = PV_REASON_NONE, bytes = 0
        cdef uint64_t end
        if not self.in_office(request, server.slot):
            reason = PV_REASON_EPOCH_STALE
        elif port == NULL or not port.used or port.generation != request.port_generation:
            reason = PV_REASON_GENERATION_STALE
        if reason != PV_REASON_NONE:
            if port != NULL and port.used:
                pv_count(&port.counters[<int>PV_DISK_FENCED], 1)
            self.finish(server, request, PV_STATUS_REFUSED, reason, 0, start, start)
            return start
        if request.operation == PV_OP_FLUSH:
            while fdatasync(port.fd) != 0:
                if errno != EINTR:
                    reason = PV_REASON_MEDIUM_FULL if errno == ENOSPC or errno == EDQUOT else PV_REASON_MEDIUM_ERROR
                    break
            pv_count(&port.counters[<int>PV_DISK_FLUSHES], 1)
        elif request.operation == PV_OP_READ or request.operation == PV_OP_WRITE:
            reason = self.transfer(port, request, spans)
            bytes = request.length if reason == PV_REASON_NONE else 0
        else:
            reason = PV_REASON_OPERATION_UNKNOWN
        end = pv_now()
        if reason != PV_REASON_NONE:
            pv_count(&port.counters[<int>PV_DISK_ERRORS + reason], 1)
            self.finish(server, request, PV_STATUS_FAILED, reason, 0, start, end)
        else:
            self.finish(server, request, PV_STATUS_OK, PV_REASON_NONE, bytes, start, end)
        return end

    cdef uint32_t transfer(self, Port *port, const pv_dma_request *request, const pv_span *spans) noexcept nogil:
        """The whole range or a reason: a short answer of the kernel is continued, an end of medium is an error."""
        cdef iovec vector[260]
        cdef char *origin = self.window.origin()
        cdef bint reading = request.operation == PV_OP_READ
        cdef uint32_t count = request.extent_count, i = 0, first = 0
        cdef uint64_t moved = 0
        cdef int64_t part
        for i in range(count):
            vector[i].iov_base = origin + spans[i].hpa
            vector[i].iov_len = spans[i].length
        while moved < request.length:
            if count - first == 1:
                if reading:
                    part = pread(port.fd, vector[first].iov_base, vector[first].iov_len, <long>(request.device_offset + moved))
                else:
                    part = pwrite(port.fd, vector[first].iov_base, vector[first].iov_len, <long>(request.device_offset + moved))
            elif reading:
                part = preadv(port.fd, &vector[first], count - first, <long>(request.device_offset + moved))
            else:
                part = pwritev(port.fd, &vector[first], count - first, <long>(request.device_offset + moved))
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
        if reading:
            pv_count(&port.counters[<int>PV_DISK_READS], 1)
            pv_count(&port.counters[<int>PV_DISK_READ_BYTES], moved)
        else:
            pv_count(&port.counters[<int>PV_DISK_WRITES], 1)
            pv_count(&port.counters[<int>PV_DISK_WRITTEN_BYTES], moved)
        return PV_REASON_NONE

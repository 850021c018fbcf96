"""Sockets of the kernel that stand for connections of guests: which endpoint has which, and moving their data (A5; tcp.h)."""

import os

from libc.errno cimport EAGAIN, errno
from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from pyx.abi cimport (
    PV_NIC_TCP_ACCEPTED, PV_NIC_TCP_CLOSED, PV_NIC_TCP_LOST, PV_NIC_TCP_RECEIVED_BYTES, PV_NIC_TCP_SENT_BYTES,
    PV_REASON_CONNECTION_LIMIT, PV_REASON_CONNECTION_STATE, PV_REASON_CONNECTION_UNKNOWN, PV_REASON_NONE,
    PV_TCP_CONNECTIONS_MAX, pv_tcp_address, pv_tcp_event,
)
from pyx.dmac cimport pv_dma_store, pv_dma_store_at
from pyx.lines cimport Lines
from pyx.portc cimport Job, Port
from pyx.ringc cimport pv_count
from pyx.tcpc cimport (
    close, epoll_create1, pv_tcp_accept, pv_tcp_close, pv_tcp_move, pv_tcp_readable, pv_tcp_reason, pv_tcp_watch,
)

cdef enum:
    RANGES = 32


cdef class Connections(Lines):

    def __cinit__(self, *args, **kwargs):
        self.home = self.epoll = -1
        self.home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self.epoll = epoll_create1(0o2000000)  # O_CLOEXEC
        if self.epoll < 0:
            raise OSError(errno, os.strerror(errno), "epoll")
        self.waker.add(self.epoll)

    def __dealloc__(self):
        cdef uint32_t i
        for i in range(self.engaged_count):
            free(self.engines[self.engaged[i]])
        for fd in (self.epoll, self.home):
            if fd >= 0:
                close(fd)

    # ---- control thread ----

    def engage(self, uint32_t port, int space, uint32_t wire, uint32_t connections, list ranges):
        """From now on the endpoint at `port` may have so many connections at the kernel's TCP of the namespace behind `space`,
        of which the device has its own copy afterwards; `wire`: port of the wire that leads there. `ranges`: (first, last)
        of the ports that it may listen at or connect to; none: all. ValueError where a number is out of range."""
        cdef Engine *e
        cdef uint32_t i
        self.attached(port)
        if self.engines[port] != NULL or not 0 < connections <= PV_TCP_CONNECTIONS_MAX or len(ranges) > RANGES:
            raise ValueError(f"port {port}: connections {connections} of {PV_TCP_CONNECTIONS_MAX}, {len(ranges)} ranges of {RANGES}, once")
        e = <Engine *>calloc(1, sizeof(Engine))
        if e == NULL:
            raise MemoryError()
        try:
            for i in range(<uint32_t>len(ranges)):
                e.ranges[i].first, e.ranges[i].last = ranges[i]
            e.space = os.dup(space)
        except BaseException:
            free(e)
            raise
        e.range_count = <uint32_t>len(ranges)
        e.wire = wire
        e.most = connections
        with self.quiet():
            self.engines[port] = e
            self.engaged[self.engaged_count] = port
            self.engaged_count += 1

    # ---- data thread ----

    cdef uint32_t add(self, Port *port, Engine *e, uint32_t id, int fd, uint32_t state) noexcept nogil:
        cdef Connection *c = &e.connections[<uint16_t>id]
        if pv_tcp_watch(self.epoll, fd, <uint64_t>port.number << 32 | id) != 0:
            pv_tcp_close(fd, True)
            return PV_REASON_CONNECTION_LIMIT
        c.id = id
        c.fd = fd
        c.state = state
        c.told = c.finished = False
        e.count += 1
        self.open_count += 1
        return PV_REASON_NONE

    cdef void drop(self, Port *port, Engine *e, Connection *c, bint reset) noexcept nogil:
        """Its parked requests have been answered."""
        pv_tcp_close(c.fd, reset)
        e.ready[<uint16_t>c.id // 64] &= ~(<uint64_t>1 << <uint16_t>c.id % 64)
        c.id = 0
        e.count -= 1
        self.open_count -= 1
        pv_count(&port.counters[<int>PV_NIC_TCP_CLOSED], 1)

    cdef uint32_t push_data(self, Port *port, Connection *c, const Job *job, uint64_t *moved) noexcept nogil:
        """As much as the socket takes of what is left; LATER: not all of it."""
        cdef long part
        while moved[0] < job.length:
            part = pv_tcp_move(c.fd, self.origin, job.spans, job.span_count, moved[0], job.length - moved[0], False)
            if part == -EAGAIN:
                return LATER
            if part < 0:
                pv_count(&port.counters[<int>PV_NIC_TCP_LOST], 1)
                return pv_tcp_reason(<int>-part)
            moved[0] += part
            pv_count(&port.counters[<int>PV_NIC_TCP_SENT_BYTES], part)
        return PV_REASON_NONE

    cdef uint32_t take_data(self, Port *port, Engine *e, Connection *c, const Job *job, uint32_t *bytes) noexcept nogil:
        cdef long part = pv_tcp_move(c.fd, self.origin, job.spans, job.span_count, 0, job.length, True)
        if part == -EAGAIN:
            return LATER
        c.told = False
        if part <= 0:
            c.finished = True
            if part < 0:
                pv_count(&port.counters[<int>PV_NIC_TCP_LOST], 1)
            return PV_REASON_NONE if part == 0 else pv_tcp_reason(<int>-part)
        bytes[0] = <uint32_t>part
        pv_count(&port.counters[<int>PV_NIC_TCP_RECEIVED_BYTES], part)
        if e.watching and pv_tcp_readable(c.fd):
            self.note(e, c)
        return PV_REASON_NONE

    cdef uint32_t accept(self, Port *port, Engine *e, Connection *c, const Job *job, uint32_t *bytes) noexcept nogil:
        cdef pv_tcp_address peer
        cdef uint32_t id = <uint32_t>(job.device_offset >> 32), reason
        cdef int fd
        if <uint16_t>id >= PV_TCP_CONNECTIONS_MAX or id >> 16 == 0:
            return PV_REASON_CONNECTION_UNKNOWN
        if e.connections[<uint16_t>id].id:
            return PV_REASON_CONNECTION_STATE
        if e.count >= e.most:
            return PV_REASON_CONNECTION_LIMIT
        fd = pv_tcp_accept(c.fd, &peer)
        if fd == -EAGAIN:
            return LATER
        c.told = False
        if fd < 0:
            return pv_tcp_reason(-fd)
        reason = self.add(port, e, id, fd, OPEN)
        if reason != PV_REASON_NONE:
            return reason
        pv_dma_store(self.origin, job.spans, &peer, sizeof(peer))
        bytes[0] = sizeof(peer)
        pv_count(&port.counters[<int>PV_NIC_TCP_ACCEPTED], 1)
        if e.watching and pv_tcp_readable(c.fd):
            self.note(e, c)
        return PV_REASON_NONE

    cdef void note(self, Engine *e, Connection *c) noexcept nogil:
        """The connection has something: the guest is told of it once."""
        if e.watching and not c.told and not c.finished:
            e.ready[<uint16_t>c.id // 64] |= <uint64_t>1 << <uint16_t>c.id % 64

    cdef uint32_t tell_events(self, Engine *e, const Job *job, uint32_t *bytes) noexcept nogil:
        """Writes who has something, in turn; LATER: nobody has."""
        cdef pv_tcp_event event
        cdef Connection *c
        cdef uint32_t looked, slot
        event.reserved = 0
        for looked in range(PV_TCP_CONNECTIONS_MAX):
            if job.length - bytes[0] < sizeof(event):
                break
            e.cursor = (e.cursor + 1) % PV_TCP_CONNECTIONS_MAX
            slot = e.cursor
            if e.ready[slot // 64] >> slot % 64 & 1 == 0:
                continue
            e.ready[slot // 64] &= ~(<uint64_t>1 << slot % 64)
            c = &e.connections[slot]
            if pv_tcp_readable(c.fd):
                c.told = True
                event.connection = c.id
                pv_dma_store_at(self.origin, job.spans, bytes[0], &event, sizeof(event))
                bytes[0] += sizeof(event)
        return PV_REASON_NONE if bytes[0] else LATER

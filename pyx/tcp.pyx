"""Requests about connections of TCP that the device ends for its guests (A2, A5; abi_tcp.h has them, connections.pyx the sockets).

The kernel's TCP is the engine, in the network namespace of the partition, which a wire joins to the switch: so a connection
reaches whatever frames reach. Each request is tried at once; what has to wait for its peer is parked with its connection, one
of each direction, and tried again when the kernel tells of a change. The data thread waits for nobody.

    execute_tcp --try--> done
         |                ^
         +-- park --> progress (an event of the kernel)
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free

from pyx.abi cimport (
    PV_NIC_TCP_LOST, PV_NIC_TCP_OPENED, PV_OFFLOAD_TCP, PV_OP_TCP_END, PV_OP_TCP_OPEN, PV_OP_TCP_RECEIVE, PV_OP_TCP_SEND,
    PV_PATH_DIRECT, PV_REASON_CONNECTION_LIMIT, PV_REASON_CONNECTION_PORT, PV_REASON_CONNECTION_REFUSED,
    PV_REASON_CONNECTION_STATE, PV_REASON_CONNECTION_UNKNOWN, PV_REASON_DETACHED, PV_REASON_NONE, PV_REASON_OFFLOAD_INVALID,
    PV_REASON_OFFLOAD_WITHHELD, PV_REASON_OPERATION_UNKNOWN, PV_STATUS_CANCELLED, PV_STATUS_FAILED, PV_STATUS_OK,
    PV_STATUS_REFUSED, PV_TCP_ACCEPT, PV_TCP_BACKLOG_MAX, PV_TCP_CONNECTIONS_MAX, PV_TCP_EVENTS, PV_TCP_LISTEN,
    PV_TCP_RESET, PV_TCP_SHUTDOWN, pv_tcp_address,
)
from pyx.connections cimport CONNECTING, LATER, LISTENING, OPEN, Connection, Engine, known
from pyx.dmac cimport pv_dma_fetch
from pyx.lines cimport Lines
from pyx.portc cimport Job, Port
from pyx.ringc cimport pv_count, pv_now
from pyx.tcpc cimport (
    EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP, SHUT_WR, close, epoll_event, epoll_wait, pv_tcp_error, pv_tcp_open,
    pv_tcp_reason, shutdown,
)
from pyx.wakerc cimport pv_waker_arm

cdef enum:
    EVENTS = 16           # of the kernel, taken in one poll: about as much work as a turn of a port


cdef inline uint32_t status_of(uint32_t reason) noexcept nogil:
    if reason == PV_REASON_NONE:
        return PV_STATUS_OK
    return PV_STATUS_FAILED if reason >= PV_REASON_CONNECTION_REFUSED else PV_STATUS_REFUSED


cdef class Tcp(Parking):

    # ---- control thread ----

    cdef int end_engine(self, uint32_t port) except -1:
        """Resets all connections of an endpoint; their peers are told before the wire goes."""
        cdef Engine *e = self.engines[port]
        cdef Port *p = self.attached(port)
        cdef uint32_t slot, i
        if e == NULL:
            return 0
        with self.quiet():
            self.return_parked(p, 0, PV_STATUS_CANCELLED, PV_REASON_DETACHED)
            for slot in range(PV_TCP_CONNECTIONS_MAX):
                if e.connections[slot].id:
                    self.drop(p, e, &e.connections[slot], True)
            for i in range(self.wire_count):
                while self.wires[i].port == e.wire and self.take_wire(&self.wires[i]):
                    pass
            self.publish()
            self.engines[port] = NULL
            for i in range(self.engaged_count):
                if self.engaged[i] == port:
                    self.engaged_count -= 1
                    self.engaged[i] = self.engaged[self.engaged_count]
                    break
        close(e.space)
        free(e)
        return 0

    # ---- data thread: requests ----

    cdef bint execute_tcp(self, Port *port, Job *job, uint64_t now) noexcept nogil:
        """Does one request, or parks it. Always True: nobody behind it waits."""
        cdef Engine *e = self.engines[port.number]
        cdef uint32_t bytes = 0, reason = PV_REASON_OPERATION_UNKNOWN
        cdef uint32_t path = PV_PATH_DIRECT if job.server == NULL else job.request.path
        if e == NULL or self.granted(port, path) & PV_OFFLOAD_TCP == 0:
            reason = PV_REASON_OFFLOAD_WITHHELD
        elif job.operation != PV_OP_TCP_END and not self.recordable(job):
            reason = PV_REASON_CONNECTION_LIMIT  # it might have to wait, and nobody would know of it after a death
        elif job.operation == PV_OP_TCP_SEND:
            reason = self.send(port, e, job, &bytes, now)
        elif job.operation == PV_OP_TCP_RECEIVE:
            reason = self.receive(port, e, job, &bytes, now)
        elif job.operation == PV_OP_TCP_OPEN:
            reason = self.open_connection(port, e, job, now)
        elif job.operation == PV_OP_TCP_END:
            reason = self.end_connection(port, e, job)
        if reason != LATER:
            self.complete(port, job, status_of(reason), reason, bytes, now, pv_now())
        self.mark(port)
        return True

    cdef uint32_t open_connection(self, Port *port, Engine *e, Job *job, uint64_t now) noexcept nogil:
        cdef pv_tcp_address address
        cdef bint listens = job.flags & PV_TCP_LISTEN != 0, allowed = e.range_count == 0
        cdef uint64_t id = job.device_offset
        cdef Connection *c
        cdef uint32_t i, reason
        cdef int fd, waits = 0
        if id >> 32 or <uint16_t>id >= PV_TCP_CONNECTIONS_MAX or id >> 16 == 0:
            return PV_REASON_CONNECTION_UNKNOWN
        pv_dma_fetch(self.origin, &address, job.spans, sizeof(address))  # once: what is judged is what is used
        if address.family != 4 and address.family != 6:
            return PV_REASON_OFFLOAD_INVALID
        if listens and not 0 < address.backlog <= PV_TCP_BACKLOG_MAX or not listens and address.backlog:
            return PV_REASON_OFFLOAD_INVALID
        for i in range(e.range_count):
            allowed = allowed or e.ranges[i].first <= address.port <= e.ranges[i].last
        if not allowed or address.port == 0:
            return PV_REASON_CONNECTION_PORT
        c = &e.connections[<uint16_t>id]
        if c.id == id and c.state == CONNECTING and not self.busy(port, &c.writer):
            self.park(port, &c.writer, job, 0, now)
            return LATER
        if c.id:
            return PV_REASON_CONNECTION_STATE
        if e.count >= e.most:
            return PV_REASON_CONNECTION_LIMIT
        fd = pv_tcp_open(self.home, e.space, &address, listens, &waits)
        if fd < 0:
            return pv_tcp_reason(-fd)
        reason = self.add(port, e, <uint32_t>id, fd, LISTENING if listens else CONNECTING if waits else OPEN)
        if reason != PV_REASON_NONE:
            return reason
        pv_count(&port.counters[<int>PV_NIC_TCP_OPENED], 1)
        if not waits:
            return PV_REASON_NONE
        self.park(port, &c.writer, job, 0, now)
        return LATER

    cdef uint32_t send(self, Port *port, Engine *e, Job *job, uint32_t *bytes, uint64_t now) noexcept nogil:
        cdef Connection *c = known(e, job.device_offset)
        cdef uint64_t moved = 0
        cdef uint32_t reason
        if c == NULL:
            return PV_REASON_CONNECTION_UNKNOWN
        if c.writer.used:
            moved = c.writer.moved  # by an earlier server, for the same request
        if c.state != OPEN or self.busy(port, &c.writer):
            return PV_REASON_CONNECTION_STATE
        reason = self.push_data(port, c, job, &moved)
        bytes[0] = <uint32_t>moved
        if reason == LATER:
            self.park(port, &c.writer, job, moved, now)
        return reason

    cdef uint32_t receive(self, Port *port, Engine *e, Job *job, uint32_t *bytes, uint64_t now) noexcept nogil:
        cdef Connection *c
        cdef uint32_t reason
        if job.flags & PV_TCP_EVENTS:
            if job.device_offset or self.busy(port, &e.asked):
                return PV_REASON_CONNECTION_STATE
            if not e.watching:
                self.watch(e)
            reason = self.tell_events(e, job, bytes)
            if reason == LATER:
                self.park(port, &e.asked, job, 0, now)
            return reason
        c = known(e, <uint32_t>job.device_offset)
        if c == NULL or job.device_offset >> 32 and not job.flags & PV_TCP_ACCEPT:
            return PV_REASON_CONNECTION_UNKNOWN
        if self.busy(port, &c.reader) or c.state != (LISTENING if job.flags & PV_TCP_ACCEPT else OPEN):
            return PV_REASON_CONNECTION_STATE
        reason = self.accept(port, e, c, job, bytes) if job.flags & PV_TCP_ACCEPT else self.take_data(port, e, c, job, bytes)
        if reason == LATER:
            self.park(port, &c.reader, job, 0, now)
        return reason

    cdef uint32_t end_connection(self, Port *port, Engine *e, Job *job) noexcept nogil:
        cdef Connection *c = known(e, job.device_offset)
        if c == NULL:
            return PV_REASON_CONNECTION_UNKNOWN
        if job.flags & PV_TCP_SHUTDOWN:
            if c.state != OPEN or c.writer.used:
                return PV_REASON_CONNECTION_STATE
            shutdown(c.fd, SHUT_WR)  # it fails where the peer has reset it: the next request says so
            return PV_REASON_NONE
        if c.reader.used and not self.fit(port, &c.reader) or c.writer.used and not self.fit(port, &c.writer):
            return PV_REASON_CONNECTION_STATE  # a server that takes no completions: once more
        if c.reader.used:
            self.finish_parked(port, &c.reader, PV_STATUS_CANCELLED, PV_REASON_CONNECTION_UNKNOWN, 0)
        if c.writer.used:
            self.finish_parked(port, &c.writer, PV_STATUS_CANCELLED, PV_REASON_CONNECTION_UNKNOWN, <uint32_t>c.writer.moved)
        self.drop(port, e, c, job.flags & PV_TCP_RESET != 0)
        return PV_REASON_NONE

    # ---- data thread: what waits ----

    cdef uint32_t progress(self, Port *port, Engine *e, Connection *c, uint32_t events) noexcept nogil:
        """What waits at a connection goes on after these events. Returns how many requests have ended."""
        cdef uint32_t reason, bytes = 0, done = 0
        cdef int error
        self.work_for(port.client)
        if c.writer.used and events & (EPOLLOUT | EPOLLERR | EPOLLHUP):
            if not self.fit(port, &c.writer):
                return 0
            if c.state == CONNECTING:
                error = pv_tcp_error(c.fd)
                if error:
                    pv_count(&port.counters[<int>PV_NIC_TCP_LOST], 1)
                    reason = pv_tcp_reason(error)
                    self.finish_parked(port, &c.writer, status_of(reason), reason, 0)
                    self.drop(port, e, c, True)
                    return 1
                c.state = OPEN
                reason = PV_REASON_NONE
            else:
                reason = self.outdated(port, &c.writer)
                if reason == PV_REASON_NONE:
                    reason = self.push_data(port, c, &c.writer.job, &c.writer.moved)
            if reason != LATER:
                self.finish_parked(port, &c.writer, status_of(reason), reason, <uint32_t>c.writer.moved)
                done = 1
        if events & (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP) == 0 or c.state == CONNECTING:
            return done
        if not c.reader.used:
            self.note(e, c)
            return done
        if not self.fit(port, &c.reader):
            return done
        reason = self.outdated(port, &c.reader)
        if reason == PV_REASON_NONE:
            reason = (self.accept(port, e, c, &c.reader.job, &bytes) if c.reader.job.flags & PV_TCP_ACCEPT
                      else self.take_data(port, e, c, &c.reader.job, &bytes))
        if reason != LATER:
            self.finish_parked(port, &c.reader, status_of(reason), reason, bytes)
            done += 1
        return done

    cdef void watch(self, Engine *e) noexcept nogil:
        """The guest wants to be told: also of what came before it asked."""
        cdef uint32_t slot
        e.watching = True
        for slot in range(PV_TCP_CONNECTIONS_MAX):
            if e.connections[slot].id and not e.connections[slot].reader.used and e.connections[slot].state != CONNECTING:
                self.note(e, &e.connections[slot])

    cdef uint32_t tell(self, Port *port, Engine *e) noexcept nogil:
        """Answers who asked which connections have something."""
        cdef uint32_t bytes = 0, reason
        if not e.asked.used or not self.fit(port, &e.asked):
            return 0
        self.work_for(port.client)
        reason = self.outdated(port, &e.asked)
        if reason == PV_REASON_NONE:
            reason = self.tell_events(e, &e.asked.job, &bytes)
        if reason == LATER:
            return 0
        self.finish_parked(port, &e.asked, status_of(reason), reason, bytes)
        return 1

    cdef uint32_t take_events(self) noexcept nogil:
        cdef epoll_event events[EVENTS]
        cdef int i, count = epoll_wait(self.epoll, events, EVENTS, 0)
        cdef uint32_t done = 0, slot
        cdef Engine *e
        cdef Connection *c
        for i in range(count):
            e = self.engines[events[i].data.u64 >> 32]
            c = &e.connections[<uint16_t>events[i].data.u64] if e != NULL else NULL
            if c != NULL and c.id == <uint32_t>events[i].data.u64:
                done += self.progress(&self.ports[events[i].data.u64 >> 32], e, c, events[i].events)
        if self.retry_at and pv_now() > self.retry_at:
            self.retry_at = 0
            for i in range(<int>self.engaged_count):
                e = self.engines[self.engaged[i]]
                for slot in range(PV_TCP_CONNECTIONS_MAX):
                    c = &e.connections[slot]
                    if c.id and (c.reader.used or c.writer.used):
                        done += self.progress(&self.ports[self.engaged[i]], e, c, EPOLLOUT | EPOLLIN if c.state != CONNECTING else 0)
        for i in range(<int>self.engaged_count):
            done += self.tell(&self.ports[self.engaged[i]], self.engines[self.engaged[i]])
        if done:
            self.publish()
        return done + (count if count > 0 else 0)

    cdef uint32_t poll(self) noexcept nogil:
        cdef uint32_t work = Lines.poll(self)
        if self.open_count == 0:
            return work
        self.begin = self.validated = pv_now()
        work += self.take_events()
        if self.retry_at and self.retry_at < self.wait_until:
            self.wait_until = self.retry_at
        return work

    cdef bint pending(self) noexcept nogil:
        if Lines.pending(self):
            return True
        if self.open_count:
            pv_waker_arm(&self.waker.one, self.epoll)
        return False

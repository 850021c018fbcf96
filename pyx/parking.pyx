"""Requests that wait at the device for a peer of TCP, with the connection that they are about (A5).

Those of a hardware ring keep no room for their completions: a server that takes none has them tried later. What a parked
request may touch is looked at again before it does: its queue pair must be the one that it came by, its server in office. One
whose server has lost its office is forgotten when its successor asks again.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

from pyx.abi cimport (
    PV_ID_SLOT, PV_IO_REFUSED, PV_REASON_ADDRESS_WITHHELD, PV_STATUS_REFUSED, PV_NIC_TCP_WAITED, PV_OP_TCP_OPEN, PV_PATH_DIRECT, PV_REASON_NONE,
    PV_REASON_PATH_CHANGED, PV_REASON_PATH_CLOSED, PV_STATUS_CANCELLED, PV_STATUS_OK, PV_TCP_CONNECTIONS_MAX,
)
from pyx.bars cimport Bars, touches
from pyx.connections cimport LATER, Connection, Connections, Engine, Parked
from pyx.dmac cimport pv_span
from pyx.intake cimport Intake
from pyx.pairc cimport pv_translation_current
from pyx.portc cimport BATCH, Job, Port
from pyx.ports cimport Ports
from pyx.ringc cimport pv_count, pv_now, pv_producer_free

cdef uint64_t RETRY_NS = 200_000


cdef inline bint sent_by(const Parked *p, uint64_t server) noexcept nogil:
    return p.used and p.job.server != NULL and p.job.server.slot == PV_ID_SLOT(server)


cdef class Parking(Connections):

    # ---- control thread ----

    def disconnect(self, uint64_t server):
        """As that of any device. ValueError while requests of this I/O partition wait for their peers."""
        cdef uint32_t i, slot
        cdef bint waits
        cdef Engine *e
        cdef Connection *c
        cdef Port *port
        with self.quiet():
            for i in range(self.engaged_count):
                e = self.engines[self.engaged[i]]
                port = &self.ports[self.engaged[i]]
                waits = sent_by(&e.asked, server) and self.busy(port, &e.asked)
                for slot in range(PV_TCP_CONNECTIONS_MAX):
                    c = &e.connections[slot]
                    waits |= sent_by(&c.reader, server) and self.busy(port, &c.reader)
                    waits |= sent_by(&c.writer, server) and self.busy(port, &c.writer)
                if waits:
                    raise ValueError(f"requests of {server:#x} wait for connections of port {self.engaged[i]}")
        Intake.disconnect(self, server)

    # ---- data thread ----

    cdef bint busy(self, Port *port, Parked *p) noexcept nogil:
        """Does a request wait there? One whose server has lost its office is forgotten: whoever follows it has found it in the
        ledger, and asks again."""
        if p.used and p.job.server != NULL and self.outdated(port, p) != PV_REASON_NONE:
            p.used = False
        return p.used

    cdef void park(self, Port *port, Parked *p, const Job *job, uint64_t moved, uint64_t now) noexcept nogil:
        p.used = True
        p.job = job[0]
        p.key = 0
        if job.request != NULL:
            p.request = job.request[0]
            p.job.request = &p.request
        else:
            p.key = port.pair.translation.key
            port.flying += 1
            if job.entry == 0:
                p.job.entry = self.record(port, job)
        memcpy(p.spans, job.spans, job.span_count * sizeof(pv_span))
        p.job.spans = p.spans
        p.moved = moved
        p.start = now
        pv_count(&port.counters[<int>PV_NIC_TCP_WAITED], 1)

    cdef bint fit(self, Port *port, Parked *p) noexcept nogil:
        """Is there room for its completion? Otherwise it is tried again later."""
        if p.job.server == NULL or pv_producer_free(&p.job.server.completions, 2 * BATCH) >= 2 * BATCH:
            return True
        self.retry_at = pv_now() + RETRY_NS
        return False

    cdef uint32_t outdated(self, Port *port, Parked *p) noexcept nogil:
        """Why a request that waited may not touch memory any more; NONE: it may. LATER: its server has lost its office. The next
        one finds it in the ledger and asks again; what is answered before may be found there too, and moved twice."""
        if p.job.server != NULL:
            return PV_REASON_NONE if self.in_office(&p.request, p.job.server.slot) else LATER
        if pv_translation_current(port.pair.entry, &port.pair.translation) and port.pair.translation.key == p.key:
            return PV_REASON_NONE
        return PV_REASON_PATH_CLOSED

    cdef void finish_parked(self, Port *port, Parked *p, uint32_t status, uint32_t reason, uint32_t bytes) noexcept nogil:
        p.used = False
        self.complete(port, &p.job, status, reason, bytes, p.start, pv_now())
        if p.job.server == NULL:
            port.flying -= 1

    cdef uint32_t return_parked(self, Port *port, uint32_t path, uint32_t status, uint32_t reason,
                                const pv_span *within=NULL, uint32_t *stay=NULL) noexcept nogil:
        """Gives back what waits and came by `path` (0: all), and touches `within` (NULL: any memory); `stay`: how many find no
        room for their completion. A send that is half done ends with what it did; an attempt to connect is given up, and made
        again by whoever submits it again."""
        cdef Engine *e = self.engines[port.number]
        cdef uint32_t slot, k, returned = 0
        cdef Connection *c
        cdef Parked *p
        if e == NULL:
            return 0
        for slot in range(PV_TCP_CONNECTIONS_MAX + 1):
            c = &e.connections[slot] if slot < PV_TCP_CONNECTIONS_MAX else NULL
            for k in range(2 if c != NULL else 1):
                p = &e.asked if c == NULL else &c.writer if k else &c.reader
                if not p.used or path and path != (PV_PATH_DIRECT if p.job.server == NULL else p.request.path):
                    continue
                if within != NULL and not touches(p.job.spans, p.job.span_count, within.hpa, within.hpa + within.length):
                    continue
                if not self.fit(port, p):
                    if stay != NULL:
                        stay[0] += 1
                    continue
                returned += 1
                if p.moved:
                    self.finish_parked(port, p, PV_STATUS_OK, PV_REASON_NONE, <uint32_t>p.moved)
                    continue
                if status == PV_STATUS_REFUSED and p.job.server != NULL:
                    pv_count(&port.counters[<int>PV_IO_REFUSED + reason], 1)
                self.finish_parked(port, p, status, reason, 0)
                if p.job.operation == PV_OP_TCP_OPEN:
                    self.drop(port, e, c, True)
        return returned

    cdef uint32_t give_back(self, Port *port) noexcept nogil:
        cdef uint32_t path = port.away
        return Ports.give_back(self, port) + self.return_parked(port, path, PV_STATUS_CANCELLED, PV_REASON_PATH_CHANGED)

    cdef uint32_t refuse_waiting(self, Port *port, uint64_t hpa, uint64_t end) noexcept nogil:
        cdef pv_span within
        cdef uint32_t stay = 0
        within.hpa = hpa
        within.length = end - hpa
        self.return_parked(port, 0, PV_STATUS_REFUSED, PV_REASON_ADDRESS_WITHHELD, &within, &stay)
        return Bars.refuse_waiting(self, port, hpa, end) + stay

    cdef void servers_moved(self, uint32_t at) noexcept nogil:
        cdef uint32_t i, slot
        cdef Engine *e
        for i in range(self.engaged_count):
            e = self.engines[self.engaged[i]]
            for slot in range(PV_TCP_CONNECTIONS_MAX):
                if e.connections[slot].reader.used and e.connections[slot].reader.job.server > &self.servers[at]:
                    e.connections[slot].reader.job.server -= 1
                if e.connections[slot].writer.used and e.connections[slot].writer.job.server > &self.servers[at]:
                    e.connections[slot].writer.job.server -= 1
            if e.asked.used and e.asked.job.server > &self.servers[at]:
                e.asked.job.server -= 1

"""Hardware rings of a device: translated requests go to the queues of their ports.

Requests carry host addresses of the monitor, the epoch of the server that asked and the generation of the port; those
of an epoch that is over, or of an earlier life of the port, are refused here (rules.md 12, 19).
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from pyx.abi cimport (
    PV_EXTENTS_MAX, PV_EXTENTS_PER_SLOT, PV_ID_SLOT, PV_PAGE, PV_PORTS_MAX, PV_REASON_EPOCH_STALE,
    PV_REASON_GENERATION_STALE, PV_REASON_NONE, PV_REASON_OPERATION_UNKNOWN, PV_REASON_PATH_CHANGED,
    PV_STATUS_CANCELLED, PV_STATUS_REFUSED, pv_dma_extents, pv_dma_request, pv_doorbell, pv_kernel, pv_ring,
)
from pyx.bars cimport Bars
from pyx.dmac cimport pv_span
from pyx.portc cimport BATCH, Fifo, Port, Server, Waiting
from pyx.ringc cimport (
    PV_CHARGE_SHARED, pv_consumer_attach, pv_consumer_available, pv_consumer_fetch, pv_consumer_prefetch, pv_consumer_release,
    pv_meter_items, pv_meter_turn, pv_now, pv_producer_attach, pv_producer_free,
)
from pyx.segment cimport Mapping, map_ring

import os

cdef extern from *:
    """
    #include "ring.h"
    static inline uint64_t pv_epoch(const struct pv_kernel *kernel, uint32_t slot)
    { return atomic_load_explicit(&((struct pv_kernel *)kernel)->epochs[slot], memory_order_acquire); }
    /* pairs with the load-acquire in pv_watch_drained: what was executed is on its ring by then */
    static inline void pv_drained(struct pv_ring *ring, uint64_t epoch)
    { atomic_store_explicit(&ring->drained, epoch, memory_order_release); }
    """
    uint64_t pv_epoch(const pv_kernel *kernel, uint32_t slot) nogil
    void pv_drained(pv_ring *ring, uint64_t epoch) nogil


cdef uint64_t PATIENCE_NS = 5_000_000_000    # for every office to be told that this device has another process
cdef uint64_t SENDING_NS = 2_000_000_000     # for what they have in flight, once one was


cdef class Intake(Bars):
    """The servers' rings, and who of them holds an office."""

    def succeed(self):
        """This device follows a process that died: it serves nobody until `go_on`. Before any server is connected."""
        self.successor = self.held = True

    def connect(self, uint64_t server, int ring_fd, int completion_fd, uint32_t capacity, int server_bell_fd):
        """Connects both hardware rings of (I/O partition `server`, this device)."""
        if self.kernel == NULL:
            raise ValueError("no kernel is loaded: nobody holds an office")
        if self.server_count == 8:
            raise ValueError("at most 8 I/O partitions")
        cdef Mapping ring = map_ring(ring_fd, capacity, 1)
        cdef Mapping completions = map_ring(completion_fd, capacity, 1)
        cdef Mapping bell = Mapping(server_bell_fd, PV_PAGE)
        cdef Server *s
        with self.quiet():
            s = &self.servers[self.server_count]
            memset(s, 0, sizeof(Server))
            s.slot = PV_ID_SLOT(server)
            pv_consumer_attach(&s.requests, ring.base, capacity)
            pv_producer_attach(&s.completions, completions.base, capacity, <pv_doorbell *>bell.base, self.symmetric)
            self.resume_server(s, server, os.fstat(completion_fd).st_ino)
            s.used = True
            self.behind_bars(s)
            self.server_count += 1
            if self.successor:
                self.patient_until = pv_now() + PATIENCE_NS
            if self.held:
                s.before = pv_epoch(self.kernel, s.slot)
            self.kept["server", server] = (ring, completions, bell)

    def connected(self, uint64_t server) -> bool:
        return ("server", server) in self.kept

    def disconnect(self, uint64_t server):
        """Forgets both rings of an I/O partition. KeyError where it is not connected, ValueError while requests wait at
        a port: they would lose whom they are answered to."""
        cdef uint32_t i, at = 0
        if ("server", server) not in self.kept:
            raise KeyError(f"{server:#x} is not connected")
        with self.quiet():
            for i in range(self.active_count):
                if (self.ports[self.active[i]].queue.head != self.ports[self.active[i]].queue.tail
                        or self.ports[self.active[i]].buffers.head != self.ports[self.active[i]].buffers.tail):
                    raise ValueError(f"requests wait at port {self.active[i]}")
            while self.servers[at].slot != PV_ID_SLOT(server):
                at += 1
            if self.servers[at].flying:
                raise ValueError(f"{self.servers[at].flying} of its requests are at the medium")
            if self.servers[at].ledger != NULL:
                self.servers[at].ledger.owner = 0
            self.server_count -= 1
            for i in range(at, self.server_count):
                self.servers[i] = self.servers[i + 1]
            self.servers_moved(at)
        for mapping in self.kept.pop(("server", server)):
            mapping.detach()

    cdef void servers_moved(self, uint32_t at) noexcept nogil:
        """Inside `quiet`: servers from `at` on lie one place further down now."""
        pass

    cdef bint in_office(self, const pv_dma_request *request, uint16_t slot) noexcept nogil:
        """Does the server that asked still hold the office in whose name it asks?"""
        return request.server == slot and request.epoch == pv_epoch(self.kernel, slot)

    cdef uint32_t fetch(self, Server *server, uint32_t index, pv_dma_request *request, pv_span *spans) noexcept nogil:
        """Fetches the request at `index` with its extents (room for PV_EXTENTS_MAX); returns ring slots used."""
        cdef pv_dma_extents more
        cdef uint32_t i, slots
        if index + 4 < <uint32_t>(server.requests.tail - server.requests.head):
            pv_consumer_prefetch(&server.requests, index + 4)
        pv_consumer_fetch(&server.requests, index, request)
        if request.extent_count <= 1 or request.extent_count > PV_EXTENTS_MAX:
            spans[0].hpa = request.hpa
            spans[0].length = request.length
            return 1
        slots = (request.extent_count + PV_EXTENTS_PER_SLOT - 1) // PV_EXTENTS_PER_SLOT
        for i in range(request.extent_count):
            if i % PV_EXTENTS_PER_SLOT == 0:
                pv_consumer_fetch(&server.requests, index + 1 + i // PV_EXTENTS_PER_SLOT, &more)
            spans[i].hpa = more.extent[i % PV_EXTENTS_PER_SLOT].hpa
            spans[i].length = more.extent[i % PV_EXTENTS_PER_SLOT].length
        return 1 + slots

    cdef Fifo *place(self, Port *port, const pv_dma_request *request) noexcept nogil:
        """Where a request of this port waits; NULL: no such operation."""
        return NULL

    cdef void count_fenced(self, Port *port, uint32_t count) noexcept nogil:
        pass

    cdef bint raised(self) noexcept nogil:
        """Has a server another epoch than when this thread looked last?"""
        cdef uint32_t i
        for i in range(self.server_count):
            if pv_epoch(self.kernel, self.servers[i].slot) != self.servers[i].epoch:
                return True
        return False

    cdef bint before(self, const Server *server) noexcept nogil:
        """Is the office still in the epoch under which the process before this one took requests off the ring? Those come
        again under the next one, and what stands on the ring would overtake them. No longer than the office may take."""
        return (server.before != 0 and server.before == pv_epoch(self.kernel, server.slot)
                and pv_now() <= self.patient_until)

    cdef void fence(self, Server *server) noexcept nogil:
        """Between two turns: what waits here under an earlier epoch is dropped, and when nothing of it is at the medium
        either, and all answers are shown, the monitor is told so (rules.md 20)."""
        cdef uint64_t epoch = pv_epoch(self.kernel, server.slot)
        cdef uint32_t i, dropped
        cdef Port *port
        if epoch == server.drained:
            return
        if epoch != server.epoch:
            if server.epoch and self.patient_until:
                self.patient_until = pv_now() + SENDING_NS
            server.epoch = epoch
            for i in range(self.active_count):
                port = &self.ports[self.active[i]]
                dropped = (self.drop_stale(port, &port.queue, server, epoch)
                           + self.drop_stale(port, &port.buffers, server, epoch))
                if dropped:
                    self.count_fenced(port, dropped)
        if server.flying == 0:
            self.publish()
            server.drained = epoch
            pv_drained(server.requests.ring, epoch)

    cdef void tally(self, const Port *port, uint32_t count) noexcept nogil:
        """So many items of the present stretch were for that port."""
        if port != NULL and port.used:
            pv_meter_items(&self.meter, port.client, count)

    cdef uint32_t intake(self, Server *server) noexcept nogil:
        """Takes requests off a hardware ring into the queues of their ports."""
        cdef uint32_t available = pv_consumer_available(&server.requests), at = 0, done = 0, used, reason
        cdef pv_dma_request request
        cdef pv_span spans[260]
        cdef Port *port
        cdef Port *last = NULL
        cdef uint32_t run = 0
        cdef Fifo *fifo
        cdef Waiting *entry
        cdef uint64_t now
        if available == 0:
            return 0
        if self.before(server):
            self.stalled = True
            return 0
        now = pv_now()
        pv_meter_turn(&self.meter, PV_CHARGE_SHARED, now)
        while at < available and done < 2 * BATCH:
            if pv_producer_free(&server.completions, 1 + server.flying) <= server.flying:
                self.stalled = True
                break
            used = self.fetch(server, at, &request, spans)
            port = &self.ports[request.port] if request.port < PV_PORTS_MAX else NULL
            reason = PV_REASON_NONE
            if port == last:
                run += 1
            else:
                self.tally(last, run)
                last = port
                run = 1
            if not self.in_office(&request, server.slot):
                reason = PV_REASON_EPOCH_STALE
                if port != NULL and port.used:
                    self.count_fenced(port, 1)
            elif port == NULL or not port.used or port.generation != request.port_generation:
                reason = PV_REASON_GENERATION_STALE
                if port != NULL and port.used:
                    self.count_fenced(port, 1)
            elif self.bar_count and self.barred(spans, request.extent_count if request.extent_count > 1 else 1):
                self.refuse_barred(port, server, &request)
                at += used
                done += 1
                continue
            elif port.away == request.path:
                self.finish(server, &request, PV_STATUS_CANCELLED, PV_REASON_PATH_CHANGED, 0, now, now)
                at += used
                done += 1
                continue
            else:
                fifo = self.place(port, &request)
                if fifo == NULL or request.extent_count > fifo.spans_max:
                    reason = PV_REASON_OPERATION_UNKNOWN
                elif fifo.tail - fifo.head == fifo.capacity:
                    break  # more than a queue can have in flight: the ring waits
                else:
                    if fifo.head == fifo.tail:
                        fifo.head = fifo.tail = 0  # the lines that were used last are near
                    entry = &fifo.entries[fifo.tail & (fifo.capacity - 1)]
                    entry.request = request
                    entry.server = server
                    if request.extent_count > 1:
                        memcpy(&fifo.spans[(fifo.tail & (fifo.capacity - 1)) * fifo.spans_max], spans,
                               sizeof(pv_span) * request.extent_count)
                    fifo.tail += 1
            if reason != PV_REASON_NONE:
                self.finish(server, &request, PV_STATUS_REFUSED, reason, 0, now, now)
            at += used
            done += 1
        self.tally(last, run)
        pv_consumer_release(&server.requests, at)
        return done

"""NIC device: switches frames between partitions by MAC address, from guest memory into guest memory (U7, U10, W7).

A frame is delivered into a buffer that its receiver posted. Where none is posted the frame waits at its sender's
port, in order, for at most HOLD_NS; then it is dropped and counted at both ends. So a receiver that is scheduled
away briefly loses nothing, and one that never drains costs its senders, nobody else.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from pyx.abi cimport (
    PV_FRAME_MAX, PV_NIC_BUFFERS_POSTED, PV_NIC_BUFFERS_RETURNED, PV_NIC_DMA_BYTES, PV_NIC_FENCED,
    PV_NIC_FORWARDED_FRAMES, PV_NIC_HELD_FRAMES, PV_NIC_RECEIVE_BYTES, PV_NIC_RECEIVE_DROPPED, PV_NIC_RECEIVE_FRAMES,
    PV_NIC_TRANSMIT_BYTES, PV_NIC_TRANSMIT_DROPPED, PV_NIC_TRANSMIT_FRAMES, PV_OP_RECEIVE, PV_OP_SEND,
    PV_REASON_BUFFER_SMALL, PV_REASON_DETACHED, PV_REASON_EPOCH_STALE, PV_REASON_FRAME_SOURCE,
    PV_REASON_GENERATION_STALE, PV_REASON_LIST_LIMIT, PV_REASON_NONE, PV_REASON_NO_BUFFER, PV_REASON_NO_DESTINATION,
    PV_REASON_OPERATION_UNKNOWN, PV_STATUS_CANCELLED, PV_STATUS_OK, PV_STATUS_REFUSED, pv_dma_request,
)
from pyx.device cimport Device, Server, pv_dma_fetch, pv_dma_move, pv_dma_store, pv_span
from pyx.ringc cimport (
    pv_consumer, pv_consumer_available, pv_consumer_release, pv_count, pv_now, pv_producer_free, pv_row,
    pv_row_counters,
)

cdef extern from *:
    """
    #include "ring.h"
    static inline void prefetch_read(const char *p) { __builtin_prefetch(p, 0); }
    static inline void prefetch_write(const char *p) { __builtin_prefetch(p, 1); }
    /* The hpa of a waiting request, for prefetching alone: prefetching any address is harmless. */
    static inline uint64_t pv_peek_hpa(const struct pv_consumer *c, uint32_t index)
    { return __atomic_load_n(c->slots + ((c->head + index) & (c->capacity - 1)) * 8 + 1, __ATOMIC_RELAXED); }
    """
    void prefetch_read(const char *p) nogil
    void prefetch_write(const char *p) nogil
    uint64_t pv_peek_hpa(const pv_consumer *c, uint32_t index) nogil

cdef enum:
    BATCH = 64
    PORTS = 128            # so that completions of one broadcast fit any completion ring
    BUFFERS = 1024         # posted receive buffers, and held frames, of one port
    SPANS = 18             # pages of the largest frame, unaligned
    ADDRESSES = 512        # slots of the MAC table: at most a quarter full

cdef uint64_t HOLD_NS = 100_000_000

cdef struct Posted:
    pv_dma_request request  # one extent: the request says it all, and the entry stays small
    uint64_t since          # held frames: arrival
    Server *server

cdef struct Spans:
    pv_span spans[18]

cdef struct Fifo:
    Posted *entries         # [BUFFERS]
    Spans *spans            # [BUFFERS], of entries with several extents
    uint32_t head
    uint32_t tail

cdef struct Port:
    bint used
    uint32_t generation
    uint8_t mac[6]
    Fifo buffers            # posted receive buffers
    Fifo held               # frames that wait for a buffer, in order
    uint64_t *counters
    uint32_t row

cdef struct Address:
    uint64_t mac            # 48 bits; 0: free
    uint32_t port


cdef inline const pv_span *spans_of(const Fifo *fifo, uint32_t at, pv_span *one) noexcept nogil:
    """The extents of the entry at `at`; `one` is room for the only one."""
    cdef const pv_dma_request *request = &fifo.entries[at % BUFFERS].request
    if request.extent_count > 1:
        return fifo.spans[at % BUFFERS].spans
    one.hpa = request.hpa
    one.length = request.length
    return one


cdef inline void put(Fifo *fifo, Server *server, const pv_dma_request *request, const pv_span *spans,
                     uint64_t now) noexcept nogil:
    cdef Posted *entry = &fifo.entries[fifo.tail % BUFFERS]
    entry.request = request[0]
    entry.server = server
    entry.since = now
    if request.extent_count > 1:
        memcpy(fifo.spans[fifo.tail % BUFFERS].spans, spans, sizeof(pv_span) * request.extent_count)
    fifo.tail += 1


cdef bint make_fifo(Fifo *fifo) noexcept:
    fifo.head = fifo.tail = 0
    fifo.entries = <Posted *>calloc(BUFFERS, sizeof(Posted))
    fifo.spans = <Spans *>calloc(BUFFERS, sizeof(Spans))
    return fifo.entries != NULL and fifo.spans != NULL


cdef void free_fifo(Fifo *fifo) noexcept:
    free(fifo.entries)
    free(fifo.spans)
    fifo.entries = NULL
    fifo.spans = NULL


cdef inline uint64_t address_of(const uint8_t *bytes) noexcept nogil:
    cdef uint64_t value = 0
    memcpy(&value, bytes, 6)
    return value


cdef uint64_t MULTIPLIER = 0x9e3779b97f4a7c15


cdef inline uint32_t slot_of(uint64_t mac) noexcept nogil:
    return <uint32_t>((mac * MULTIPLIER) >> 55)  # 9 bits: ADDRESSES


cdef class Nic(Device):
    cdef Port *ports
    cdef Address addresses[512]
    cdef uint32_t port_limit        # highest used + 1
    cdef uint32_t held_ports        # ports with held frames

    def __cinit__(self, *args, **kwargs):
        self.ports = <Port *>calloc(PORTS, sizeof(Port))
        if self.ports == NULL:
            raise MemoryError()

    def __dealloc__(self):
        cdef uint32_t i
        if self.ports != NULL:
            for i in range(PORTS):
                free_fifo(&self.ports[i].buffers)
                free_fifo(&self.ports[i].held)
            free(self.ports)

    def attach_port(self, uint32_t port, uint64_t generation, uint64_t partition, uint16_t endpoint, bytes mac):
        """Puts an endpoint with address `mac` (6 bytes, unicast) at `port`. ValueError where port or address is taken."""
        if port >= PORTS or self.ports[port].used:
            raise ValueError(f"port {port} is out of range or taken")
        if len(mac) != 6 or mac[0] & 1 or mac == bytes(6):
            raise ValueError(f"address {mac.hex(':')} is no unicast MAC address")
        cdef Port *p = &self.ports[port]
        cdef Fifo buffers, held
        for i in range(PORTS):
            if self.ports[i].used and bytes(self.ports[i].mac[:6]) == mac:
                raise ValueError(f"address {mac.hex(':')} is taken by port {i}")
        made = make_fifo(&buffers)
        if not make_fifo(&held) or not made:
            free_fifo(&buffers)
            free_fifo(&held)
            raise MemoryError()
        with self.quiet():
            memset(p, 0, sizeof(Port))
            p.row = self.open_row(partition, endpoint)
            p.buffers = buffers
            p.held = held
            p.generation = <uint32_t>generation
            for i in range(6):
                p.mac[i] = mac[i]
            p.counters = pv_row_counters(pv_row(self.statistics, p.row))
            p.used = True
            if port >= self.port_limit:
                self.port_limit = port + 1
            self.build_addresses()

    def detach_port(self, uint32_t port):
        """Cancels posted buffers and held frames of the port; later requests are refused as stale."""
        if port >= PORTS or not self.ports[port].used:
            raise KeyError(f"port {port} is not attached")
        cdef Port *p = &self.ports[port]
        with self.quiet():
            self.cancel(&p.buffers)
            if p.held.head != p.held.tail:
                self.held_ports -= 1
            self.cancel(&p.held)
            self.publish()
            free_fifo(&p.buffers)
            free_fifo(&p.held)
            memset(p, 0, sizeof(Port))
            self.build_addresses()

    cdef void build_addresses(self) noexcept:
        cdef uint32_t i, at
        memset(self.addresses, 0, sizeof(self.addresses))
        for i in range(PORTS):
            if self.ports[i].used:
                mac = address_of(self.ports[i].mac)
                at = slot_of(mac)
                while self.addresses[at].mac:
                    at = (at + 1) % ADDRESSES
                self.addresses[at].mac = mac
                self.addresses[at].port = i

    cdef void cancel(self, Fifo *fifo) noexcept nogil:
        cdef Posted *entry
        while fifo.head != fifo.tail:
            entry = &fifo.entries[fifo.head % BUFFERS]
            # No room means a server that does not take completions: its ledger still holds the request.
            if pv_producer_free(&entry.server.completions, 1):
                self.finish(entry.server, &entry.request, PV_STATUS_CANCELLED, PV_REASON_DETACHED, 0, 0, 0)
            fifo.head += 1

    # ---- data thread ----

    cdef int find(self, uint64_t mac) noexcept nogil:
        cdef uint32_t at = slot_of(mac)
        while self.addresses[at].mac:
            if self.addresses[at].mac == mac:
                return <int>self.addresses[at].port
            at = (at + 1) % ADDRESSES
        return -1

    cdef uint64_t sleep_limit(self) noexcept nogil:
        # Held frames go on when a buffer is posted, which wakes this thread, or when their time is over.
        cdef uint64_t limit = Device.sleep_limit(self)
        return HOLD_NS // 4 if self.held_ports and limit > HOLD_NS // 4 else limit

    cdef uint32_t poll(self) noexcept nogil:
        cdef uint32_t i, work = 0
        self.stalled = False
        for i in range(self.server_count):
            work += self.serve(&self.servers[i])
        if self.held_ports:
            work += self.retry()
        if work:
            self.publish()
        return work

    cdef bint room(self, uint32_t completions) noexcept nogil:
        """Is there room for that many completions at every server?"""
        cdef uint32_t i
        for i in range(self.server_count):
            if pv_producer_free(&self.servers[i].completions, completions) < completions:
                return False
        return True

    cdef uint32_t serve(self, Server *server) noexcept nogil:
        cdef uint32_t available = pv_consumer_available(&server.requests)
        cdef uint32_t at = 0, done = 0
        cdef pv_dma_request request
        cdef pv_span spans[260]
        cdef Port *port
        cdef uint64_t now
        if available == 0:
            return 0
        if not self.room(BATCH * 2 + PORTS):
            self.stalled = True
            return 0
        now = pv_now()
        while at < available and done < BATCH:
            if at + 3 < available:
                prefetch_read(self.window.origin() + pv_peek_hpa(&server.requests, at + 3))
            at += self.fetch(server, at, &request, spans)
            done += 1
            port = &self.ports[request.port] if request.port < PORTS else NULL
            if not self.in_office(&request, server.slot):
                if port != NULL and port.used:
                    pv_count(&port.counters[<int>PV_NIC_FENCED], 1)
                self.finish(server, &request, PV_STATUS_REFUSED, PV_REASON_EPOCH_STALE, 0, now, now)
            elif port == NULL or not port.used or port.generation != request.port_generation:
                self.finish(server, &request, PV_STATUS_REFUSED, PV_REASON_GENERATION_STALE, 0, now, now)
            elif request.operation == PV_OP_RECEIVE:
                self.post(port, server, &request, spans, now)
            elif request.operation == PV_OP_SEND:
                if port.held.head != port.held.tail:
                    self.hold(port, server, &request, spans, now)  # order: behind those that wait already
                elif not self.send(port, server, &request, spans, now, now, False):
                    self.hold(port, server, &request, spans, now)
                if not self.room(PORTS + 2):
                    break
            else:
                self.finish(server, &request, PV_STATUS_REFUSED, PV_REASON_OPERATION_UNKNOWN, 0, now, now)
        pv_consumer_release(&server.requests, at)
        return done

    cdef void post(self, Port *port, Server *server, const pv_dma_request *request, const pv_span *spans, uint64_t now) noexcept nogil:
        if port.buffers.tail - port.buffers.head == BUFFERS or request.extent_count > SPANS:
            self.finish(server, request, PV_STATUS_REFUSED,
                        PV_REASON_LIST_LIMIT, 0, now, now)
            return
        put(&port.buffers, server, request, spans, now)
        pv_count(&port.counters[<int>PV_NIC_BUFFERS_POSTED], 1)

    cdef void hold(self, Port *port, Server *server, const pv_dma_request *request, const pv_span *spans, uint64_t now) noexcept nogil:
        if port.held.tail - port.held.head == BUFFERS or request.extent_count > SPANS:
            pv_count(&port.counters[<int>PV_NIC_TRANSMIT_DROPPED + <int>PV_REASON_NO_BUFFER], 1)
            self.finish(server, request, PV_STATUS_OK, PV_REASON_NO_BUFFER, request.length, now, now)
            return
        if port.held.head == port.held.tail:
            self.held_ports += 1
        put(&port.held, server, request, spans, now)
        pv_count(&port.counters[<int>PV_NIC_HELD_FRAMES], 1)

    cdef uint32_t retry(self) noexcept nogil:
        """Sends held frames on whose receivers have buffers now; drops those that waited too long."""
        cdef uint32_t i, work = 0, budget
        cdef Port *port
        cdef Posted *entry
        cdef const pv_span *spans
        cdef pv_span one
        cdef uint64_t now = pv_now()
        for i in range(self.port_limit):
            port = &self.ports[i]
            if not port.used or port.held.head == port.held.tail:
                continue
            budget = BATCH
            while port.held.head != port.held.tail and budget and self.room(PORTS + 2):
                entry = &port.held.entries[port.held.head % BUFFERS]
                spans = spans_of(&port.held, port.held.head, &one)
                if not self.send(port, entry.server, &entry.request, spans, now, entry.since,
                                 now - entry.since > HOLD_NS):
                    break
                port.held.head += 1
                budget -= 1
                work += 1
            if port.held.head == port.held.tail:
                self.held_ports -= 1
        return work

    cdef bint send(self, Port *port, Server *server, const pv_dma_request *request, const pv_span *spans, uint64_t now,
                   uint64_t start, bint late) noexcept nogil:
        """Delivers one frame. False: its receiver has no buffer yet and there is time left (`late` is false)."""
        cdef uint8_t header[14]
        cdef uint32_t reason = PV_REASON_NONE, i
        cdef int to
        cdef Port *receiver
        pv_dma_fetch(self.window.origin(), header, spans, 14)
        if memcmp(&header[6], port.mac, 6) != 0:
            reason = PV_REASON_FRAME_SOURCE
        elif header[0] & 1:
            for i in range(self.port_limit):
                receiver = &self.ports[i]
                if receiver.used and receiver != port:
                    if receiver.buffers.head == receiver.buffers.tail:
                        pv_count(&receiver.counters[<int>PV_NIC_RECEIVE_DROPPED + <int>PV_REASON_NO_BUFFER], 1)
                    else:
                        self.deliver(port, receiver, request, spans, header, start)
        else:
            to = self.find(address_of(header))
            receiver = &self.ports[to] if to >= 0 else NULL
            if receiver == NULL or receiver == port:
                reason = PV_REASON_NO_DESTINATION
            elif receiver.buffers.head == receiver.buffers.tail:
                if not late:
                    return False
                reason = PV_REASON_NO_BUFFER
                pv_count(&receiver.counters[<int>PV_NIC_RECEIVE_DROPPED + reason], 1)
            else:
                self.deliver(port, receiver, request, spans, header, start)
        if reason != PV_REASON_NONE:
            pv_count(&port.counters[<int>PV_NIC_TRANSMIT_DROPPED + reason], 1)
        else:
            pv_count(&port.counters[<int>PV_NIC_TRANSMIT_FRAMES], 1)
            pv_count(&port.counters[<int>PV_NIC_TRANSMIT_BYTES], request.length)
        # A dropped frame was sent as far as its sender is concerned; the reason says what became of it.
        self.finish(server, request, PV_STATUS_OK, reason, request.length, start, now)
        return True

    cdef void deliver(self, Port *sender, Port *receiver, const pv_dma_request *request, const pv_span *spans,
                      const uint8_t *header, uint64_t now) noexcept nogil:
        cdef Posted *buffer = &receiver.buffers.entries[receiver.buffers.head % BUFFERS]
        cdef pv_span one
        cdef const pv_span *to = spans_of(&receiver.buffers, receiver.buffers.head, &one)
        # The buffer after the next one: its memory is on its way while this frame is moved.
        prefetch_write(self.window.origin() + receiver.buffers.entries[(receiver.buffers.head + 2) % BUFFERS].request.hpa)
        if buffer.request.length < request.length:
            pv_count(&receiver.counters[<int>PV_NIC_RECEIVE_DROPPED + <int>PV_REASON_BUFFER_SMALL], 1)
            return
        receiver.buffers.head += 1
        pv_dma_move(self.window.origin(), to, spans, request.length, &receiver.counters[<int>PV_NIC_DMA_BYTES])
        # The header that was judged is the header that arrives, whatever the sender wrote meanwhile.
        pv_dma_store(self.window.origin(), to, header, 14)
        pv_count(&sender.counters[<int>PV_NIC_FORWARDED_FRAMES], 1)
        pv_count(&receiver.counters[<int>PV_NIC_RECEIVE_FRAMES], 1)
        pv_count(&receiver.counters[<int>PV_NIC_RECEIVE_BYTES], request.length)
        pv_count(&receiver.counters[<int>PV_NIC_BUFFERS_RETURNED], 1)
        self.finish(buffer.server, &buffer.request, PV_STATUS_OK, PV_REASON_NONE, request.length, now, now)

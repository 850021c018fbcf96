"""Ports of a device: the queues of their requests, their queue pairs, their shares, and giving back what is recalled.

A port is an endpoint at its device. Requests of the copy and the redirected path wait in its FIFOs until it has its
turn; those of the direct path wait in the queue pair itself, where the guest put them.
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from pyx.abi cimport (
    PV_CHANNEL_COMPLETIONS, PV_EVENTS_INTERRUPTS, PV_FLAG_PACK, PV_ID_SLOT, PV_IO_REFUSED, PV_IO_REQUESTS, PV_OP_COUNT, PV_PACK_ENTRIES,
    PV_PAGE, PV_PAIR_CHANNEL, PV_PAIR_SIZE, PV_PATH_DIRECT, PV_PORTS_MAX, PV_QUEUES_MAX, PV_REASON_DETACHED, PV_REASON_NONE, PV_REASON_PATH_CHANGED,
    PV_REASON_QUEUE_BROKEN, PV_STAGE_COUNT, PV_STATUS_CANCELLED, PV_STATUS_OK, PV_THREAD_BROKEN_QUEUES, PV_VECTOR, pv_doorbell,
    pv_interrupts, pv_request,
)
from pyx.completions cimport Completions
from pyx.dmac cimport pv_span
from pyx.pairc cimport pv_pair_count, pv_pair_unpack
from pyx.portc cimport Fifo, Pair, Port, Server, Waiting
from pyx.ringc cimport (
    pv_consumer_attach, pv_consumer_beyond, pv_consumer_fetch, pv_count, pv_now,
    pv_producer_attach, pv_producer_free, pv_ring_open, pv_row, pv_row_counters, pv_row_histogram,
)
from pyx.segment cimport Mapping
from pyx.sharec cimport pv_bucket, pv_bucket_clear, pv_bucket_set, pv_flow, pv_flow_weigh, pv_share_add, pv_share_remove
from pyx.vectorc cimport pv_vector_open

import os

from pyx import abi as names

cdef enum:
    FIFO_DEFAULT = 1024   # waiting requests of a port: at least what one queue can have in flight


cdef bint make_fifo(Fifo *fifo, uint32_t capacity, uint32_t spans_max) noexcept:
    fifo.head = fifo.tail = 0
    fifo.capacity = capacity
    fifo.spans_max = spans_max
    fifo.entries = <Waiting *>calloc(capacity, sizeof(Waiting))
    fifo.spans = <pv_span *>calloc(<size_t>capacity * spans_max, sizeof(pv_span))
    return fifo.entries != NULL and fifo.spans != NULL


cdef void free_fifo(Fifo *fifo) noexcept:
    free(fifo.entries)
    free(fifo.spans)
    fifo.entries = NULL
    fifo.spans = NULL


cdef void keep_entry(Fifo *fifo, uint32_t at, uint32_t to) noexcept nogil:
    """Moves a waiting request up, behind those that stay."""
    cdef uint32_t mask = fifo.capacity - 1
    if at != to:
        fifo.entries[to & mask] = fifo.entries[at & mask]
        memcpy(&fifo.spans[(to & mask) * fifo.spans_max], &fifo.spans[(at & mask) * fifo.spans_max],
               sizeof(pv_span) * fifo.spans_max)


cdef class Ports(Completions):
    """The table of ports. Control thread: `open_port`, then `install_port` and `close_port` inside `quiet`."""

    def __cinit__(self, *args, **kwargs):
        self.ports = <Port *>calloc(PV_PORTS_MAX, sizeof(Port))
        self.flows = <pv_flow *>calloc(PV_PORTS_MAX, sizeof(pv_flow))
        if self.ports == NULL or self.flows == NULL:
            raise MemoryError()

    def __dealloc__(self):
        cdef uint32_t i
        if self.ports != NULL:
            for i in range(PV_PORTS_MAX):
                free_fifo(&self.ports[i].queue)
                free_fifo(&self.ports[i].buffers)
                free(self.ports[i].pair.again)
                free(self.ports[i].ram)
        free(self.ports)
        free(self.flows)

    cdef Port *attached(self, uint32_t port) except NULL:
        if port >= PV_PORTS_MAX or not self.ports[port].used:
            raise KeyError(f"port {port} is not attached")
        return &self.ports[port]

    cdef Port *open_port(self, uint32_t number, uint64_t generation, uint64_t partition, uint16_t endpoint, pair,
                         tuple operations, uint32_t spans_max) except NULL:
        """Prepares port `number` outside of the data thread's sight; `install_port` shows it. `pair`: (events
        descriptor, pair descriptor, capacity) or None; `operations`: names per queue. ValueError where the port is
        taken or out of range."""
        cdef Port *p
        cdef Mapping events, rings
        cdef uint32_t i, capacity = FIFO_DEFAULT
        if number >= PV_PORTS_MAX or self.ports[number].used:
            raise ValueError(f"port {number} is out of range or taken")
        p = &self.ports[number]
        memset(p, 0, sizeof(Port))
        p.number = number
        p.client = PV_ID_SLOT(partition)
        p.generation = <uint32_t>generation
        p.held_for = p.peer = p.fd = p.plain_fd = -1
        if pair is not None:
            events_fd, pair_fd, pair_capacity = pair
            capacity = max(capacity, <uint32_t>pair_capacity)
            p.pair.queues = len(operations)
            events = Mapping(events_fd, PV_PAGE, offset=PV_EVENTS_INTERRUPTS)
            rings = Mapping(pair_fd, PV_PAIR_SIZE(p.pair.queues, pair_capacity))
            for i in range(p.pair.queues):
                base = rings.base + PV_PAIR_CHANNEL(i, pair_capacity)
                if not pv_ring_open(base, pair_capacity) or not pv_ring_open(base + PV_CHANNEL_COMPLETIONS(pair_capacity), pair_capacity):
                    raise ValueError(f"port {number}: the queue pair holds no rings of {pair_capacity} slots and this version")
                pv_consumer_attach(&p.pair.requests[i], base, pair_capacity)
                pv_producer_attach(&p.pair.completions[i], base + PV_CHANNEL_COMPLETIONS(pair_capacity), pair_capacity,
                                   NULL, self.symmetric)
                p.pair.operations[i] = names.operations_mask(*operations[i])
            p.pair.interrupts = <pv_interrupts *>events.base
            p.pair.vector = <uint64_t>1 << PV_VECTOR(endpoint, 0)
            p.pair.entry = &self.translations[number]
            p.pair.vectors = &self.vectors[number * PV_QUEUES_MAX]
            for i in range(p.pair.queues):
                pv_vector_open(&p.pair.vectors[i], partition, endpoint, i)
            self.resume_pair(p, generation, os.fstat(pair_fd).st_ino)
            p.pair.used = True
            self.kept["pair", number] = (events, rings)
        made = make_fifo(&p.queue, capacity, spans_max)
        if not make_fifo(&p.buffers, capacity, spans_max) or not made:
            free_fifo(&p.queue)
            free_fifo(&p.buffers)
            raise MemoryError()
        row = pv_row(self.statistics, self.open_row(partition, endpoint))
        p.counters = pv_row_counters(row)
        for i in range(PV_STAGE_COUNT):
            p.histograms[i] = pv_row_histogram(row, self.statistics.counters, i)
        return p

    cdef int install_port(self, Port *port) except -1:
        """Inside `quiet`: the data thread serves the port from now on."""
        if port.pair.used:
            self.add_bell(<pv_doorbell *>(<Mapping>self.kept["pair", port.number][1]).base)
        pv_share_add(&self.share, &self.flows[port.number], 100)
        port.used = True
        self.active[self.active_count] = port.number
        self.active_count += 1
        return 0

    cdef int close_port(self, Port *port) except -1:
        """Inside `quiet`: cancels what waits at the port and forgets it; later requests are refused as stale."""
        cdef uint32_t i
        pv_share_remove(&self.share, &self.flows[port.number])
        self.return_fifo(&port.queue, 0, PV_REASON_DETACHED)
        self.return_fifo(&port.buffers, 0, PV_REASON_DETACHED)
        self.publish()
        free_fifo(&port.queue)
        free_fifo(&port.buffers)
        self.close_ledger(port)
        for i in range(self.active_count):
            if self.active[i] == port.number:
                self.active_count -= 1
                self.active[i] = self.active[self.active_count]
                break
        for i in range(self.active_count):
            # Who waits for a buffer of this port looks again, and finds no destination.
            if self.ports[self.active[i]].held_for == port.number:
                self.ports[self.active[i]].held_for = -1
            self.ports[self.active[i]].peer = -1
        if port.pair.used:
            self.remove_bell(<pv_doorbell *>(<Mapping>self.kept["pair", port.number][1]).base)
            for mapping in self.kept.pop(("pair", port.number)):
                mapping.detach()
        memset(port, 0, sizeof(Port))
        return 0

    def set_share(self, uint32_t port, uint32_t weight, dict limits):
        """Weight of a port against the others (100: usual) and its own limits, each a dict of `rate` per second,
        `period` in seconds and `burst` for "bytes" and "operations"; absent: unlimited, rate 0: blocked."""
        self.attached(port)
        with self.quiet():
            pv_flow_weigh(&self.flows[port], weight)
            set_bucket(&self.flows[port].bytes, limits.get("bytes"))
            set_bucket(&self.flows[port].operations, limits.get("operations"))

    def set_limits(self, dict limits):
        """Limits of the whole device, as those of a port."""
        with self.quiet():
            set_bucket(&self.share.bytes, limits.get("bytes"))
            set_bucket(&self.share.operations, limits.get("operations"))

    def recall(self, uint32_t port, str path):
        """Requests of that path which are not executed yet go back to the guest, now and as they come, until `settle`;
        frames for the port wait for its new buffers meanwhile, without a time limit."""
        cdef Port *p = self.attached(port)
        with self.quiet():
            p.away = names.PATHS[path]
            self.give_back(p)
            self.publish()

    def settle(self, uint32_t port):
        """Ends `recall`."""
        cdef Port *p = self.attached(port)
        with self.quiet():
            p.away = 0

    # ---- data thread ----

    cdef uint32_t pair_available(self, Port *port, uint32_t queue) noexcept nogil:
        """Requests of a queue of the pair that are not taken yet; none where the guest broke it, whichever ring."""
        cdef Pair *pair = &port.pair
        cdef uint32_t available
        if not pair.completions[queue].broken:
            available = <uint32_t>(pair.requests[queue].tail - pair.requests[queue].head)
            if available > pair.taken[queue]:
                return available - pair.taken[queue]
            # They are given back with their completions: until then they stand there for the next process.
            available = pv_consumer_beyond(&pair.requests[queue], pair.taken[queue])
            if not pair.requests[queue].broken:
                return available
        if not port.broken_counted:
            port.broken_counted = True
            pv_count(&self.counters[<int>PV_THREAD_BROKEN_QUEUES], 1)
            pv_count(&port.counters[<int>PV_IO_REFUSED + <int>PV_REASON_QUEUE_BROKEN], 1)
        return 0

    cdef uint32_t return_fifo(self, Fifo *fifo, uint32_t path, uint32_t reason) noexcept nogil:
        """Gives back the waiting requests of `path` (0: all), in order."""
        cdef uint32_t at = fifo.head, kept = fifo.head, returned = 0, mask = fifo.capacity - 1
        cdef Waiting *entry
        while at != fifo.tail:
            entry = &fifo.entries[at & mask]
            if path and entry.request.path != path:
                keep_entry(fifo, at, kept)
                kept += 1
            # No room means a server that does not take completions: its ledger still holds the request.
            elif pv_producer_free(&entry.server.completions, 1 + entry.server.flying) > entry.server.flying:
                self.finish(entry.server, &entry.request, PV_STATUS_CANCELLED, reason, 0, 0, 0)
                returned += 1
            at += 1
        fifo.tail = kept
        return returned

    cdef uint32_t drop_stale(self, Port *port, Fifo *fifo, const Server *server, uint64_t epoch) noexcept nogil:
        """Forgets the waiting requests of a server that another one follows: that one finds them in the ledger. A frame of
        which some pieces have arrived already is done: sent again, they would come twice. Returns how many."""
        cdef uint32_t at = fifo.head, kept = fifo.head, dropped = 0, mask = fifo.capacity - 1
        cdef Waiting *entry
        while at != fifo.tail:
            entry = &fifo.entries[at & mask]
            if entry.server != server or entry.request.epoch == epoch:
                keep_entry(fifo, at, kept)
                kept += 1
            elif at == fifo.head and fifo == &port.queue and port.progress:
                self.finish(entry.server, &entry.request, PV_STATUS_OK, PV_REASON_NONE, entry.request.length, 0, 0)
            else:
                dropped += 1
            at += 1
        if kept != fifo.tail:
            port.progress = 0
            port.held_for = -1
            port.parked = False
        fifo.tail = kept
        return dropped

    cdef uint32_t return_pair(self, Port *port) noexcept nogil:
        """Gives back what stands in the queue pair, in order."""
        cdef uint32_t queue, available, i, room, returned = 0
        cdef pv_request slot
        cdef Pair *pair = &port.pair
        while pair.again_head != pair.again_count and pv_producer_free(&pair.completions[0], 1 + port.flying) > port.flying:
            self.end_again(port, PV_STATUS_CANCELLED, PV_REASON_PATH_CHANGED, 0)
            returned += 1
        for queue in range(pair.queues):
            available = self.pair_available(port, queue)
            if available:
                for i in range(available):
                    # A completion each would need room for a whole pack of them.
                    room = PV_PACK_ENTRIES + port.flying
                    if pv_producer_free(&pair.completions[queue], room) < room:
                        break
                    self.fetch_pair(port, queue, 0, &slot)
                    returned += self.end_slot(port, queue, &slot, PV_STATUS_CANCELLED, PV_REASON_PATH_CHANGED)
        return returned

    cdef void fetch_pair(self, Port *port, uint32_t queue, uint32_t index, pv_request *slot) noexcept nogil:
        """The slot at `index` behind those that are used. One of which some requests are done was fetched before, and is
        not fetched again: its guest may have rewritten it meanwhile."""
        if index == 0 and port.pair.part[queue]:
            slot[0] = port.pair.head[queue]
        else:
            pv_consumer_fetch(&port.pair.requests[queue], port.pair.taken[queue] + index, slot)

    cdef uint32_t end_slot(self, Port *port, uint32_t queue, const pv_request *slot, uint32_t status, uint32_t reason) noexcept nogil:
        """Answers all requests of a slot alike, unexecuted; returns how many."""
        cdef pv_request request
        cdef uint32_t i, count = pv_pair_count(slot)
        if slot.flags & PV_FLAG_PACK == 0 or count == 0:
            self.answer(port, queue, slot.id, 0, status, reason, 0, self.begin, self.begin)
            count = 1
        else:
            for i in range(port.pair.part[queue], count):
                pv_pair_unpack(&port.pair.translation, slot, i, 0, &request)
                self.answer(port, queue, request.id, 0, status, reason, 0, self.begin, self.begin)
            count -= port.pair.part[queue]
        pv_count(&port.counters[<int>PV_IO_REQUESTS], count)
        port.pair.part[queue] = 0
        port.pair.taken[queue] += 1
        return count

    cdef void end_again(self, Port *port, uint32_t status, uint32_t reason, uint32_t bytes) noexcept nogil:
        """Answers the next request that was to be done again: there is room."""
        cdef uint32_t number = port.pair.again[port.pair.again_head]
        cdef const pv_request *said = &self.ledger.entries[number].request
        port.pair.again_head += 1
        self.answer(port, 0, said.id, said.operation if said.operation < PV_OP_COUNT else 0, status, reason, bytes, self.begin,
                    pv_now())
        self.end_run(port, 0, self.begin)
        self.entry_done(port, number + 1)

    cdef uint32_t give_back(self, Port *port) noexcept nogil:
        port.held_for = -1
        port.parked = False
        if port.away == PV_PATH_DIRECT:
            return self.return_pair(port) if port.pair.used else 0
        return (self.return_fifo(&port.queue, port.away, PV_REASON_PATH_CHANGED)
                + self.return_fifo(&port.buffers, port.away, PV_REASON_PATH_CHANGED))


cdef object set_bucket(pv_bucket *bucket, limit):
    """`limit`: None (unlimited) or {"rate": per second, "period": seconds, "burst": amount}."""
    if limit is None:
        pv_bucket_clear(bucket)
    else:
        pv_bucket_set(bucket, <uint64_t>limit["rate"], <uint64_t>(limit.get("period", 0.1) * 1e9),
                      <uint64_t>limit.get("burst", 0), pv_now())

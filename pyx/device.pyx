"""What all device processes share: hardware rings and queue pairs, ports, fair service, epochs, the window on machine
memory (U7, U10, U11; rules.md 12, 19).

A device obeys translated requests and nothing else. Those of a hardware ring carry host addresses of the monitor, and
are executed only while the epoch that they carry is in office. Those of a queue pair carry partition addresses and
the pair's key, and are checked against the translation entries that only the monitor writes.

    hardware rings --intake--> queue of each port --+
    queue pair of each port ------------------------+--> share (whose turn?) --> execute --> completions

All paths meet at the port: fair service and rate limits are in one place.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from pyx.abi cimport (
    PV_CHANNEL_COMPLETIONS, PV_EVENTS_INTERRUPTS, PV_EXTENTS_MAX, PV_EXTENTS_PER_SLOT, PV_ID_SLOT, PV_IO_BYTES, PV_IO_CANCELLED,
    PV_IO_COMPLETIONS, PV_IO_FAILED, PV_IO_INTERRUPTS, PV_IO_OPERATIONS, PV_IO_RECALLED, PV_IO_REFUSED, PV_IO_REQUESTS, PV_FLAG_PACK, PV_PACK_ENTRIES,
    PV_KERNEL_MAGIC, PV_OP_COUNT, PV_OP_RECEIVE, PV_PAGE, PV_PAIR_CHANNEL, PV_PAIR_SIZE, PV_PATH_DIRECT, PV_PORTS_MAX,
    PV_REASON_DETACHED, PV_REASON_EPOCH_STALE, PV_REASON_GENERATION_STALE, PV_REASON_NONE, PV_REASON_OPERATION_UNKNOWN,
    PV_REASON_PATH_CHANGED, PV_REASON_PATH_CLOSED, PV_REASON_QUEUE_BROKEN, PV_STAGE_COMPLETION, PV_STAGE_COUNT, PV_STAGE_DEVICE,
    PV_STAGE_INTERRUPT, PV_STAGE_POST, PV_STAGE_QUEUE, PV_STAGE_TIMES, PV_STAGE_TOTAL, PV_STAGE_VALIDATION,
    PV_STATUS_CANCELLED, PV_STATUS_FAILED, PV_STATUS_OK, PV_STATUS_REFUSED, PV_THREAD_BROKEN_QUEUES, PV_THREAD_WAKES_SENT,
    PV_TRANSLATIONS_SIZE, PV_VECTOR, pv_completion, pv_dma_extents, pv_dma_request, pv_doorbell, pv_interrupts,
    pv_kernel, pv_request, pv_translation,
)
from pyx.loop cimport Loop
from pyx.pairc cimport pv_pair_count, pv_pair_unpack, pv_pair_validate, pv_translation_current, pv_translation_generation
from pyx.ringc cimport (
    pv_consumer_attach, pv_consumer_available, pv_consumer_fetch, pv_consumer_pending, pv_consumer_prefetch,
    pv_consumer_release, pv_count, pv_interrupt_post, pv_now, pv_observe, pv_producer_attach, pv_producer_free,
    pv_producer_publish, pv_push_completion, pv_ring_open, pv_row, pv_run, pv_run_end,
    pv_run_extend, pv_row_counters, pv_row_histogram, pv_saturate,
)
from pyx.segment cimport Mapping, Window, map_ring
from pyx.sharec cimport (
    PV_NEVER, pv_bucket, pv_bucket_clear, pv_bucket_set, pv_budget, pv_flow_weigh, pv_share_add, pv_share_backlogged,
    pv_share_budget, pv_share_charge, pv_share_emptied, pv_share_pick, pv_share_remove,
)

from pyx import abi as names

cdef extern from *:
    """
    #include "ring.h"
    static inline uint64_t pv_epoch(const struct pv_kernel *kernel, uint32_t slot)
    { return atomic_load_explicit(&((struct pv_kernel *)kernel)->epochs[slot], memory_order_acquire); }
    static inline void prefetch(const void *p) { __builtin_prefetch(p, 0); }
    """
    uint64_t pv_epoch(const pv_kernel *kernel, uint32_t slot) nogil
    void prefetch(const void *p) nogil

cdef enum:
    ROUNDS = 8            # turns that are given out in one poll
    FIFO_DEFAULT = 1024   # waiting requests of a port: at least what one queue can have in flight

cdef uint64_t STALLED_NS = 200_000  # between two looks at a server that takes no completions
cdef uint64_t FOREVER = <uint64_t>-1


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


cdef class Device(Loop):
    """`window_first`, `window_size`: machine memory in bytes. `kernel_fd`: the kernel region, `translations_fd`: the
    queue translation entries of this device, both read-only here."""

    def __cinit__(self, *args, **kwargs):
        self.ports = <Port *>calloc(PV_PORTS_MAX, sizeof(Port))
        self.flows = <pv_flow *>calloc(PV_PORTS_MAX, sizeof(pv_flow))
        self.scratch = <pv_span *>calloc(BATCH * PV_EXTENTS_MAX, sizeof(pv_span))
        if self.ports == NULL or self.flows == NULL or self.scratch == NULL:
            raise MemoryError()

    def __dealloc__(self):
        cdef uint32_t i
        if self.ports != NULL:
            for i in range(PV_PORTS_MAX):
                free_fifo(&self.ports[i].queue)
                free_fifo(&self.ports[i].buffers)
                free(self.ports[i].ram)
        free(self.ports)
        free(self.flows)
        free(self.scratch)

    def __init__(self, int bell_fd, int statistics_fd, uint64_t statistics_size, bint symmetric=False, *,
                 int kernel_fd, int translations_fd, uint64_t window_first, uint64_t window_size):
        self.kernel_mapping = Mapping(kernel_fd, sizeof(pv_kernel), writable=False)
        self.kernel = <pv_kernel *>self.kernel_mapping.base
        if self.kernel.magic != PV_KERNEL_MAGIC:
            raise ValueError("no kernel region: the monitor has to run first")
        self.translations_mapping = Mapping(translations_fd, PV_TRANSLATIONS_SIZE, writable=False)
        self.translations = <const pv_translation *>self.translations_mapping.base
        self.window = Window(window_first, window_size)
        self.kept = {}

    # ---- control thread ----

    def connect(self, uint64_t server, int ring_fd, int completion_fd, uint32_t capacity, int server_bell_fd):
        """Connects both hardware rings of (I/O partition `server`, this device)."""
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
            s.used = True
            self.server_count += 1
            self.kept["server", server] = (ring, completions, bell)

    def attach_memory(self, int fd, uint64_t hpa, uint64_t size):
        """Maps an extent of an attached partition. Needs no pause: nobody uses the range yet (W8)."""
        self.window.attach(fd, hpa, size)

    def detach_memory(self, uint64_t hpa):
        """Unmaps an extent; all ports that could use it must be detached before."""
        with self.quiet():
            self.window.detach(hpa)

    def memory(self) -> dict:
        """Extents mapped now: {hpa: bytes}."""
        return self.window.attached()

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
        p.generation = <uint32_t>generation
        p.partition = partition
        p.held_for = p.peer = p.fd = -1
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

    cdef Port *attached(self, uint32_t port) except NULL:
        if port >= PV_PORTS_MAX or not self.ports[port].used:
            raise KeyError(f"port {port} is not attached")
        return &self.ports[port]

    def set_share(self, uint32_t port, uint32_t weight, dict limits, uint64_t budget=0):
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

    cdef bint pending(self) noexcept nogil:
        cdef uint32_t i
        cdef Port *p
        if self.stalled:
            return False
        for i in range(self.server_count):
            if pv_consumer_pending(&self.servers[i].requests):
                return True
        for i in range(self.active_count):
            p = &self.ports[self.active[i]]
            if p.parked:
                if self.ready(p):
                    return True
                continue
            if p.queue.head != p.queue.tail:
                return True
            if p.pair.used and not p.pair.completions[0].broken:
                if pv_consumer_pending(&p.pair.requests[0]):
                    return True
                if p.away == PV_PATH_DIRECT and p.pair.queues > 1 and pv_consumer_pending(&p.pair.requests[1]):
                    return True
        return False

    cdef uint64_t sleep_limit(self) noexcept nogil:
        # A server that makes room again does not say so, nor does time that passes.
        cdef uint64_t limit = STALLED_NS if self.stalled else Loop.sleep_limit(self), now = self.idle.now
        if self.wait_until != FOREVER:
            if self.wait_until <= now:
                return 1
            if self.wait_until - now < limit:
                limit = self.wait_until - now
        return limit

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

    cdef void count_fenced(self, Port *port) noexcept nogil:
        pass

    cdef uint32_t intake(self, Server *server) noexcept nogil:
        """Takes requests off a hardware ring into the queues of their ports."""
        cdef uint32_t available = pv_consumer_available(&server.requests), at = 0, done = 0, used, reason
        cdef pv_dma_request request
        cdef pv_span spans[260]
        cdef Port *port
        cdef Fifo *fifo
        cdef Waiting *entry
        cdef uint64_t now
        if available == 0:
            return 0
        now = pv_now()
        while at < available and done < 2 * BATCH:
            if pv_producer_free(&server.completions, 1) == 0:
                self.stalled = True
                break
            used = self.fetch(server, at, &request, spans)
            port = &self.ports[request.port] if request.port < PV_PORTS_MAX else NULL
            reason = PV_REASON_NONE
            if not self.in_office(&request, server.slot):
                reason = PV_REASON_EPOCH_STALE
                if port != NULL and port.used:
                    self.count_fenced(port)
            elif port == NULL or not port.used or port.generation != request.port_generation:
                reason = PV_REASON_GENERATION_STALE
                if port != NULL and port.used:
                    self.count_fenced(port)
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
        pv_consumer_release(&server.requests, at)
        return done

    cdef uint32_t return_fifo(self, Fifo *fifo, uint32_t path, uint32_t reason) noexcept nogil:
        """Gives back the waiting requests of `path` (0: all), in order."""
        cdef uint32_t at = fifo.head, kept = fifo.head, returned = 0, mask = fifo.capacity - 1
        cdef Waiting *entry
        while at != fifo.tail:
            entry = &fifo.entries[at & mask]
            if path and entry.request.path != path:
                if kept != at:
                    fifo.entries[kept & mask] = entry[0]
                    memcpy(&fifo.spans[(kept & mask) * fifo.spans_max], &fifo.spans[(at & mask) * fifo.spans_max],
                           sizeof(pv_span) * fifo.spans_max)
                kept += 1
            # No room means a server that does not take completions: its ledger still holds the request.
            elif pv_producer_free(&entry.server.completions, 1):
                self.finish(entry.server, &entry.request, PV_STATUS_CANCELLED, reason, 0, 0, 0)
                returned += 1
            at += 1
        fifo.tail = kept
        return returned

    cdef uint32_t pair_available(self, Port *port, uint32_t queue) noexcept nogil:
        """Requests of a queue of the pair that are not taken yet."""
        cdef Pair *pair = &port.pair
        cdef uint32_t available = <uint32_t>(pair.requests[queue].tail - pair.requests[queue].head)
        if available > pair.taken[queue]:
            return available - pair.taken[queue]
        if pair.taken[queue]:
            pv_consumer_release(&pair.requests[queue], pair.taken[queue])
            pair.taken[queue] = 0
        available = pv_consumer_available(&pair.requests[queue])
        if (pair.requests[queue].broken or pair.completions[queue].broken) and not port.broken_counted:
            port.broken_counted = True
            pv_count(&self.counters[<int>PV_THREAD_BROKEN_QUEUES], 1)
            pv_count(&port.counters[<int>PV_IO_REFUSED + <int>PV_REASON_QUEUE_BROKEN], 1)
        return available

    cdef uint32_t return_pair(self, Port *port) noexcept nogil:
        """Gives back what stands in the queue pair, in order."""
        cdef uint32_t queue, available, i, returned = 0
        cdef pv_request request
        cdef Pair *pair = &port.pair
        for queue in range(pair.queues):
            available = self.pair_available(port, queue)
            if available:
                for i in range(available):
                    # A completion each would need room for a whole pack of them.
                    if pv_producer_free(&pair.completions[queue], PV_PACK_ENTRIES) < PV_PACK_ENTRIES:
                        break
                    pv_consumer_fetch(&pair.requests[queue], pair.taken[queue], &request)
                    returned += self.end_slot(port, queue, &request, PV_STATUS_CANCELLED, PV_REASON_PATH_CHANGED)
        return returned

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

    cdef uint32_t give_back(self, Port *port) noexcept nogil:
        port.held_for = -1
        port.parked = False
        if port.away == PV_PATH_DIRECT:
            return self.return_pair(port) if port.pair.used else 0
        return (self.return_fifo(&port.queue, port.away, PV_REASON_PATH_CHANGED)
                + self.return_fifo(&port.buffers, port.away, PV_REASON_PATH_CHANGED))

    cdef bint backlog(self, Port *port) noexcept nogil:
        """Does the port want to be served?"""
        if port.queue.head != port.queue.tail:
            return True
        return port.pair.used and self.pair_available(port, 0) > 0

    cdef bint ready(self, Port *port) noexcept nogil:
        """May a port that waits for a peer be tried again?"""
        return False

    cdef uint64_t ready_at(self, Port *port) noexcept nogil:
        """ns at which a port that waits for a peer must be tried again at the latest."""
        return FOREVER

    cdef void prepare(self, Port *port, uint32_t count) noexcept nogil:
        """`count` requests of this port are about to be executed."""
        pass

    cdef bint execute(self, Port *port, Job *job, uint64_t *clock) noexcept nogil:
        """Executes and completes one request. `clock`: ns, begin of this one, moved on to its end by devices that
        stamp each request. False: it has to wait; nothing happened."""
        return True

    cdef uint32_t poll(self) noexcept nogil:
        cdef uint32_t i, count = 0, work = 0, round, chosen, done
        cdef uint16_t candidates[256]
        cdef uint64_t served, now, wait
        cdef pv_budget budget
        cdef bint more
        cdef Port *port
        self.stalled = False
        self.wait_until = FOREVER
        for i in range(self.server_count):
            work += self.intake(&self.servers[i])
        for i in range(self.active_count):
            port = &self.ports[self.active[i]]
            if port.away == PV_PATH_DIRECT and port.pair.used:
                work += self.return_pair(port)
            if not self.backlog(port):
                port.parked = port.backlogged = False
                continue
            if not port.backlogged:
                port.backlogged = True
                pv_share_backlogged(&self.share, &self.flows[port.number])
            if port.held_for >= 0 and not self.ready(port):
                port.parked = True
                wait = self.ready_at(port)
                if wait < self.wait_until:
                    self.wait_until = wait
                continue
            port.held_for = -1
            candidates[count] = port.number
            count += 1
        if count:
            if self.delays[<int>PV_STAGE_QUEUE]:
                self.delay(PV_STAGE_QUEUE)
            now = pv_now()
            for round in range(ROUNDS):
                if count == 0:
                    break
                wait = 0
                chosen = pv_share_pick(&self.share, self.flows, candidates, count, now, &wait)
                if chosen >= count:
                    if wait != PV_NEVER and now + wait < self.wait_until:
                        self.wait_until = now + wait
                    for i in range(count):
                        self.ports[candidates[i]].parked = True
                    break
                port = &self.ports[candidates[chosen]]
                port.parked = False
                self.begin = now
                served = 0
                budget = pv_share_budget(&self.share, &self.flows[port.number], count)
                done = self.serve(port, budget.bytes, budget.operations, &served)
                if done:
                    pv_share_charge(&self.share, &self.flows[port.number], served, done)
                    work += done
                if port.held_for >= 0:
                    port.parked = True
                    wait = self.ready_at(port)
                    if wait < self.wait_until:
                        self.wait_until = wait
                self.publish()
                now = pv_now()
                more = self.backlog(port)
                if not more:
                    port.backlogged = False
                    pv_share_emptied(&self.share, &self.flows[port.number], now)
                if not more or done == 0 or port.held_for >= 0:
                    count -= 1
                    candidates[chosen] = candidates[count]
        if work:
            self.publish()
        return work

    cdef uint32_t serve(self, Port *port, uint64_t budget, uint64_t most, uint64_t *served) noexcept nogil:
        """One turn of a port: looks at up to `most` requests worth `budget` bytes (at least one), then executes them in
        order. Returns how many were done, and in `served` their bytes."""
        cdef Job jobs[64]
        cdef pv_request slot, request
        cdef bint ends[64]              # the request is the last one of its slot
        cdef Job *job
        cdef Waiting *entry
        cdef uint32_t count = 0, i, k, available, room, entries, first, mask = port.queue.capacity - 1
        cdef uint64_t bytes = 0, clock
        if most > BATCH:
            most = BATCH
        cdef bint packed, paired = port.queue.head == port.queue.tail
        if not paired:
            while count < most and port.queue.head + count != port.queue.tail and bytes < budget:
                entry = &port.queue.entries[(port.queue.head + count) & mask]
                # Half of the room is for receivers of these frames. A server that takes no completions stops its own
                # requests alone.
                if pv_producer_free(&entry.server.completions, 2 * BATCH) < 2 * BATCH:
                    self.stalled = True
                    break
                job = &jobs[count]
                job.request = &entry.request
                job.server = entry.server
                job.operation = entry.request.operation
                job.reason = PV_REASON_NONE
                job.length = entry.request.length
                job.device_offset = entry.request.device_offset
                job.span_count = entry.request.extent_count
                if entry.request.extent_count > 1:
                    job.spans = &port.queue.spans[((port.queue.head + count) & mask) * port.queue.spans_max]
                else:
                    job.one.hpa = entry.request.hpa
                    job.one.length = entry.request.length
                    job.spans = &job.one
                prefetch(self.window.origin() + job.spans.hpa)
                bytes += job.length
                count += 1
        else:
            available = self.pair_available(port, 0)
            room = pv_producer_free(&port.pair.completions[0], BATCH)
            if room < PV_PACK_ENTRIES:
                return 0
            if not pv_translation_current(port.pair.entry, &port.pair.translation):
                for i in range(available):
                    if i == BATCH or pv_producer_free(&port.pair.completions[0], PV_PACK_ENTRIES) < PV_PACK_ENTRIES:
                        break
                    pv_consumer_fetch(&port.pair.requests[0], port.pair.taken[0], &slot)
                    count += self.end_slot(port, 0, &slot, PV_STATUS_REFUSED, PV_REASON_PATH_CLOSED)
                return count
            if most > room:
                most = room
            first = port.pair.part[0]
            for i in range(available):
                if bytes >= budget or count == most:
                    break
                if i + 4 < available:  # what is not published yet must stay with the guest
                    pv_consumer_prefetch(&port.pair.requests[0], port.pair.taken[0] + i + 4)
                pv_consumer_fetch(&port.pair.requests[0], port.pair.taken[0] + i, &slot)
                entries = pv_pair_count(&slot)
                packed = slot.flags & PV_FLAG_PACK and entries
                if not packed:
                    entries = 1
                    request = slot  # a pack of no valid number fails by its flags
                for k in range(first, entries):
                    if count == most:
                        break
                    if packed:
                        pv_pair_unpack(&port.pair.translation, &slot, k, self.begin, &request)
                    job = &jobs[count]
                    job.request = NULL
                    job.server = NULL
                    job.id = request.id
                    job.enqueued = request.enqueue_time
                    job.operation = request.operation
                    job.length = request.length
                    job.device_offset = request.device_offset + port.pair.translation.endpoint.offset
                    job.spans = &self.scratch[count * PV_EXTENTS_MAX]
                    job.reason = pv_pair_validate(&port.pair.translation, &request, port.pair.operations[0],
                                                  &self.scratch[count * PV_EXTENTS_MAX], &job.span_count)
                    if job.reason == PV_REASON_NONE:
                        prefetch(self.window.origin() + job.spans.hpa)
                    if request.taken:
                        port.tally.taken = request.taken
                    bytes += request.length
                    ends[count] = k + 1 == entries
                    count += 1
                first = 0
        if count == 0:
            return 0
        if self.delays[<int>PV_STAGE_VALIDATION] and paired:
            self.delay(PV_STAGE_VALIDATION)
        self.prepare(port, count)
        self.validated = clock = self.stamp()
        if self.delays[<int>PV_STAGE_POST] and not paired:
            self.delay(PV_STAGE_POST)
            clock = self.stamp()
        if self.delays[<int>PV_STAGE_DEVICE]:
            self.delay(PV_STAGE_DEVICE)
        for i in range(count):
            job = &jobs[i]
            if paired:
                if job.reason != PV_REASON_NONE:
                    self.complete(port, job, PV_STATUS_REFUSED, job.reason, 0, clock, clock)
                    continue
            if not self.execute(port, job, &clock):
                count = i
                break
            served[0] += job.length
        if paired:
            for i in range(count):
                port.pair.part[0] += 1
                if ends[i]:
                    port.pair.taken[0] += 1
                    port.pair.part[0] = 0
            pv_count(&port.counters[<int>PV_IO_REQUESTS], count)
            self.mark(port)
        else:
            port.queue.head += count
        return count

    cdef void complete(self, Port *port, const Job *job, uint32_t status, uint32_t reason, uint32_t bytes,
                       uint64_t start, uint64_t end) noexcept nogil:
        """Completes a request at whoever sent it; there is room."""
        if job.server != NULL:
            self.finish(job.server, job.request, status, reason, bytes, start, end)
        else:
            self.answer(port, 0, job.id, job.operation, status, reason, bytes, start, end)
            if status == PV_STATUS_OK:
                port.tally.enqueued = job.enqueued
                port.tally.sent += 1

    cdef void finish(self, Server *server, const pv_dma_request *request, uint32_t status, uint32_t reason,
                     uint32_t bytes, uint64_t start, uint64_t end) noexcept nogil:
        """Pushes a completion towards the server; the caller made sure of room and publishes."""
        cdef uint32_t times[6]
        cdef uint64_t validated = request.pickup_time + request.validated
        memset(times, 0, sizeof(times))
        times[<int>PV_STAGE_VALIDATION] = request.validated
        times[<int>PV_STAGE_POST] = pv_saturate(start - validated if start > validated else 0)
        times[<int>PV_STAGE_DEVICE] = pv_saturate(end - start if end > start else 0)
        pv_push_completion(&server.completions, request.id, request.epoch, status, reason, bytes,
                           request.pickup_time, times, request.queue)

    cdef void mark(self, Port *port) noexcept nogil:
        if not port.dirty:
            port.dirty = True
            self.dirty[self.dirty_count] = port.number
            self.dirty_count += 1

    cdef void answer(self, Port *port, uint32_t queue, uint64_t id, uint32_t operation, uint32_t status,
                     uint32_t reason, uint32_t bytes, uint64_t start, uint64_t end) noexcept nogil:
        """Pushes a completion on the queue pair; the caller made sure of room. `end` 0: one of a batch, whose time at
        the device is filled in at publication, and which may share a slot with others."""
        cdef uint32_t times[6]
        cdef pv_run *run = &port.pair.runs[queue]
        if end == 0 and id:
            if not pv_run_extend(run, id, status, reason, bytes):
                self.end_run(port, queue, self.validated)
                run.id = id
                run.before = 0
                run.bytes = bytes
                run.status = status
                run.reason = reason
        else:
            self.end_run(port, queue, self.validated)
            memset(times, 0, sizeof(times))
            times[<int>PV_STAGE_VALIDATION] = pv_saturate(self.validated - self.begin if self.validated > self.begin else 0)
            times[<int>PV_STAGE_POST] = pv_saturate(start - self.validated if end and start > self.validated else 0)
            times[<int>PV_STAGE_DEVICE] = pv_saturate(end - start if end > start else 0)
            pv_push_completion(&port.pair.completions[queue], id, 0, status, reason, bytes,
                               self.begin if self.attribution else 0, times, 0)
        port.tally.completions += 1
        if status == PV_STATUS_OK:
            port.tally.operations[operation] += 1
            port.tally.bytes[operation] += bytes
        elif status == PV_STATUS_REFUSED:
            pv_count(&port.counters[<int>PV_IO_REFUSED + reason], 1)
        elif status == PV_STATUS_FAILED:
            pv_count(&port.counters[<int>PV_IO_FAILED], 1)
        else:
            pv_count(&port.counters[<int>PV_IO_RECALLED if reason == PV_REASON_PATH_CHANGED else <int>PV_IO_CANCELLED], 1)
        self.mark(port)

    cdef void end_run(self, Port *port, uint32_t queue, uint64_t now) noexcept nogil:
        """Pushes the completions that share a slot. `now`: end of the work at the device, as far as it is known."""
        cdef uint32_t times[6]
        if port.pair.runs[queue].id:
            memset(times, 0, sizeof(times))
            times[<int>PV_STAGE_VALIDATION] = pv_saturate(self.validated - self.begin if self.validated > self.begin else 0)
            times[<int>PV_STAGE_DEVICE] = pv_saturate(now - self.validated if now > self.validated else 0)
            pv_run_end(&port.pair.completions[queue], &port.pair.runs[queue], self.begin if self.attribution else 0, times)

    cdef void publish(self) noexcept nogil:
        cdef uint32_t i
        cdef uint64_t now
        if self.dirty_count:
            now = self.stamp()
            if self.delays[<int>PV_STAGE_COMPLETION]:
                self.delay(PV_STAGE_COMPLETION)
            for i in range(self.dirty_count):
                self.publish_port(&self.ports[self.dirty[i]], now)
            self.dirty_count = 0
        for i in range(self.server_count):
            pv_producer_publish(&self.servers[i].completions)

    cdef void publish_port(self, Port *port, uint64_t now) noexcept nogil:
        """Gives request slots back, publishes completions, counts, and wakes the guest if it sleeps. `now`: end of the
        work at the device."""
        cdef Pair *pair = &port.pair
        cdef Tally *tally = &port.tally
        cdef uint32_t i
        cdef uint64_t vectors = 0, end
        port.dirty = False
        end = self.stamp()
        for i in range(pair.queues):
            if pair.taken[i]:
                pv_consumer_release(&pair.requests[i], pair.taken[i])
                pair.taken[i] = 0
            self.end_run(port, i, now)
            if pair.completions[i].tail != pair.completions[i].published:
                pv_producer_publish(&pair.completions[i])
                vectors |= pair.vector << i
        self.count(port)
        pv_count(&port.counters[<int>PV_IO_COMPLETIONS], tally.completions)
        for i in range(1, PV_OP_COUNT):
            if tally.operations[i]:
                pv_count(&port.counters[<int>PV_IO_OPERATIONS + i], tally.operations[i])
                pv_count(&port.counters[<int>PV_IO_BYTES + i], tally.bytes[i])
        if self.attribution:
            self.observe(port, now, end)
        memset(tally, 0, sizeof(Tally))
        if vectors and pv_interrupt_post(pair.interrupts, vectors, self.symmetric):
            pv_count(&port.counters[<int>PV_IO_INTERRUPTS], 1)
            pv_count(&self.counters[<int>PV_THREAD_WAKES_SENT], 1)

    cdef void count(self, Port *port) noexcept nogil:
        """Turns what a device tallied into its counters."""
        pass

    cdef void observe(self, Port *port, uint64_t now, uint64_t end) noexcept nogil:
        """Stages of the batch that was published: one observation for all of its requests."""
        cdef Tally *tally = &port.tally
        cdef uint64_t count = tally.sent + tally.operations[<int>PV_OP_RECEIVE]
        if count == 0:
            return
        if tally.sent:
            pv_observe(port.histograms[<int>PV_STAGE_QUEUE],
                       self.begin - tally.enqueued if tally.enqueued and self.begin > tally.enqueued else 0, tally.sent)
        pv_observe(port.histograms[<int>PV_STAGE_VALIDATION], self.validated - self.begin, count)
        pv_observe(port.histograms[<int>PV_STAGE_DEVICE], now - self.validated, count)
        pv_observe(port.histograms[<int>PV_STAGE_COMPLETION], end - now, count)
        pv_observe(port.histograms[<int>PV_STAGE_TOTAL], end - self.begin, count)
        if tally.taken:
            pv_observe(port.histograms[<int>PV_STAGE_INTERRUPT], tally.taken, 1)


cdef object set_bucket(pv_bucket *bucket, limit):
    """`limit`: None (unlimited) or {"rate": per second, "period": seconds, "burst": amount}."""
    if limit is None:
        pv_bucket_clear(bucket)
    else:
        pv_bucket_set(bucket, <uint64_t>limit["rate"], <uint64_t>(limit.get("period", 0.1) * 1e9),
                      <uint64_t>limit.get("burst", 0), pv_now())

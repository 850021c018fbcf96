"""Queues that a channel server serves: their rings, ledgers, generations, and their buffers in its own memory (W7, A6).

Who adds and removes queues is the control thread, while the data thread is parked.
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset

from pyx.abi cimport (
    PV_CHANNEL_COMPLETIONS, PV_EVENTS_INTERRUPTS, PV_EVENTS_MONITOR, PV_EVENTS_SERVER, PV_ID_SLOT, PV_LEDGER_MAGIC,
    PV_LEDGER_SIZE, PV_OP_DISCARD, PV_OP_EXTENTS, PV_OP_FLUSH, PV_OP_READ, PV_OP_RECEIVE, PV_OP_RECEIVE_HEADED, PV_OP_SEND,
    PV_OP_SEND_HEADED, PV_OP_TCP_END, PV_OP_TCP_OPEN, PV_OP_TCP_RECEIVE, PV_OP_TCP_SEND, PV_OP_WRITE, PV_OP_WRITE_ZEROES, PV_PAGE, PV_PATH_REDIRECT,
    PV_QUEUE_RECEIVE, PV_STAGE_COUNT, PV_STATUS_OK, PV_VECTOR, PV_VECTORS_SIZE, PV_VERSION, pv_doorbell, pv_interrupts, pv_ledger,
    pv_ledger_entry, pv_vector,
)
from pyx.loop cimport Loop
from pyx.officec cimport pv_ledger_arrived, pv_ledger_lend, pv_ledger_lent, pv_ledger_state
from pyx.ringc cimport pv_consumer_attach, pv_producer_attach, pv_producer_free, pv_row, pv_row_counters, pv_row_histogram
from pyx.segment cimport Mapping, map_ring
from pyx.vectorc cimport pv_vector_open

cdef extern from "pool.h" nogil:
    bint pv_pool_init(pv_pool *pool, uint32_t pages)
    void pv_pool_free(pv_pool *pool)
    bint pv_pool_claim(pv_pool *pool, uint64_t first, uint32_t count)
    bint pv_pool_take(pv_pool *pool, uint32_t count, uint32_t *first)
    void pv_pool_give(pv_pool *pool, uint32_t first, uint32_t count)

cdef enum:
    BUDGET_DEFAULT = 2097152


cdef class Queues(Loop):
    """`bell_fd`: page of this seat; `office_bell_fd`: the doorbell that devices ring, of whoever serves. `call_fd`: call ring into the monitor; `events_fd`: own events segment, whose page 2 holds the doorbell of the
    monitor's worker; `vectors_fd`: table of interrupt vectors, one for each queue; `memory_size`: bytes of own memory for
    buffers of the copy path."""

    def __init__(self, int bell_fd, int statistics_fd, uint64_t statistics_size, bint symmetric=False, *,
                 uint64_t partition, int office_bell_fd, int call_fd, uint32_t call_capacity, int events_fd,
                 int vectors_fd, uint64_t memory_size=0, **more):
        self.slot = PV_ID_SLOT(partition)
        self.vectors_mapping = Mapping(vectors_fd, PV_VECTORS_SIZE)
        self.call_mapping = map_ring(call_fd, call_capacity, 2)
        self.own_events = Mapping(events_fd, PV_PAGE, offset=PV_EVENTS_MONITOR)
        pv_producer_attach(&self.calls, self.call_mapping.base, call_capacity, <pv_doorbell *>self.own_events.base,
                           self.symmetric)
        pv_consumer_attach(&self.refusals, self.call_mapping.base + PV_CHANNEL_COMPLETIONS(call_capacity), call_capacity)
        # The monitor wakes its callers at the doorbell of their interrupt page.
        interrupts = Mapping(events_fd, PV_PAGE, offset=PV_EVENTS_INTERRUPTS)
        bell = Mapping(office_bell_fd, PV_PAGE)
        self.kept = {"interrupts": interrupts, "bell": bell}
        self.add_bell(<pv_doorbell *>(<Mapping>interrupts).base)
        self.add_bell(<pv_doorbell *>(<Mapping>bell).base)
        self.queues = <Queue *>calloc(QUEUES_MAX, sizeof(Queue))
        if self.queues == NULL or not pv_pool_init(&self.pool, <uint32_t>(memory_size // PV_PAGE)):
            raise MemoryError()
        self.bells_used = {}

    def __dealloc__(self):
        cdef uint32_t i
        if self.queues != NULL:
            for i in range(QUEUES_MAX):
                free(self.queues[i].free_slots)
                free(self.queues[i].copies)
                free(self.generations[i].values)
            free(self.queues)
        pv_pool_free(&self.pool)

    def connect_hardware(self, uint32_t device, int ring_fd, uint32_t capacity):
        """Connects the completion ring of a device: the device produces, this thread consumes."""
        cdef Mapping ring = map_ring(ring_fd, capacity, 1)
        if device >= DEVICES or self.connected[device]:
            raise ValueError(f"device slot {device} is out of range or connected already")
        with self.quiet():
            pv_consumer_attach(&self.hardware[device], ring.base, capacity)
            self.connected[device] = True
        self.kept["hardware", device] = ring

    def add_queue(self, uint32_t number, uint64_t partition, uint16_t endpoint, uint16_t queue, str kind, uint32_t capacity,
                  int channel_fd, int ledger_fd, int events_fd, uint64_t budget=BUDGET_DEFAULT):
        """Takes one queue of an endpoint into service under `number`, the same in both seats. `budget`: bytes of this
        partition's memory that it may hold on the copy path. Asked again it does nothing. ValueError where the number is
        another one's, or beyond the last one."""
        if number >= QUEUES_MAX:
            raise ValueError(f"queue {number}: at most {QUEUES_MAX}")
        if self.queues[number].used:
            if (self.queues[number].partition, self.queues[number].endpoint, self.queues[number].queue) == (partition, endpoint, queue):
                return
            raise ValueError(f"queue {number} is in service already")
        cdef Mapping channel = map_ring(channel_fd, capacity, 2)
        cdef Mapping ledger = Mapping(ledger_fd, PV_LEDGER_SIZE(capacity))
        cdef Queue fresh
        cdef uint32_t i
        memset(&fresh, 0, sizeof(fresh))
        fresh.partition = partition
        fresh.endpoint = endpoint
        fresh.queue = queue
        fresh.capacity = capacity
        if kind == "disk":
            fresh.operations = (1 << <int>PV_OP_READ | 1 << <int>PV_OP_WRITE | 1 << <int>PV_OP_FLUSH
                                | 1 << <int>PV_OP_DISCARD | 1 << <int>PV_OP_WRITE_ZEROES | 1 << <int>PV_OP_EXTENTS)
        else:
            fresh.receives = queue == PV_QUEUE_RECEIVE
            fresh.operations = (1 << <int>PV_OP_RECEIVE | 1 << <int>PV_OP_RECEIVE_HEADED if fresh.receives
                                else 1 << <int>PV_OP_SEND | 1 << <int>PV_OP_SEND_HEADED | 1 << <int>PV_OP_TCP_OPEN
                                | 1 << <int>PV_OP_TCP_SEND | 1 << <int>PV_OP_TCP_RECEIVE | 1 << <int>PV_OP_TCP_END)
        pv_consumer_attach(&fresh.requests, channel.base, capacity)
        pv_producer_attach(&fresh.completions, channel.base + PV_CHANNEL_COMPLETIONS(capacity), capacity, NULL, self.symmetric)
        cdef bint first = (<pv_ledger *>ledger.base).magic == 0  # of all servers
        fresh.header = <pv_ledger *>ledger.base
        fresh.ledger = <pv_ledger_entry *>(ledger.base + sizeof(pv_ledger))
        fresh.budget = budget
        fresh.free_slots = <uint16_t *>calloc(capacity, sizeof(uint16_t))
        fresh.copies = <Copy *>calloc(capacity, sizeof(Copy))
        if fresh.free_slots == NULL or fresh.copies == NULL:
            free(fresh.free_slots)
            free(fresh.copies)
            raise MemoryError()
        with self.quiet():
            fresh.generations = self.generations_of(number, capacity)
            if partition not in self.bells_used:
                interrupts = Mapping(events_fd, PV_PAGE, offset=PV_EVENTS_INTERRUPTS)
                bell = Mapping(events_fd, PV_PAGE, offset=PV_EVENTS_SERVER)
                self.add_bell(<pv_doorbell *>(<Mapping>bell).base)
                self.bells_used[partition] = [interrupts, bell, 0]
            record = self.bells_used[partition]
            record[2] += 1
            fresh.interrupts = <pv_interrupts *>(<Mapping>record[0]).base
            fresh.doorbell = <pv_doorbell *>(<Mapping>record[1]).base
            fresh.bit = <uint64_t>1 << PV_VECTOR(endpoint, queue)
            fresh.vector = &(<pv_vector *>self.vectors_mapping.base)[number]
            if first:
                pv_vector_open(fresh.vector, partition, endpoint, queue)
                fresh.header.path = PV_PATH_REDIRECT
                fresh.header.version = PV_VERSION
                fresh.header.capacity = capacity
                fresh.header.magic = PV_LEDGER_MAGIC
            fresh.row = self.open_row(partition, endpoint | queue << 8)
            row = pv_row(self.statistics, fresh.row)
            fresh.counters = pv_row_counters(row)
            for i in range(PV_STAGE_COUNT):
                fresh.histograms[i] = pv_row_histogram(row, self.statistics.counters, i)
            fresh.used = True
            self.queues[number] = fresh
            self.kept["queue", number] = (channel, ledger)
            if number >= self.queue_count:
                self.queue_count = number + 1
            self.queue_added(number)

    cdef uint64_t *generations_of(self, uint32_t number, uint32_t capacity) except NULL:
        """Generations of the ledger slots of a queue number: they go on where its last queue ended (rules.md 25), so
        that a late completion for that one matches nothing of the new one."""
        cdef Generations *g = &self.generations[number]
        cdef uint64_t *bigger
        cdef uint32_t i
        if g.capacity < capacity:
            bigger = <uint64_t *>realloc(g.values, capacity * sizeof(uint64_t))
            if bigger == NULL:
                raise MemoryError()
            for i in range(g.capacity, capacity):
                bigger[i] = 0
            g.values = bigger
            g.capacity = capacity
        for i in range(g.capacity):
            g.values[i] += 1
        return g.values

    def remove_queue(self, uint32_t number):
        """Ends service of a queue after the devices dropped its requests; late completions count as foreign."""
        cdef Queue *q
        cdef uint32_t i
        if number >= QUEUES_MAX or not self.queues[number].used:
            raise KeyError(f"queue {number} is not in service")
        q = &self.queues[number]
        with self.quiet():
            self.queue_gone(number)
            record = self.bells_used[q.partition]
            record[2] -= 1
            if record[2] == 0:
                self.remove_bell(q.doorbell)
                del self.bells_used[q.partition]
                record[0].detach()
                record[1].detach()
            for i in range(q.capacity):
                self.release_buffer(q, i)
            free(q.free_slots)
            free(q.copies)
            memset(q, 0, sizeof(Queue))
            for mapping in self.kept.pop(("queue", number)):
                mapping.detach()

    def in_flight(self, uint32_t number) -> int:
        """Requests of a queue that stand in its ledger, whoever serves."""
        cdef Queue *q = &self.queues[number]
        return sum(pv_ledger_state(&q.ledger[i]) != 0 for i in range(q.capacity))

    def taken(self, uint32_t number) -> bool:
        """Has the guest taken all completions that its devices gave for a queue? None of them is on its way then."""
        cdef Queue *q = &self.queues[number]
        cdef uint32_t i
        cdef bint all_taken
        if number >= QUEUES_MAX or not q.used:
            raise KeyError(f"queue {number} is not in service")
        with self.quiet():
            all_taken = pv_producer_free(&q.completions, q.capacity) == q.capacity or q.completions.broken
            for i in range(q.capacity):
                if q.copies[i].state == COPY_OUT:
                    all_taken = False
        return all_taken

    # ---- data thread ----

    cdef void queue_added(self, uint32_t number) noexcept nogil:
        """Inside `quiet`: a new one."""
        pass

    cdef void queue_gone(self, uint32_t number) noexcept nogil:
        """Inside `quiet`: it is about to go."""
        pass

    cdef bint endpoint_drained(self, const Queue *q) noexcept nogil:
        """Is nothing of the endpoint, whose queues are all here, in flight?"""
        cdef uint32_t i
        for i in range(self.queue_count):
            if (self.queues[i].used and self.queues[i].partition == q.partition and self.queues[i].endpoint == q.endpoint
                    and self.queues[i].free_count != self.queues[i].capacity):
                return False
        return True

    cdef void set_path(self, const Queue *q, uint32_t path) noexcept nogil:
        cdef uint32_t i
        for i in range(self.queue_count):
            if self.queues[i].used and self.queues[i].partition == q.partition and self.queues[i].endpoint == q.endpoint:
                self.queues[i].path = self.queues[i].header.path = path

    cdef bint take_buffer(self, Queue *q, uint16_t slot, uint32_t length) noexcept nogil:
        """A buffer of `length` bytes for a ledger slot, contiguous in own memory; False: none now."""
        cdef Copy *copy = &q.copies[slot]
        cdef uint32_t pages = (length + PV_PAGE - 1) // PV_PAGE, first = 0
        copy.state = COPY_IN
        copy.pages = copy.bytes = 0
        copy.copied = 0
        pv_ledger_lend(&q.ledger[slot], 0)
        if pages == 0:
            return True  # no data; or a length of 0, which the monitor refuses
        # Buffers that wait for frames may take half of the memory: the frames themselves need the other half.
        if (q.held + <uint64_t>pages * PV_PAGE > q.budget + PV_PAGE
                or q.receives and self.receive_pages + pages > self.pool.pages // 2
                or not pv_pool_take(&self.pool, pages, &first)):
            copy.state = COPY_NONE
            return False
        self.have_buffer(q, slot, first, pages)
        pv_ledger_lend(&q.ledger[slot], 1 + copy.buffer)
        return True

    cdef bint keep_buffer(self, Queue *q, uint32_t slot) noexcept nogil:
        """The buffer that the server before this one had for a request that is to bring something, with what has arrived
        there. False: there is none, or it is somebody else's by now. Before any other buffer is taken."""
        cdef Copy *copy = &q.copies[slot]
        cdef pv_ledger_entry *entry = &q.ledger[slot]
        cdef uint64_t lent = pv_ledger_lent(entry), first = (lent - 1) // PV_PAGE
        cdef uint32_t pages = (entry.request.length + PV_PAGE - 1) // PV_PAGE
        if lent == 0 or pages == 0 or not pv_pool_claim(&self.pool, first, pages):
            return False
        memset(copy, 0, sizeof(Copy))
        self.have_buffer(q, slot, first, pages)
        copy.status = PV_STATUS_OK
        copy.bytes = pv_ledger_arrived(entry)
        copy.state = COPY_OUT if copy.bytes else COPY_DEVICE
        return True

    cdef void have_buffer(self, Queue *q, uint32_t slot, uint64_t first, uint32_t pages) noexcept nogil:
        q.copies[slot].buffer = first * PV_PAGE
        q.copies[slot].pages = pages
        q.held += <uint64_t>pages * PV_PAGE
        if q.receives:
            self.receive_pages += pages

    cdef void release_buffer(self, Queue *q, uint32_t slot) noexcept nogil:
        cdef Copy *copy = &q.copies[slot]
        if copy.pages:
            pv_pool_give(&self.pool, <uint32_t>(copy.buffer // PV_PAGE), copy.pages)
            q.held -= <uint64_t>copy.pages * PV_PAGE
            if q.receives:
                self.receive_pages -= copy.pages
            copy.pages = 0
        copy.state = COPY_NONE

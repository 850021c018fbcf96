"""Channel server of an I/O partition: takes guests' requests, records them in ledgers, passes them to the monitor,
gives completions back (U7, U9, U10, W7). Maps rings and ledgers, never guest memory.

On the copy path (A4) a request's data goes through a buffer in this partition's own memory, which the monitor fills
or empties on call; the device is handed that buffer:

    send, write:     COPY --> SUBMIT (own buffer) --> device --> completion
    receive, read:   SUBMIT (own buffer) --> device --> COPY --> completion

Order within one poll: completions of the devices, refusals of the monitor, then new requests, so that room is made
before it is used. Complete first, clear the ledger second (rules.md 18).
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset

from pyx.abi cimport (
    PV_CALL_COPY, PV_CALL_OWN, PV_CALL_PATH, PV_CHANNEL_COMPLETIONS, PV_EVENTS_INTERRUPTS, PV_EVENTS_MONITOR, PV_EVENTS_SERVER,
    PV_ID, PV_ID_GENERATION, PV_ID_SLOT, PV_IO_BYTES, PV_IO_CANCELLED, PV_IO_COMPLETIONS, PV_IO_COPIED_BYTES, PV_IO_FAILED,
    PV_IO_INTERRUPTS, PV_IO_OPERATIONS, PV_IO_RECALLED, PV_IO_REFUSED, PV_IO_REQUESTS, PV_IO_SUBMITTED, PV_LEDGER_MAGIC,
    PV_LEDGER_SIZE, PV_OP_COUNT, PV_OP_FLUSH, PV_OP_PATH, PV_OP_READ, PV_OP_RECEIVE, PV_OP_SEND, PV_OP_WRITE, PV_PAGE, PV_PATH_COPY, PV_PATH_DIRECT, PV_PATH_REDIRECT, PV_QUEUE_RECEIVE,
    PV_REASON_BUDGET, PV_REASON_PATH_BUSY, PV_REASON_PATH_CHANGED, PV_REASON_PATH_CLOSED,
    PV_REASON_COUNT, PV_REASON_DETACHED, PV_REASON_ENDPOINT_FOREIGN, PV_REASON_ID_INVALID, PV_REASON_NONE, PV_REASON_QUEUE_BROKEN,
    PV_REASON_RESERVED_NONZERO, PV_REASON_FLAGS_UNKNOWN, PV_REASON_LIST_LIMIT,
    PV_REASON_OPERATION_UNKNOWN, PV_STAGE_COMPLETION, PV_STAGE_COPY, PV_STAGE_COUNT, PV_STAGE_DEVICE, PV_STAGE_INTERRUPT, PV_STAGE_POST,
    PV_STAGE_QUEUE, PV_STAGE_TIMES, PV_STAGE_TOTAL, PV_STAGE_VALIDATION, PV_STATUS_CANCELLED, PV_STATUS_FAILED, PV_STATUS_OK,
    PV_STATUS_REFUSED, PV_THREAD_BROKEN_QUEUES, PV_THREAD_FOREIGN_COMPLETIONS, PV_THREAD_WAKES_SENT, PV_VECTOR,
    PV_VERSION, pv_completion, pv_doorbell, pv_interrupts, pv_ledger, pv_ledger_entry, pv_reason, pv_request, pv_system_call,

)
from pyx.loop cimport Loop
from pyx.ringc cimport (
    pv_consumer, pv_consumer_attach, pv_consumer_available, pv_consumer_fetch, pv_consumer_pending,
    pv_consumer_prefetch, pv_consumer_release, pv_count, pv_interrupt_post, pv_now, pv_observe, pv_producer,
    pv_producer_attach, pv_producer_free, pv_producer_publish, pv_producer_push, pv_push_completion, pv_push_submit, pv_row,
    pv_row_counters, pv_row_histogram, pv_saturate,
)
from pyx.segment cimport Mapping, map_ring

cdef extern from *:
    """
    #include "ring.h"
    static inline uint64_t pv_ledger_state(const struct pv_ledger_entry *e)
    { return atomic_load_explicit(&((struct pv_ledger_entry *)e)->state, memory_order_acquire); }
    static inline void pv_ledger_set(struct pv_ledger_entry *e, uint64_t state)
    { atomic_store_explicit(&e->state, state, memory_order_release); }
    """
    uint64_t pv_ledger_state(const pv_ledger_entry *e) nogil
    void pv_ledger_set(pv_ledger_entry *e, uint64_t state) nogil

cdef extern from "validate.h" nogil:
    bint pv_operation_writes_memory(uint8_t operation)

cdef enum:
    BATCH = 64           # requests of one queue per round (rules.md 12)
    FOLLOW_MAX = 262144  # calls that wait for room: more than all queues can have in flight (a power of two)
    BUDGET_DEFAULT = 2097152
    QUEUES_MAX = 384     # 120 guests with three queues each, and the console
    DEVICES = 32

cdef enum CopyState:
    COPY_NONE            # not on the copy path
    COPY_IN              # the monitor fills the buffer
    COPY_DEVICE          # the buffer is with the device
    COPY_OUT             # the monitor empties the buffer

# A request on the copy path; one for each ledger slot.
cdef struct Copy:
    CopyState state
    uint32_t pages               # of the buffer; 0: none
    uint64_t buffer              # gpa in this partition's memory
    uint64_t copied              # ns spent so far
    uint64_t since               # ns: begin of the present step
    uint32_t times[6]            # as the device measured them
    uint32_t bytes
    uint16_t status
    uint16_t reason

cdef struct Follow:
    uint16_t queue
    uint16_t slot

cdef struct Queue:
    bint used
    uint32_t path                # enum pv_path in force
    Copy *copies
    uint64_t budget              # bytes of buffers that this queue may hold (A6, rules.md 17)
    uint64_t held
    bint receives                # its buffers wait for frames
    bint short                   # had no buffer for the next request: a completion changes that
    bint counted_broken
    uint64_t partition
    uint16_t endpoint
    uint16_t queue
    uint32_t operations         # bit per operation that belongs on this queue
    uint32_t capacity
    pv_consumer requests
    pv_producer completions
    pv_ledger_entry *ledger
    uint16_t *free_slots        # stack
    uint32_t free_count
    uint64_t *generations       # of each ledger slot
    pv_interrupts *interrupts
    pv_doorbell *doorbell
    uint64_t vector
    uint64_t *counters
    uint64_t *histograms[8]
    uint32_t row
    bint dirty                  # completions pushed, not yet published
    bint stalled                # the guest does not consume its completions
    uint32_t clear_count
    uint16_t clear[256]         # ledger slots to clear after publication
    uint32_t run_times[6]       # coalesced observation: same stage times in one batch
    uint32_t run_length

cdef struct Generations:
    uint64_t *values
    uint32_t capacity


cdef class IoServer(Loop):
    """The thread of a channel server. `call_fd`: call ring into the monitor; `events_fd`: own events segment;
    `monitor_bell_fd`: the doorbell of the monitor's worker is page 2 of the own events segment."""
    cdef uint16_t slot
    cdef uint64_t epoch
    cdef Mapping call_mapping, own_events
    cdef pv_producer calls
    cdef pv_consumer refusals
    cdef pv_consumer hardware[32]
    cdef bint connected[32]
    cdef Queue *queues
    cdef Generations generations[384]    # per queue number; they outlive the queues
    cdef uint32_t queue_count            # highest used + 1
    cdef uint16_t dirty[384]
    cdef uint32_t dirty_count
    cdef uint32_t first                  # round robin: the queue that is served first in this round
    cdef dict kept
    cdef dict bells_used                 # partition -> [Mapping interrupts, Mapping doorbell, number of queues]
    cdef uint64_t *pages                 # bitmap of own memory: 1 is in use
    cdef uint32_t page_count, next_page
    cdef uint32_t receive_pages
    cdef Follow *follow                  # calls that found no room, in order
    cdef uint32_t follow_head, follow_tail

    def __init__(self, int bell_fd, int statistics_fd, uint64_t statistics_size, bint symmetric=False, *,
                 uint64_t partition, uint64_t epoch, int call_fd, uint32_t call_capacity, int events_fd,
                 uint64_t memory_size=0):
        self.slot = PV_ID_SLOT(partition)
        self.epoch = epoch
        self.call_mapping = map_ring(call_fd, call_capacity, 2)
        self.own_events = Mapping(events_fd, PV_PAGE, offset=PV_EVENTS_MONITOR)
        pv_producer_attach(&self.calls, self.call_mapping.base, call_capacity, <pv_doorbell *>self.own_events.base,
                           self.symmetric)
        pv_consumer_attach(&self.refusals, self.call_mapping.base + PV_CHANNEL_COMPLETIONS(call_capacity), call_capacity)
        # The monitor wakes its callers at the doorbell of their interrupt page.
        interrupts = Mapping(events_fd, PV_PAGE, offset=PV_EVENTS_INTERRUPTS)
        self.kept = {"interrupts": interrupts}
        self.add_bell(<pv_doorbell *>(<Mapping>interrupts).base)
        self.queues = <Queue *>calloc(QUEUES_MAX, sizeof(Queue))
        self.page_count = <uint32_t>(memory_size // PV_PAGE)
        self.pages = <uint64_t *>calloc(self.page_count // 64 + 1, sizeof(uint64_t))
        self.follow = <Follow *>calloc(FOLLOW_MAX, sizeof(Follow))
        if self.queues == NULL or self.pages == NULL or self.follow == NULL:
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
        free(self.pages)
        free(self.follow)

    # ---- control thread ----

    def connect_hardware(self, uint32_t device, int ring_fd, uint32_t capacity):
        """Connects the completion ring of a device: the device produces, this thread consumes."""
        cdef Mapping ring = map_ring(ring_fd, capacity, 1)
        if device >= DEVICES or self.connected[device]:
            raise ValueError(f"device slot {device} is out of range or connected already")
        with self.quiet():
            pv_consumer_attach(&self.hardware[device], ring.base, capacity)
            self.connected[device] = True
        self.kept["hardware", device] = ring

    def add_queue(self, uint64_t partition, uint16_t endpoint, uint16_t queue, str kind, uint32_t capacity,
                  int channel_fd, int ledger_fd, int events_fd, uint64_t budget=BUDGET_DEFAULT) -> int:
        """Takes one queue of an endpoint into service; returns the server's queue number. `budget`: bytes of this
        partition's memory that it may hold on the copy path. ValueError where there is no room."""
        cdef Mapping channel = map_ring(channel_fd, capacity, 2)
        cdef Mapping ledger = Mapping(ledger_fd, PV_LEDGER_SIZE(capacity))
        cdef Queue fresh
        cdef uint32_t number, i
        memset(&fresh, 0, sizeof(fresh))
        fresh.partition = partition
        fresh.endpoint = endpoint
        fresh.queue = queue
        fresh.capacity = capacity
        if kind == "disk":
            fresh.operations = 1 << <int>PV_OP_READ | 1 << <int>PV_OP_WRITE | 1 << <int>PV_OP_FLUSH
        else:
            fresh.receives = queue == PV_QUEUE_RECEIVE
            fresh.operations = 1 << <int>PV_OP_RECEIVE if queue == PV_QUEUE_RECEIVE else 1 << <int>PV_OP_SEND
        pv_consumer_attach(&fresh.requests, channel.base, capacity)
        pv_producer_attach(&fresh.completions, channel.base + PV_CHANNEL_COMPLETIONS(capacity), capacity, NULL, self.symmetric)
        head = <pv_ledger *>ledger.base
        head.magic = PV_LEDGER_MAGIC
        head.version = PV_VERSION
        head.capacity = capacity
        fresh.ledger = <pv_ledger_entry *>(ledger.base + sizeof(pv_ledger))
        fresh.path = PV_PATH_REDIRECT
        fresh.budget = budget
        fresh.free_slots = <uint16_t *>calloc(capacity, sizeof(uint16_t))
        fresh.copies = <Copy *>calloc(capacity, sizeof(Copy))
        if fresh.free_slots == NULL or fresh.copies == NULL:
            free(fresh.free_slots)
            free(fresh.copies)
            raise MemoryError()
        for i in range(capacity):
            fresh.free_slots[i] = capacity - 1 - i
        fresh.free_count = capacity
        with self.quiet():
            for number in range(QUEUES_MAX):
                if not self.queues[number].used:
                    break
            else:
                free(fresh.free_slots)
                free(fresh.copies)
                raise ValueError(f"this server serves {QUEUES_MAX} queues already")
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
            fresh.vector = <uint64_t>1 << PV_VECTOR(endpoint, queue)
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
        return number

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
        """Requests of a queue that stand in its ledger."""
        return self.queues[number].capacity - self.queues[number].free_count

    # ---- data thread ----

    cdef bint pending(self) noexcept nogil:
        cdef uint32_t i
        for i in range(DEVICES):
            if self.connected[i] and pv_consumer_pending(&self.hardware[i]):
                return True
        if pv_consumer_pending(&self.refusals):
            return True
        for i in range(self.queue_count):
            # Ledger full: the next completion makes room. Stalled: only the guest can end that, by its next doorbell.
            if (self.queues[i].used and self.queues[i].free_count and not self.queues[i].stalled and not self.queues[i].short
                    and pv_consumer_pending(&self.queues[i].requests)):
                return True
        return False

    cdef uint32_t poll(self) noexcept nogil:
        cdef uint32_t work = 0, i, n, index
        cdef uint64_t now = 0
        if self.follow_head != self.follow_tail:
            work += self.follow_up()
        for i in range(DEVICES):
            if self.connected[i]:
                n = pv_consumer_available(&self.hardware[i])
                if n:
                    self.delay(PV_STAGE_COMPLETION)
                    if now == 0:
                        now = self.stamp()
                    work += self.completions(&self.hardware[i], n, now)
        n = pv_consumer_available(&self.refusals)
        if n:
            work += self.completions(&self.refusals, n, self.stamp())
        if self.dirty_count:
            self.publish()
        now = 0
        index = self.first
        for i in range(self.queue_count):
            if index >= self.queue_count:
                index = 0
            if self.queues[index].used:
                n = pv_consumer_available(&self.queues[index].requests)
                if n:
                    if now == 0:
                        self.delay(PV_STAGE_QUEUE)
                        now = self.stamp()
                    work += self.take(&self.queues[index], index, n, now)
                if ((self.queues[index].requests.broken or self.queues[index].completions.broken)
                        and not self.queues[index].counted_broken):
                    self.queues[index].counted_broken = True
                    pv_count(&self.counters[<int>PV_THREAD_BROKEN_QUEUES], 1)
                    pv_count(&self.queues[index].counters[<int>PV_IO_REFUSED + <int>PV_REASON_QUEUE_BROKEN], 1)
            index += 1
        self.first += 1
        if self.first >= self.queue_count:
            self.first = 0
        pv_producer_publish(&self.calls)
        if self.dirty_count:
            self.publish()
        return work

    cdef uint32_t take(self, Queue *q, uint32_t number, uint32_t available, uint64_t now) noexcept nogil:
        """Takes a bounded batch of new requests: record each, pass it on, then give the ring slots back."""
        cdef pv_request request
        cdef pv_ledger_entry *entry
        cdef pv_reason reason
        cdef uint32_t taken = 0, room, i, submitted = 0
        cdef uint16_t slot
        cdef uint64_t id
        if available > BATCH:
            available = BATCH
        if available > q.free_count:
            available = q.free_count
        # Room for the completion of everything in flight and of this batch: a guest that does not consume is
        # stalled, and nobody else (rules.md 17).
        room = pv_producer_free(&q.completions, q.capacity)
        q.stalled = room <= q.capacity - q.free_count
        if q.stalled:
            return 0
        room -= q.capacity - q.free_count
        if available > room:
            available = room
        room = pv_producer_free(&self.calls, available)
        if available > room:
            available = room
        for i in range(available):
            if i + 4 < available:
                pv_consumer_prefetch(&q.requests, i + 4)
            pv_consumer_fetch(&q.requests, i, &request)
            reason = PV_REASON_NONE
            # What the monitor cannot see, because the call does not carry it; all else is the monitor's to judge.
            if request.id == 0:
                reason = PV_REASON_ID_INVALID
            elif request.key:
                reason = PV_REASON_RESERVED_NONZERO
            elif request.list_count:
                reason = PV_REASON_LIST_LIMIT
            elif request.endpoint != q.endpoint:
                reason = PV_REASON_ENDPOINT_FOREIGN
            elif request.operation == PV_OP_PATH:
                if q.free_count != q.capacity or not self.endpoint_drained(q):
                    reason = PV_REASON_PATH_BUSY
            elif request.operation >= PV_OP_COUNT or not q.operations >> request.operation & 1:
                reason = PV_REASON_OPERATION_UNKNOWN
            elif q.path == PV_PATH_DIRECT:
                reason = PV_REASON_PATH_CLOSED
            elif q.path == PV_PATH_COPY and request.length > q.budget:
                reason = PV_REASON_BUDGET
            if reason == PV_REASON_NONE and q.path == PV_PATH_COPY and request.operation != PV_OP_PATH:
                if self.follow_tail != self.follow_head:
                    break  # calls of earlier requests come first
                q.short = not self.take_buffer(q, q.free_slots[q.free_count - 1], request.length)
                if q.short:
                    break  # its budget, or all of this partition's memory, is in use: the rest waits on its ring
            taken += 1
            if request.taken and self.attribution:
                pv_observe(q.histograms[<int>PV_STAGE_INTERRUPT], request.taken, 1)
            if reason != PV_REASON_NONE:
                self.refuse(q, number, &request, reason, now)
                continue
            q.free_count -= 1
            slot = q.free_slots[q.free_count]
            entry = &q.ledger[slot]
            id = PV_ID(slot, q.generations[slot])
            entry.request = request
            entry.position = q.requests.head + i
            entry.epoch = self.epoch
            entry.pickup_time = now
            pv_ledger_set(entry, id)
            submitted += 1
            if request.operation == PV_OP_PATH:
                self.push_path(q, number, id, &request, now)
            elif q.path == PV_PATH_COPY:
                self.begin_copy(q, number, slot, now)
            else:
                pv_push_submit(&self.calls, id, &request, now, self.epoch, PV_ID_SLOT(q.partition), number, 0)
        if taken:
            pv_consumer_release(&q.requests, taken)
            pv_count(&q.counters[<int>PV_IO_REQUESTS], taken)
            pv_count(&q.counters[<int>PV_IO_SUBMITTED], submitted)
        return taken

    # ---- change of path ----

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
                self.queues[i].path = path

    cdef void push_path(self, Queue *q, uint32_t number, uint64_t id, const pv_request *request, uint64_t now) noexcept nogil:
        """Passes a guest's wish to go over to another path on to the monitor, which decides."""
        cdef pv_system_call call
        memset(&call, 0, sizeof(call))
        call.id = id
        call.call = PV_CALL_PATH
        call.client = PV_ID_SLOT(q.partition)
        call.queue = number
        call.submit.epoch = self.epoch
        call.submit.pickup_time = now
        call.submit.endpoint = request.endpoint
        call.submit.endpoint_generation = request.endpoint_generation
        call.submit.length = request.length
        pv_producer_push(&self.calls, &call)

    # ---- copy path ----

    cdef bint take_buffer(self, Queue *q, uint16_t slot, uint32_t length) noexcept nogil:
        """A buffer of `length` bytes for a ledger slot, contiguous in own memory; False: none now."""
        cdef Copy *copy = &q.copies[slot]
        cdef uint32_t pages = (length + PV_PAGE - 1) // PV_PAGE, run = 0, looked = 0, at
        copy.state = COPY_IN
        copy.pages = copy.bytes = 0
        copy.copied = 0
        if pages == 0:
            return True  # flush; or a length of 0, which the monitor refuses
        # Buffers that wait for frames may take half of the memory: the frames themselves need the other half.
        if (q.held + <uint64_t>pages * PV_PAGE > q.budget + PV_PAGE or pages > self.page_count
                or q.receives and self.receive_pages + pages > self.page_count // 2):
            copy.state = COPY_NONE
            return False
        at = self.next_page
        while looked < self.page_count + pages:
            if at + (pages - run) > self.page_count:
                looked += self.page_count - at + run
                at = 0
                run = 0
            if self.pages[at // 64] >> (at % 64) & 1:
                run = 0
            else:
                run += 1
            at += 1
            looked += 1
            if run == pages:
                self.next_page = at if at < self.page_count else 0
                copy.buffer = <uint64_t>(at - pages) * PV_PAGE
                copy.pages = pages
                self.mark_pages(at - pages, pages, True)
                q.held += <uint64_t>pages * PV_PAGE
                if q.receives:
                    self.receive_pages += pages
                return True
        copy.state = COPY_NONE
        return False

    cdef void mark_pages(self, uint32_t first, uint32_t count, bint used) noexcept nogil:
        cdef uint32_t i
        for i in range(first, first + count):
            if used:
                self.pages[i // 64] |= <uint64_t>1 << (i % 64)
            else:
                self.pages[i // 64] &= ~(<uint64_t>1 << (i % 64))

    cdef void release_buffer(self, Queue *q, uint32_t slot) noexcept nogil:
        cdef Copy *copy = &q.copies[slot]
        if copy.pages:
            self.mark_pages(<uint32_t>(copy.buffer // PV_PAGE), copy.pages, False)
            q.held -= <uint64_t>copy.pages * PV_PAGE
            if q.receives:
                self.receive_pages -= copy.pages
            copy.pages = 0
        copy.state = COPY_NONE

    cdef void begin_copy(self, Queue *q, uint32_t number, uint16_t slot, uint64_t now) noexcept nogil:
        cdef Copy *copy = &q.copies[slot]
        cdef uint8_t operation = q.ledger[slot].request.operation
        copy.since = now
        copy.state = COPY_DEVICE if pv_operation_writes_memory(operation) or operation == PV_OP_FLUSH else COPY_IN
        self.call_next(q, number, slot)

    cdef void call_next(self, Queue *q, uint32_t number, uint16_t slot) noexcept nogil:
        """The call that the state of a request asks for, in order behind those that wait for room."""
        if self.follow_head == self.follow_tail and pv_producer_free(&self.calls, 1):
            self.push_step(q, number, slot)
        else:
            self.follow[self.follow_tail % FOLLOW_MAX].queue = number
            self.follow[self.follow_tail % FOLLOW_MAX].slot = slot
            self.follow_tail += 1

    cdef uint32_t follow_up(self) noexcept nogil:
        cdef uint32_t done = 0
        cdef Follow *next
        while self.follow_head != self.follow_tail and pv_producer_free(&self.calls, 1):
            next = &self.follow[self.follow_head % FOLLOW_MAX]
            # A queue may have been removed meanwhile.
            if self.queues[next.queue].used and self.queues[next.queue].copies[next.slot].state != COPY_NONE:
                self.push_step(&self.queues[next.queue], next.queue, next.slot)
            self.follow_head += 1
            done += 1
        return done

    cdef void push_step(self, Queue *q, uint32_t number, uint16_t slot) noexcept nogil:
        cdef Copy *copy = &q.copies[slot]
        cdef pv_ledger_entry *entry = &q.ledger[slot]
        cdef pv_system_call call
        cdef pv_request own
        cdef uint64_t id = PV_ID(slot, q.generations[slot])
        if copy.state == COPY_DEVICE:
            own = entry.request
            own.gpa = copy.buffer if copy.pages else 0
            pv_push_submit(&self.calls, id, &own, copy.since, self.epoch, PV_ID_SLOT(q.partition), number, PV_CALL_OWN)
            return
        memset(&call, 0, sizeof(call))
        call.id = id
        call.call = PV_CALL_COPY
        call.client = PV_ID_SLOT(q.partition)
        call.queue = number
        call.copy.gpa = entry.request.gpa
        call.copy.buffer = copy.buffer
        call.copy.endpoint_generation = entry.request.endpoint_generation
        call.copy.pickup_time = copy.since
        call.copy.epoch = self.epoch
        call.copy.length = copy.bytes if copy.state == COPY_OUT else entry.request.length
        call.copy.endpoint = entry.request.endpoint
        call.copy.operation = entry.request.operation
        call.copy.flags = entry.request.flags
        pv_producer_push(&self.calls, &call)

    cdef bint copy_step(self, Queue *q, uint16_t slot, pv_completion *answer, uint64_t now) noexcept nogil:
        """An answer to a request on the copy path. False: it goes on; True: `answer` ends it."""
        cdef Copy *copy = &q.copies[slot]
        cdef pv_ledger_entry *entry = &q.ledger[slot]
        cdef uint32_t number = <uint32_t>(q - self.queues)
        cdef uint32_t i
        if answer.call == PV_CALL_COPY:
            copy.copied += now - copy.since if now > copy.since else 0
            if answer.status == PV_STATUS_OK:
                pv_count(&q.counters[<int>PV_IO_COPIED_BYTES], copy.bytes if copy.state == COPY_OUT else entry.request.length)
                if copy.state == COPY_IN:
                    copy.state = COPY_DEVICE
                    copy.since = now
                    self.call_next(q, number, slot)
                    return False
                answer.status = copy.status
                answer.reason = copy.reason
                answer.bytes = copy.bytes
                for i in range(PV_STAGE_TIMES):
                    answer.stage_times[i] = copy.times[i]
        elif (answer.call == 0 and answer.status == PV_STATUS_OK and answer.bytes and copy.state == COPY_DEVICE
              and pv_operation_writes_memory(entry.request.operation)):
            copy.state = COPY_OUT
            copy.since = now
            copy.bytes = answer.bytes if answer.bytes < entry.request.length else entry.request.length
            copy.status = answer.status
            copy.reason = answer.reason
            for i in range(PV_STAGE_TIMES):
                copy.times[i] = answer.stage_times[i]
            self.call_next(q, number, slot)
            return False
        answer.stage_times[<int>PV_STAGE_COPY] = pv_saturate(copy.copied)
        self.release_buffer(q, slot)
        return True

    cdef void refuse(self, Queue *q, uint32_t number, const pv_request *request, pv_reason reason, uint64_t now) noexcept nogil:
        cdef uint32_t times[6]
        memset(times, 0, sizeof(times))
        pv_push_completion(&q.completions, request.id, self.epoch, PV_STATUS_REFUSED, reason, 0, now, times, 0)
        pv_count(&q.counters[<int>PV_IO_REFUSED + <int>reason], 1)
        pv_count(&q.counters[<int>PV_IO_COMPLETIONS], 1)
        self.mark(q, number)

    cdef void mark(self, Queue *q, uint32_t number) noexcept nogil:
        if not q.dirty:
            q.dirty = True
            self.dirty[self.dirty_count] = number
            self.dirty_count += 1

    cdef uint32_t completions(self, pv_consumer *ring, uint32_t available, uint64_t now) noexcept nogil:
        """Gives completions of a device or refusals of the monitor back to the guests."""
        cdef pv_completion answer
        cdef pv_ledger_entry *entry
        cdef Queue *q
        cdef uint32_t i, operation
        cdef uint64_t total, spent
        cdef uint16_t slot
        if available > 256:
            available = 256
        for i in range(available):
            if i + 4 < available:
                pv_consumer_prefetch(ring, i + 4)
            pv_consumer_fetch(ring, i, &answer)
            slot = PV_ID_SLOT(answer.id)
            q = &self.queues[answer.queue] if answer.queue < self.queue_count else NULL
            if q == NULL or not q.used or slot >= q.capacity or answer.id != PV_ID(slot, q.generations[slot]) or pv_ledger_state(&q.ledger[slot]) != answer.id:
                # Late answer to a queue that was removed, or a device that lies: exactly one answer wins (rules.md 13).
                pv_count(&self.counters[<int>PV_THREAD_FOREIGN_COMPLETIONS], 1)
                continue
            entry = &q.ledger[slot]
            if q.path == PV_PATH_COPY and q.copies[slot].state != COPY_NONE and not self.copy_step(q, slot, &answer, now):
                continue
            if answer.call == PV_CALL_PATH and answer.status == PV_STATUS_OK:
                self.set_path(q, entry.request.length)
                answer.bytes = entry.request.length
            total = now - entry.pickup_time if entry.pickup_time and now > entry.pickup_time else 0
            spent = (<uint64_t>answer.stage_times[<int>PV_STAGE_VALIDATION] + answer.stage_times[<int>PV_STAGE_COPY]
                     + answer.stage_times[<int>PV_STAGE_POST] + answer.stage_times[<int>PV_STAGE_DEVICE])
            answer.stage_times[<int>PV_STAGE_QUEUE] = pv_saturate(entry.pickup_time - entry.request.enqueue_time if entry.pickup_time > entry.request.enqueue_time and entry.request.enqueue_time else 0)
            answer.stage_times[<int>PV_STAGE_COMPLETION] = pv_saturate(total - spent if total > spent else 0)
            operation = entry.request.operation
            pv_push_completion(&q.completions, entry.request.id, self.epoch, answer.status, answer.reason, answer.bytes,
                               entry.pickup_time, answer.stage_times, 0)
            q.generations[slot] += 1
            q.clear[q.clear_count] = slot
            q.clear_count += 1
            pv_count(&q.counters[<int>PV_IO_COMPLETIONS], 1)
            if answer.status == PV_STATUS_OK:
                pv_count(&q.counters[<int>PV_IO_OPERATIONS + operation], 1)
                pv_count(&q.counters[<int>PV_IO_BYTES + operation], answer.bytes)
                if self.attribution and entry.pickup_time:
                    self.observe(q, &answer)
            elif answer.status == PV_STATUS_REFUSED:
                pv_count(&q.counters[<int>PV_IO_REFUSED + (answer.reason if answer.reason < PV_REASON_COUNT else 0)], 1)
            elif answer.status == PV_STATUS_CANCELLED:
                pv_count(&q.counters[<int>PV_IO_RECALLED if answer.reason == PV_REASON_PATH_CHANGED
                                     else <int>PV_IO_CANCELLED], 1)
            else:
                pv_count(&q.counters[<int>PV_IO_FAILED], 1)
            self.mark(q, <uint32_t>(q - self.queues))
            if q.clear_count == 256:
                self.publish()
        pv_consumer_release(ring, available)
        return available

    cdef void observe(self, Queue *q, const pv_completion *answer) noexcept nogil:
        """Adds to the stage histograms; equal neighbours of one batch are added as one."""
        cdef uint32_t i
        cdef bint same = q.run_length > 0
        if same:
            for i in range(PV_STAGE_TIMES):
                if q.run_times[i] != answer.stage_times[i]:
                    same = False
                    break
        if not same:
            self.observe_run(q)
            for i in range(PV_STAGE_TIMES):
                q.run_times[i] = answer.stage_times[i]
        q.run_length += 1

    cdef void observe_run(self, Queue *q) noexcept nogil:
        cdef uint32_t i
        cdef uint64_t total = 0
        if q.run_length:
            for i in range(PV_STAGE_TIMES):
                pv_observe(q.histograms[i], q.run_times[i], q.run_length)
                if i != PV_STAGE_QUEUE:
                    total += q.run_times[i]
            pv_observe(q.histograms[<int>PV_STAGE_TOTAL], total, q.run_length)
            q.run_length = 0

    cdef void publish(self) noexcept nogil:
        """Publishes completions, clears their ledger entries, then wakes the guests that sleep."""
        cdef uint32_t i, k
        cdef Queue *q
        for i in range(self.dirty_count):
            q = &self.queues[self.dirty[i]]
            q.dirty = False
            pv_producer_publish(&q.completions)
            for k in range(q.clear_count):
                pv_ledger_set(&q.ledger[q.clear[k]], 0)
                q.free_slots[q.free_count] = q.clear[k]
                q.free_count += 1
            q.clear_count = 0
            self.observe_run(q)
            if pv_interrupt_post(q.interrupts, q.vector, self.symmetric):
                pv_count(&q.counters[<int>PV_IO_INTERRUPTS], 1)
                pv_count(&self.counters[<int>PV_THREAD_WAKES_SENT], 1)
        self.dirty_count = 0

"""One of the two seats of an office: it serves, or stands by and takes over (U12, rules.md 18 to 21, design.md section 11).

    is begun --has the seat--> stands by --term names this seat--> reads the ledgers, gives on what was answered --> sends
    the rest again, in the order in which it was taken --> serves --order to resign--> stands by

The monitor alone decides. By the time it names a seat, the one before it has died or resigned, and devices and monitor
carry out nothing of the earlier epoch any more: what they have executed is on the rings, what is not there was not
executed. So nothing is done twice, and nothing is lost.
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from pyx.abi cimport (
    PV_CALL_SUBMIT, PV_CHANNEL_COMPLETIONS, PV_ID, PV_ID_GENERATION, PV_ID_SLOT, PV_OP_PATH, PV_PATH_COPY,
    PV_RING_SLOTS_MAX, PV_TERM_EPOCH, PV_TERM_SEAT, pv_kernel, pv_ledger_entry, pv_seat,
)
from pyx.io cimport IoServer
from pyx.loop cimport Loop
from pyx.officec cimport (
    PV_FATE_IN_FLIGHT, pv_fate, pv_ledger_commit, pv_ledger_fate, pv_ledger_lend, pv_ledger_resume, pv_ledger_set, pv_ledger_state,
    pv_order, pv_replay, pv_replay_sort, pv_seat_progress, pv_seat_resign, pv_seat_serve, pv_term,
)
from pyx.queues cimport COPY_NONE, DEVICES, Queue
from pyx.ringc cimport (
    PV_CHARGE_IDLE, pv_consumer_attach, pv_consumer_available, pv_doorbell_cancel, pv_doorbell_fence,
    pv_doorbell_prepare, pv_doorbell_wait, pv_gate_park, pv_gate_wanted, pv_meter_turn, pv_now, pv_producer_attach,
    pv_producer_publish, pv_push_submit,
)
from pyx.segment cimport Mapping
from pyx.validatec cimport pv_operation_has_data, pv_operation_writes_memory
from pyx.vectorc cimport pv_vector_raise

# A seat that serves shows progress at least so often: a monitor that sees none takes it for hung (rules.md 22).
cdef uint64_t BEAT_NS = 50_000_000
cdef uint64_t STANDBY_NS = 1_000_000_000  # every wait has a timeout (rules.md 15)


cdef class Office(IoServer):
    """`kernel_fd`: the kernel region, read-only; `seat`: number of this seat; `bell_fd` is its page."""

    def __init__(self, *args, int kernel_fd, uint32_t seat, **more):
        super().__init__(*args, **more)
        self.kernel_mapping = Mapping(kernel_fd, sizeof(pv_kernel), writable=False)
        self.kernel = <const pv_kernel *>self.kernel_mapping.base
        self.place = <pv_seat *>self.bell_mapping.base
        self.seat = seat
        self.order = <pv_replay *>calloc(PV_RING_SLOTS_MAX, sizeof(pv_replay))
        if self.order == NULL:
            raise MemoryError()
        # A term that is in force already was another process's, even where it names this seat.
        self.known = pv_term(self.kernel, self.slot)
        self.seated = False
        pv_seat_serve(self.place, 0)

    def __dealloc__(self):
        free(self.order)

    @property
    def serving(self) -> bool:
        return self.term != 0

    def sit(self, term=None):
        """The monitor knows that this process has the seat. Until then the seat is a dead process's: a takeover that was
        under way may name it, and the monitor sees then that nobody has it, and names the other one. `term`: in force
        when the monitor was told; that one, too, was not for this process. None: there was no office yet."""
        with self.quiet():
            if term is not None and not self.seated:
                self.known = term
            self.seated = True

    cdef void loop(self) noexcept nogil:
        while not self.stopping:
            self.stand_by()
            if not self.stopping:
                self.leaving = False
                self.take_office()
                Loop.loop(self)

    cdef bint called(self) noexcept nogil:
        """Does the term name this seat?"""
        cdef uint64_t term = pv_term(self.kernel, self.slot)
        return self.seated and term != self.known and term != 0 and PV_TERM_SEAT(term) == self.seat

    cdef void stand_by(self) noexcept nogil:
        """Until this seat is called or the thread is to end. Rings, ledgers and doorbells are somebody else's meanwhile."""
        cdef uint32_t word
        while not self.stopping and not self.called():
            if pv_gate_wanted(&self.gate):
                pv_gate_park(&self.gate)
                continue
            word = pv_doorbell_prepare(self.bell)
            pv_doorbell_fence(self.symmetric)
            if not self.called() and not pv_gate_wanted(&self.gate) and not self.stopping:
                pv_doorbell_wait(self.bell, word, STANDBY_NS)
            pv_doorbell_cancel(self.bell)

    cdef void take_office(self) noexcept nogil:
        cdef uint32_t i, n
        cdef Queue *q
        self.term = self.known = pv_term(self.kernel, self.slot)
        self.epoch = PV_TERM_EPOCH(self.term)
        self.place.begun = pv_now()
        pv_meter_turn(&self.meter, PV_CHARGE_IDLE, pv_now())
        self.found = 0
        # Between peers that trust each other each index is where its owner left it.
        pv_producer_attach(&self.calls, self.call_mapping.base, self.calls.capacity, self.calls.doorbell, self.symmetric)
        pv_consumer_attach(&self.refusals, self.call_mapping.base + PV_CHANNEL_COMPLETIONS(self.calls.capacity),
                           self.refusals.capacity)
        for i in range(DEVICES):
            if self.connected[i]:
                pv_consumer_attach(&self.hardware[i], self.hardware[i].ring, self.hardware[i].capacity)
        self.follow_head = self.follow_tail = self.replays = self.dirty_count = self.first = 0
        for i in range(self.queue_count):
            if self.queues[i].used:
                self.release_buffers(&self.queues[i])
        for i in range(self.queue_count):
            if self.queues[i].used:
                self.resume_queue(&self.queues[i], True)
        self.recovering = True
        for i in range(DEVICES):
            while self.connected[i]:
                n = pv_consumer_available(&self.hardware[i])
                if n == 0:
                    break
                self.completions(&self.hardware[i], n, pv_now())
        while True:
            n = pv_consumer_available(&self.refusals)
            if n == 0:
                break
            self.completions(&self.refusals, n, pv_now())
        self.recovering = False
        for i in range(self.queue_count):
            if self.queues[i].used:
                self.send_again(&self.queues[i], i)
        self.place.found = self.found
        self.place.replayed = self.replays
        self.follow_up()
        pv_producer_publish(&self.calls)
        self.place.ended = pv_now()
        pv_seat_serve(self.place, self.term)
        for i in range(self.queue_count):
            q = &self.queues[i]
            if q.used:  # a wake-up may have been owed
                pv_vector_raise(q.vector, NULL, q.interrupts, q.bit, self.symmetric)

    cdef void resign(self) noexcept nogil:
        """Between two polls everything is committed and published."""
        cdef uint64_t term = self.term
        self.known = term
        self.term = self.epoch = 0
        self.leaving = True
        pv_seat_resign(self.place, term)

    cdef void release_buffers(self, Queue *q) noexcept nogil:
        """Those of an earlier term of this seat."""
        cdef uint32_t i
        for i in range(q.capacity):
            self.release_buffer(q, i)

    cdef void resume_queue(self, Queue *q, bint all_free) noexcept nogil:
        """The queue as its ledger says it was left. `all_free`: nobody has been given a buffer since."""
        cdef pv_ledger_commit commit
        cdef pv_ledger_entry *entry
        cdef pv_fate fate
        cdef uint32_t i, slot
        cdef uint64_t state
        pv_ledger_resume(q.header, &q.requests, &q.completions, &commit)
        q.path = q.header.path
        q.free_count = q.clear_count = q.run_length = 0
        q.dirty = q.stalled = q.short = False
        for i in range(q.capacity):
            slot = q.capacity - 1 - i
            entry = &q.ledger[slot]
            state = pv_ledger_state(entry)
            fate = pv_ledger_fate(entry, &commit)
            if fate == PV_FATE_IN_FLIGHT:
                q.generations[slot] = PV_ID_GENERATION(state)
                entry.done = 0  # of a completion that was never shown
                if (q.path == PV_PATH_COPY and pv_operation_writes_memory(entry.request.operation)
                        and not (all_free and self.keep_buffer(q, slot))):
                    pv_ledger_lend(entry, 0)  # it is asked for again
                continue
            pv_ledger_set(entry, 0)
            if q.generations[slot] <= PV_ID_GENERATION(state):
                q.generations[slot] = PV_ID_GENERATION(state) + 1
            q.free_slots[q.free_count] = slot
            q.free_count += 1

    cdef void send_again(self, Queue *q, uint32_t number) noexcept nogil:
        """What is in flight is queued up to be sent again, under other ids."""
        cdef uint32_t i, count = 0
        cdef uint16_t slot
        for i in range(q.capacity):
            if pv_ledger_state(&q.ledger[i]):
                self.order[count].position = q.ledger[i].position
                self.order[count].slot = i
                count += 1
        pv_replay_sort(self.order, count)
        for i in range(count):
            slot = <uint16_t>self.order[i].slot
            q.generations[slot] += 1
            q.ledger[slot].epoch = self.epoch
            pv_ledger_set(&q.ledger[slot], PV_ID(slot, q.generations[slot]))
            self.queue_up(number, slot)
            self.replays += 1

    # ---- while it serves ----

    cdef uint32_t poll(self) noexcept nogil:
        pv_seat_progress(self.place)
        if pv_order(self.kernel, self.slot) == self.epoch:
            self.resign()
            return 1
        return IoServer.poll(self)

    cdef uint64_t sleep_limit(self) noexcept nogil:
        return BEAT_NS

    cdef bint pending(self) noexcept nogil:
        return pv_order(self.kernel, self.slot) == self.epoch or IoServer.pending(self)

    cdef bint push_next(self, Queue *q, uint32_t number, uint16_t slot) noexcept nogil:
        """A request that is sent again, or the next step of one on the copy path."""
        cdef pv_ledger_entry *entry = &q.ledger[slot]
        cdef uint64_t id = pv_ledger_state(entry)
        if q.copies[slot].state != COPY_NONE:
            self.push_step(q, number, slot)
        elif entry.request.operation == PV_OP_PATH:
            self.push_path(q, number, id, &entry.request, entry.pickup_time)
        elif q.path == PV_PATH_COPY:
            if not self.take_buffer(q, slot, entry.request.length if pv_operation_has_data(entry.request.operation) else 0):
                return False  # until those before it have given theirs back
            self.first_step(q, slot, pv_now())
            self.push_step(q, number, slot)
        else:
            pv_push_submit(&self.calls, PV_CALL_SUBMIT, id, &entry.request, entry.pickup_time, self.epoch,
                           PV_ID_SLOT(q.partition), number, 0)
        return True

    cdef void queue_added(self, uint32_t number) noexcept nogil:
        """In the seat that serves. It may have taken over before it heard of the queue."""
        if self.term:
            self.resume_queue(&self.queues[number], False)
            self.send_again(&self.queues[number], number)

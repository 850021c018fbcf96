"""Channel server of an I/O partition: takes guests' requests, records them in ledgers, passes them to the monitor,
gives completions back (U7, U9, U10, W7). Maps rings and ledgers, never guest memory.

Order within one poll: completions of the devices, refusals of the monitor, then new requests, so that room is made
before it is used. Complete first, clear the ledger second (rules.md 18).
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from pyx.abi cimport (
    PV_CALL_COPY, PV_CALL_PATH, PV_CALL_SUBMIT, PV_COMPLETION_SILENT, PV_ID, PV_ID_SLOT, PV_IO_BYTES, PV_IO_CANCELLED, PV_IO_COMPLETIONS, PV_IO_FAILED, PV_IO_INTERRUPTS,
    PV_IO_OPERATIONS, PV_IO_RECALLED, PV_IO_REFUSED, PV_IO_REQUESTS, PV_IO_SUBMITTED, PV_OP_COUNT, PV_OP_PATH,
    PV_PATH_COPY, PV_PATH_DIRECT, PV_REASON_BUDGET, PV_REASON_COUNT, PV_REASON_ENDPOINT_FOREIGN, PV_REASON_EPOCH_STALE, PV_REASON_ID_INVALID,
    PV_REASON_LIST_LIMIT, PV_REASON_NONE, PV_REASON_OPERATION_UNKNOWN, PV_REASON_PATH_BUSY, PV_REASON_PATH_CHANGED,
    PV_REASON_PATH_CLOSED, PV_REASON_QUEUE_BROKEN, PV_REASON_RESERVED_NONZERO, PV_STAGE_COMPLETION, PV_STAGE_COPY,
    PV_STAGE_DEVICE, PV_STAGE_INTERRUPT, PV_STAGE_POST, PV_STAGE_QUEUE, PV_STAGE_TIMES, PV_STAGE_TOTAL,
    PV_STAGE_VALIDATION, PV_STATUS_CANCELLED, PV_STATUS_OK, PV_STATUS_REFUSED, PV_THREAD_BROKEN_QUEUES,
    PV_THREAD_FOREIGN_COMPLETIONS, PV_THREAD_WAKES_SENT, pv_completion, pv_ledger_entry, pv_reason, pv_request,
    pv_system_call,
)
from pyx.copies cimport Copies
from pyx.officec cimport pv_ledger_commit_indices, pv_ledger_set, pv_ledger_state
from pyx.queues cimport COPY_NONE, DEVICES, Queue
from pyx.ringc cimport (
    PV_CHARGE_SHARED, pv_consumer, pv_consumer_available, pv_consumer_fetch, pv_consumer_pending,
    pv_consumer_prefetch, pv_consumer_release, pv_count, pv_meter_items, pv_meter_turn, pv_now,
    pv_observe, pv_producer_free, pv_producer_publish, pv_producer_push, pv_push_completion, pv_push_submit, pv_saturate,
)
from pyx.validatec cimport pv_operation_has_data, pv_operation_writes_memory
from pyx.vectorc cimport pv_vector_raise

cdef enum:
    BATCH = 64           # requests of one queue per round (rules.md 12)


cdef class IoServer(Copies):
    """The thread of a channel server."""

    cdef bint pending(self) noexcept nogil:
        cdef uint32_t i
        for i in range(DEVICES):
            if self.connected[i] and pv_consumer_pending(&self.hardware[i]):
                return True
        if pv_consumer_pending(&self.refusals):
            return True
        for i in range(self.queue_count):
            # Ledger full: the next completion makes room. Stalled: only the guest can end that, by its next doorbell.
            if (self.replays == 0 and self.queues[i].used and self.queues[i].free_count and not self.queues[i].stalled and not self.queues[i].short
                    and pv_consumer_pending(&self.queues[i].requests)):
                return True
        return False

    cdef uint32_t poll(self) noexcept nogil:
        cdef uint32_t work = 0, i, n, index
        cdef uint64_t now = 0
        if self.follow_head != self.follow_tail:
            pv_meter_turn(&self.meter, PV_CHARGE_SHARED, pv_now())
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
            if now == 0:
                now = self.stamp()
            work += self.completions(&self.refusals, n, now)
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
                        pv_meter_turn(&self.meter, PV_ID_SLOT(self.queues[index].partition), now)
                    self.work_for(PV_ID_SLOT(self.queues[index].partition))
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
        if self.replays:
            return 0  # what was in flight comes before what is new (rules.md 20)
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
            elif q.path == PV_PATH_COPY and request.length > q.budget and pv_operation_has_data(request.operation):
                reason = PV_REASON_BUDGET
            if reason == PV_REASON_NONE and q.path == PV_PATH_COPY and request.operation != PV_OP_PATH:
                if self.follow_tail != self.follow_head:
                    break  # calls of earlier requests come first
                q.short = not self.take_buffer(q, q.free_slots[q.free_count - 1],
                                               request.length if pv_operation_has_data(request.operation) else 0)
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
            entry.done = 0
            pv_ledger_set(entry, id)
            submitted += 1
            if request.operation == PV_OP_PATH:
                self.push_path(q, number, id, &request, now)
            elif q.path == PV_PATH_COPY:
                self.first_step(q, slot, now)
                self.call_next(q, number, slot)
            else:
                pv_push_submit(&self.calls, PV_CALL_SUBMIT, id, &request, now, self.epoch, PV_ID_SLOT(q.partition), number, 0)
        if taken:
            # In one step: what was taken is in the ledger, and those that were refused have their completions.
            pv_ledger_commit_indices(q.header, q.requests.head + taken, q.completions.tail)
            pv_consumer_release(&q.requests, taken)
            pv_count(&q.counters[<int>PV_IO_REQUESTS], taken)
            pv_count(&q.counters[<int>PV_IO_SUBMITTED], submitted)
        return taken

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

    cdef uint32_t completions(self, pv_consumer *ring, uint32_t available, uint64_t now) noexcept nogil:
        """Gives completions of a device or refusals of the monitor back to the guests."""
        cdef pv_completion answer
        cdef pv_ledger_entry *entry
        cdef Queue *q
        cdef Queue *last = NULL
        cdef uint32_t i, operation, run = 0
        cdef uint64_t total, spent
        cdef uint16_t slot
        if available > 256:
            available = 256
        if self.meter.owner != PV_CHARGE_SHARED:
            # The clients' completions lie interleaved and cost about the same.
            pv_meter_turn(&self.meter, PV_CHARGE_SHARED, now if now else pv_now())
        for i in range(available):
            if i + 4 < available:
                pv_consumer_prefetch(ring, i + 4)
            pv_consumer_fetch(ring, i, &answer)
            if answer.reason == PV_REASON_EPOCH_STALE:
                continue  # not executed, for this office is another seat's: that one finds the request in the ledger
            slot = PV_ID_SLOT(answer.id)
            q = &self.queues[answer.queue] if answer.queue < self.queue_count else NULL
            if (q == NULL or not q.used or slot >= q.capacity or answer.id != PV_ID(slot, q.generations[slot])
                    or pv_ledger_state(&q.ledger[slot]) != answer.id):
                if self.recovering:
                    continue  # the seat before this one has given it on
                # Late answer to a queue that was removed, or a device that lies: exactly one answer wins (rules.md 13).
                pv_count(&self.counters[<int>PV_THREAD_FOREIGN_COMPLETIONS], 1)
                continue
            if q == last:
                run += 1
            else:
                if last != NULL:
                    pv_meter_items(&self.meter, PV_ID_SLOT(last.partition), run)
                last = q
                run = 1
            entry = &q.ledger[slot]
            if self.recovering and not self.final(q, slot, &answer):
                continue
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
            entry.done = q.completions.tail
            if answer.result == PV_COMPLETION_SILENT:
                q.silent = True
            q.generations[slot] += 1
            q.clear[q.clear_count] = slot
            q.clear_count += 1
            pv_count(&q.counters[<int>PV_IO_COMPLETIONS], 1)
            if answer.status == PV_STATUS_OK:
                pv_count(&q.counters[<int>PV_IO_OPERATIONS + operation], 1)
                if operation != PV_OP_PATH:  # what it carries is a path and no length
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
                pv_meter_items(&self.meter, PV_ID_SLOT(last.partition), run)
                last = NULL
                self.publish()
                pv_meter_turn(&self.meter, PV_CHARGE_SHARED, pv_now())
        if last != NULL:
            pv_meter_items(&self.meter, PV_ID_SLOT(last.partition), run)
        # An answer leaves its ring when the guest has it: until then whoever takes over finds it there.
        if self.dirty_count:
            self.publish()
        pv_consumer_release(ring, available)
        return available

    cdef bint final(self, Queue *q, uint16_t slot, const pv_completion *answer) noexcept nogil:
        """Does an answer to the seat before this one end the request? On the copy path there may be a step more: what was
        received or read is copied to the guest, out of the buffer that it lies in; what was to be sent or written is
        copied from the guest once more, for that buffer is nobody's any more."""
        cdef bint brings = pv_operation_writes_memory(q.ledger[slot].request.operation)
        cdef bint kept = q.copies[slot].state != COPY_NONE
        if q.path != PV_PATH_COPY or answer.status != PV_STATUS_OK:
            pass
        elif answer.call == 0 and answer.bytes and brings:
            if kept:
                self.arrived(q, slot, answer)
            return False
        elif answer.call == PV_CALL_COPY and not (kept and brings):
            return False
        self.found += 1
        return True

    # ---- towards the guests ----

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
            self.work_for(PV_ID_SLOT(q.partition))  # a wake-up costs more than all the rest
            pv_ledger_commit_indices(q.header, q.requests.head, q.completions.tail)
            pv_producer_publish(&q.completions)
            for k in range(q.clear_count):
                pv_ledger_set(&q.ledger[q.clear[k]], 0)
                q.free_slots[q.free_count] = q.clear[k]
                q.free_count += 1
            q.clear_count = 0
            self.observe_run(q)
            if q.silent:
                q.silent = False
            elif pv_vector_raise(q.vector, NULL, q.interrupts, q.bit, self.symmetric):
                pv_count(&q.counters[<int>PV_IO_INTERRUPTS], 1)
                pv_count(&self.counters[<int>PV_THREAD_WAKES_SENT], 1)
        self.dirty_count = 0

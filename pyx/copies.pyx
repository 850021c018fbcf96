"""The copy path of a channel server (A4): a request's data goes through a buffer in this partition's own memory, which the
monitor fills or empties on call; the device is handed that buffer:

    send, write:     COPY_IN (call) --> COPY_DEVICE (submit, own buffer) --> completion
    receive, read:   COPY_DEVICE (submit, own buffer) --> COPY_OUT (call) --> completion
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from pyx.abi cimport (
    PV_CALL_COPY, PV_CALL_OWN, PV_CALL_SUBMIT, PV_ID, PV_ID_SLOT, PV_IO_COPIED_BYTES, PV_STAGE_COPY, PV_STAGE_TIMES,
    PV_STATUS_OK, pv_completion, pv_ledger_entry, pv_request,
)
from pyx.officec cimport pv_ledger_arrive
from pyx.queues cimport COPY_DEVICE, COPY_IN, COPY_OUT, Copy, Queue, Queues
from pyx.ringc cimport pv_count, pv_meter_items, pv_producer_free, pv_push_submit, pv_saturate
from pyx.validatec cimport pv_operation_has_data, pv_operation_writes_memory

cdef enum:
    NOWHERE = 65535
    FOLLOW_MAX = 262144  # calls that wait for room: more than all queues can have in flight (a power of two)


cdef class Copies(Queues):
    """Steps of the requests on the copy path, one state for each ledger slot in use."""

    def __cinit__(self, *args, **kwargs):
        self.follow = <Follow *>calloc(FOLLOW_MAX, sizeof(Follow))
        if self.follow == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.follow)

    cdef void first_step(self, Queue *q, uint16_t slot, uint64_t now) noexcept nogil:
        cdef Copy *copy = &q.copies[slot]
        cdef uint8_t operation = q.ledger[slot].request.operation
        copy.since = now
        copy.state = COPY_DEVICE if pv_operation_writes_memory(operation) or not pv_operation_has_data(operation) else COPY_IN

    cdef void call_next(self, Queue *q, uint32_t number, uint16_t slot) noexcept nogil:
        """The call that the state of a request asks for, in order behind those that wait for room."""
        if self.follow_head == self.follow_tail and pv_producer_free(&self.calls, 1):
            self.push_step(q, number, slot)
        else:
            self.queue_up(number, slot)

    cdef void queue_up(self, uint32_t number, uint16_t slot) noexcept nogil:
        self.follow[self.follow_tail % FOLLOW_MAX].queue = number
        self.follow[self.follow_tail % FOLLOW_MAX].slot = slot
        self.follow_tail += 1

    cdef uint32_t follow_up(self) noexcept nogil:
        cdef uint32_t done = 0
        cdef Follow *next
        while self.follow_head != self.follow_tail and pv_producer_free(&self.calls, 1):
            next = &self.follow[self.follow_head % FOLLOW_MAX]
            # A queue may have been removed meanwhile.
            if next.queue != NOWHERE:
                if not self.push_next(&self.queues[next.queue], next.queue, next.slot):
                    break
                pv_meter_items(&self.meter, PV_ID_SLOT(self.queues[next.queue].partition), 1)
            self.follow_head += 1
            if self.replays:
                self.replays -= 1
            done += 1
        return done

    cdef bint push_next(self, Queue *q, uint32_t number, uint16_t slot) noexcept nogil:
        """The call of a request whose turn has come; there is room for it. False: it still waits for something else."""
        self.push_step(q, number, slot)
        return True

    cdef void queue_gone(self, uint32_t number) noexcept nogil:
        cdef uint32_t i = self.follow_head
        while i != self.follow_tail:
            if self.follow[i % FOLLOW_MAX].queue == number:
                self.follow[i % FOLLOW_MAX].queue = NOWHERE
            i += 1

    cdef void push_step(self, Queue *q, uint32_t number, uint16_t slot) noexcept nogil:
        cdef Copy *copy = &q.copies[slot]
        cdef pv_ledger_entry *entry = &q.ledger[slot]
        cdef pv_request request = entry.request
        cdef uint16_t call = PV_CALL_COPY, flags = 0
        if copy.state == COPY_DEVICE:
            call = PV_CALL_SUBMIT
            flags = PV_CALL_OWN
            request.gpa = copy.buffer if copy.pages else 0
        else:
            request.device_offset = copy.buffer
            if copy.state == COPY_OUT:
                request.length = copy.bytes
        pv_push_submit(&self.calls, call, PV_ID(slot, q.generations[slot]), &request, copy.since, self.epoch,
                       PV_ID_SLOT(q.partition), number, flags)

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
                answer.result = copy.result
                for i in range(PV_STAGE_TIMES):
                    answer.stage_times[i] = copy.times[i]
        elif (answer.call == 0 and answer.status == PV_STATUS_OK and answer.bytes and copy.state == COPY_DEVICE
              and pv_operation_writes_memory(entry.request.operation)):
            copy.since = now
            self.arrived(q, slot, answer)
            copy.status = answer.status
            copy.reason = answer.reason
            copy.result = answer.result
            for i in range(PV_STAGE_TIMES):
                copy.times[i] = answer.stage_times[i]
            self.call_next(q, number, slot)
            return False
        answer.stage_times[<int>PV_STAGE_COPY] = pv_saturate(copy.copied)
        self.release_buffer(q, slot)
        return True

    cdef void arrived(self, Queue *q, uint16_t slot, const pv_completion *answer) noexcept nogil:
        """The device has filled the buffer, and the ledger says so before the answer is gone."""
        cdef Copy *copy = &q.copies[slot]
        copy.state = COPY_OUT
        copy.bytes = answer.bytes if answer.bytes < q.ledger[slot].request.length else q.ledger[slot].request.length
        pv_ledger_arrive(&q.ledger[slot], copy.bytes)

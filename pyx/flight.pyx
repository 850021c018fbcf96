"""Requests in flight of one queue of a guest: the rings that they go out by, the table that completions are matched with.

There are two ways out: the channel of the server, for the copy and the redirected path, and the queue pair with the
device. What a request said is kept, so that it can be said again over the other way when it comes back unexecuted.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from pyx.abi cimport (
    PV_ID, PV_ID_SLOT, PV_REASON_PATH_CHANGED, PV_STAGE_COMPLETION, PV_STAGE_COPY, PV_STAGE_DEVICE, PV_STAGE_POST,
    PV_STAGE_VALIDATION, PV_STATUS_CANCELLED, PV_STATUS_OK, PV_STATUS_REFUSED, pv_completion,
)
from pyx.ringc cimport (
    pv_consumer, pv_consumer_available, pv_consumer_fetch, pv_consumer_release, pv_now, pv_producer_free,
    pv_producer_publish, pv_push_packed, pv_push_request, pv_saturate,
)
from pyx.waiter cimport CHANGE_ASK, CHANGE_NONE

cdef class Flight:
    """Up to `capacity` requests in flight, by their slots, on whichever way the queue has at the time.

    Counts what it did (`submitted`, `completed`, `refused`, ...): metrics of the host must agree with it exactly.
    """

    cdef int make(self, uint32_t capacity) except -1:
        """Makes the tables, for `capacity` requests in flight."""
        cdef uint32_t i
        self.capacity = capacity
        self.ids = <uint64_t *>calloc(capacity, 8)
        self.generations = <uint64_t *>calloc(capacity, 8)
        self.free_slots = <uint16_t *>calloc(capacity, 2)
        self.said = <Said *>calloc(capacity, sizeof(Said))
        self.back = <uint16_t *>calloc(capacity, 2)
        self.order = <uint16_t *>calloc(2 * capacity, 2)
        self.order_mask = 2 * capacity - 1
        self.answers = <Answer *>calloc(capacity, sizeof(Answer))
        self.times = <uint32_t (*)[6]>calloc(capacity, 6 * sizeof(uint32_t))
        self.done = <uint16_t *>calloc(capacity, 2)
        if not (self.order and self.ids and self.generations and self.free_slots and self.said and self.back
                and self.answers and self.times and self.done):
            raise MemoryError()
        for i in range(capacity):
            self.free_slots[i] = capacity - 1 - i
        self.free_count = capacity
        return 0

    def __dealloc__(self):
        free(self.order)
        free(self.ids)
        free(self.generations)
        free(self.free_slots)
        free(self.said)
        free(self.back)
        free(self.answers)
        free(self.times)
        free(self.done)

    cdef void say_again(self) noexcept nogil:
        """Submits what came back, in order, over the way in use: there is room for all that may be in flight."""
        cdef uint64_t now = pv_now()
        while self.back_head != self.back_tail and pv_producer_free(&self.rings[self.way], 1):
            flight_say(self, self.back[self.back_head & (self.capacity - 1)], now)
            self.back_head += 1
        self.publish()

    cdef void publish(self) noexcept nogil:
        pv_producer_publish(&self.rings[self.way])

    cdef uint32_t collect(self) noexcept nogil:
        """The server is not trusted either: an answer to nothing in flight is counted as foreign and dropped."""
        cdef pv_consumer *ring = &self.answers_on[self.way]
        cdef uint32_t available, i, before = self.done_tail
        cdef pv_completion answer
        cdef Answer ending
        cdef uint64_t now, since
        cdef uint16_t slot
        cdef int earlier
        if self.way == SERVER and self.end.change == CHANGE_ASK and self.number == 0:
            return 0  # the ring holds nothing but the answer that `advance` waits for
        available = pv_consumer_available(ring)
        for i in range(available):
            pv_consumer_fetch(ring, i, &answer)
            slot = PV_ID_SLOT(answer.id)
            if answer.id == 0 or slot >= self.capacity or self.ids[slot] != answer.id:
                self.foreign += 1
                continue
            ending.status = answer.status
            ending.reason = answer.reason
            ending.bytes = answer.bytes
            memcpy(&self.times[slot][0], &answer.stage_times[0], sizeof(answer.stage_times))
            if self.way == PAIR:
                earlier = flight_in_order(self)
                while answer.result and earlier >= 0 and earlier != slot:
                    flight_end_slot(self, earlier, &ending)
                    self.order_head += 1
                    answer.result -= 1
                    earlier = flight_in_order(self)
                if earlier == slot:
                    self.order_head += 1
                else:
                    self.out_of_order(slot)
            flight_end_slot(self, slot, &ending)
        if available:
            pv_consumer_release(ring, available)
        if self.done_tail != before and answer.pickup_time:
            # One stamp per batch: of the last one, which waited least.
            since = (answer.pickup_time + answer.stage_times[<int>PV_STAGE_VALIDATION] + answer.stage_times[<int>PV_STAGE_COPY]
                     + answer.stage_times[<int>PV_STAGE_POST] + answer.stage_times[<int>PV_STAGE_DEVICE]
                     + answer.stage_times[<int>PV_STAGE_COMPLETION])
            now = pv_now()
            self.taken = pv_saturate(now - since) if now > since else 1
        return self.done_tail - before

    cdef void out_of_order(self, uint16_t slot) noexcept nogil:
        cdef uint32_t at = self.order_head, kept
        while at != self.order_tail:
            if self.order[at & self.order_mask] == slot:
                self.order[at & self.order_mask] = GONE
            at += 1
        if self.order_tail - self.order_head > self.capacity:
            at = kept = self.order_head  # as many as may be in flight fit again
            while at != self.order_tail:
                if self.order[at & self.order_mask] != GONE:
                    self.order[kept & self.order_mask] = self.order[at & self.order_mask]
                    kept += 1
                at += 1
            self.order_tail = kept

    cdef int push(self, uint8_t operation, uint64_t gpa, uint32_t length, uint64_t offset, uint64_t now,
                  uint8_t flags=0) noexcept nogil:
        return flight_push(self, operation, gpa, length, offset, now, flags)

    cdef int take(self) noexcept nogil:
        return flight_take(self)

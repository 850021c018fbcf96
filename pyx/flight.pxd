from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from pyx.abi cimport PV_ID, PV_REASON_PATH_CHANGED, PV_STATUS_CANCELLED, PV_STATUS_OK, PV_STATUS_REFUSED
from pyx.ringc cimport pv_consumer, pv_producer, pv_producer_free, pv_push_packed, pv_push_request
from pyx.waiter cimport CHANGE_NONE, Follower


cdef enum:
    SERVER = 0      # way of a queue: by its channel server, or by its queue pair
    PAIR = 1
    GONE = 0xFFFF   # in `order`: completed out of order


# What a request said, to say it again over another path.
cdef struct Said:
    uint64_t gpa
    uint64_t offset
    uint32_t length
    uint8_t operation
    uint8_t flags


# How a request ended.
cdef struct Answer:
    uint16_t status
    uint16_t reason
    uint32_t bytes


cdef class Flight:
    cdef Follower end
    cdef readonly uint32_t number    # queue of its endpoint
    cdef pv_producer rings[2]        # requests: to the server, and on the queue pair
    cdef pv_consumer answers_on[2]
    cdef uint16_t *order             # slots in flight on the queue pair in ring order; GONE: completed out of order
    cdef uint32_t order_head, order_tail, order_mask
    cdef uint32_t way                # which of them is in use
    cdef uint64_t key                # of the queue pair; 0 on the other way
    cdef bint packs                  # a NIC: requests need no offset, three share a slot on the queue pair
    cdef readonly uint32_t capacity
    cdef readonly uint16_t endpoint
    cdef readonly uint64_t endpoint_generation
    cdef uint64_t *ids               # id in flight per slot, 0: free
    cdef uint64_t *generations
    cdef uint16_t *free_slots
    cdef uint32_t free_count
    cdef uint32_t flying             # in flight, without those that came back
    cdef Said *said                  # per slot
    cdef uint16_t *back              # slots whose requests came back unexecuted, in order
    cdef uint32_t back_head, back_tail
    cdef uint32_t taken              # ns from a completion until it was taken; told with the next request
    cdef Answer *answers             # last completion per slot
    cdef uint32_t (*times)[6]        # and its stage times in ns; of a batch that shares one, at its last request
    cdef uint16_t *done              # slots completed, in order of arrival, not yet taken
    cdef uint32_t done_head, done_tail
    cdef readonly uint64_t submitted, completed, refused, failed, cancelled, recalled, bytes, foreign

    cdef int make(self, uint32_t capacity) except -1
    cdef int push(self, uint8_t operation, uint64_t gpa, uint32_t length, uint64_t offset, uint64_t now,
                  uint8_t flags=*) noexcept nogil
    cdef void say_again(self) noexcept nogil
    cdef void publish(self) noexcept nogil
    cdef uint32_t collect(self) noexcept nogil
    cdef void out_of_order(self, uint16_t slot) noexcept nogil
    cdef int take(self) noexcept nogil


# ---- What is done for every request stands here, so that it is compiled into the loops that use it: calls through the
# tables of two classes took as long as the work. ----

cdef inline void flight_say(Flight q, uint16_t slot, uint64_t now) noexcept nogil:
    cdef const Said *said = &q.said[slot]
    q.generations[slot] += 1
    q.ids[slot] = PV_ID(slot, q.generations[slot])
    if q.way == PAIR:
        q.order[q.order_tail & q.order_mask] = slot
        q.order_tail += 1
    if q.way == PAIR and q.packs and not q.taken and not said.offset and not said.flags:
        pv_push_packed(&q.rings[PAIR], q.ids[slot], said.gpa, now, said.length, q.endpoint,
                       said.operation, q.key)
    else:
        pv_push_request(&q.rings[q.way], q.ids[slot], said.gpa, said.offset, q.endpoint_generation, now,
                        said.length, q.endpoint, said.operation, said.flags, q.taken, q.key)
    q.taken = 0
    q.submitted += 1
    q.flying += 1


cdef inline int flight_push(Flight q, uint8_t operation, uint64_t gpa, uint32_t length, uint64_t offset, uint64_t now,
                            uint8_t flags=0) noexcept nogil:
    """Fills the next ring slot; its slot in the in-flight table, or -1 where table or ring are full or the
    endpoint is changing its path (then `reap` moves that on)."""
    cdef uint16_t slot
    cdef Said *said
    if q.free_count == 0 or q.end.change != CHANGE_NONE or pv_producer_free(&q.rings[q.way], 1) == 0:
        return -1
    q.free_count -= 1
    slot = q.free_slots[q.free_count]
    said = &q.said[slot]
    said.gpa = gpa
    said.offset = offset
    said.length = length
    said.operation = operation
    said.flags = flags
    flight_say(q, slot, now)
    return slot


cdef inline int flight_in_order(Flight q) noexcept nogil:
    """The slot in flight that was submitted first on the queue pair; -1: none."""
    while q.order_head != q.order_tail:
        if q.order[q.order_head & q.order_mask] != GONE:
            return q.order[q.order_head & q.order_mask]
        q.order_head += 1
    return -1


cdef inline void flight_end_slot(Flight q, uint16_t slot, const Answer *answer) noexcept nogil:
    q.ids[slot] = 0
    q.flying -= 1
    if answer.status == PV_STATUS_CANCELLED and answer.reason == PV_REASON_PATH_CHANGED:
        q.back[q.back_tail & (q.capacity - 1)] = slot
        q.back_tail += 1
        q.recalled += 1
        return
    q.answers[slot] = answer[0]
    q.done[q.done_tail & (q.capacity - 1)] = slot
    q.done_tail += 1
    q.completed += 1
    if answer.status == PV_STATUS_OK:
        q.bytes += answer.bytes
    elif answer.status == PV_STATUS_REFUSED:
        q.refused += 1
    elif answer.status == PV_STATUS_CANCELLED:
        q.cancelled += 1
    else:
        q.failed += 1


cdef inline int flight_take(Flight q) noexcept nogil:
    """Next completed slot, in order of arrival, or -1. The slot is free again; `answers` holds its completion
    until the next `push` to the same slot completes."""
    cdef uint16_t slot
    if q.done_head == q.done_tail:
        return -1
    slot = q.done[q.done_head & (q.capacity - 1)]
    q.done_head += 1
    q.free_slots[q.free_count] = slot
    q.free_count += 1
    return slot

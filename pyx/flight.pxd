from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from pyx.ringc cimport pv_consumer, pv_producer
from pyx.waiter cimport Follower


cdef enum:
    SERVER = 0      # way of a queue: by its channel server, or by its queue pair
    PAIR = 1


# What a request said, to say it again over another path.
cdef struct Said:
    uint64_t gpa
    uint64_t offset
    uint32_t length
    uint8_t operation


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
    cdef int push(self, uint8_t operation, uint64_t gpa, uint32_t length, uint64_t offset, uint64_t now) noexcept nogil
    cdef void say(self, uint16_t slot, uint64_t now) noexcept nogil
    cdef void say_again(self) noexcept nogil
    cdef void publish(self) noexcept nogil
    cdef uint32_t collect(self) noexcept nogil
    cdef void end_slot(self, uint16_t slot, const Answer *answer) noexcept nogil
    cdef int in_order(self) noexcept nogil
    cdef void out_of_order(self, uint16_t slot) noexcept nogil
    cdef int take(self) noexcept nogil

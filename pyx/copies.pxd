from libc.stdint cimport uint16_t, uint32_t, uint64_t

from pyx.abi cimport pv_completion
from pyx.queues cimport Queue, Queues


cdef struct Follow:
    uint16_t queue
    uint16_t slot


cdef class Copies(Queues):
    cdef Follow *follow                  # calls that found no room, in order
    cdef uint32_t follow_head, follow_tail
    cdef uint32_t replays                # of those: what a seat before this one had in flight

    cdef void first_step(self, Queue *q, uint16_t slot, uint64_t now) noexcept nogil
    cdef void queue_up(self, uint32_t number, uint16_t slot) noexcept nogil
    cdef bint push_next(self, Queue *q, uint32_t number, uint16_t slot) noexcept nogil
    cdef void call_next(self, Queue *q, uint32_t number, uint16_t slot) noexcept nogil
    cdef uint32_t follow_up(self) noexcept nogil
    cdef void push_step(self, Queue *q, uint32_t number, uint16_t slot) noexcept nogil
    cdef void arrived(self, Queue *q, uint16_t slot, const pv_completion *answer) noexcept nogil
    cdef bint copy_step(self, Queue *q, uint16_t slot, pv_completion *answer, uint64_t now) noexcept nogil

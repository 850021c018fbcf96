from libc.stdint cimport uint32_t, uint64_t

from pyx.abi cimport pv_completion
from pyx.ringc cimport pv_consumer, pv_producer
from pyx.segment cimport Mapping
from pyx.waiter cimport Waiter


cdef class CallRing:
    cdef Mapping mapping, page
    cdef Waiter waiter
    cdef pv_producer calls
    cdef pv_consumer completions
    cdef uint64_t generation
    cdef pv_completion kept[33]      # per endpoint: the last answer to its question for a key; then: to a connect call

    cdef uint64_t post(self, int number, bytes payload, uint32_t slot) except 0
    cdef void keep(self, const pv_completion *answer) noexcept nogil
    cdef bint has(self, uint64_t id) noexcept nogil
    cdef uint64_t ask_key(self, uint32_t endpoint) noexcept nogil
    cdef bint find(self, uint64_t id, pv_completion *answer) noexcept nogil
